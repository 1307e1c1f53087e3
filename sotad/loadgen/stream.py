"""Reads a streamed completion out of the bytes that arrived. Pure.

The format is that of OpenAI's streamed completions: lines `data: {json}`, at last `data: [DONE]`; the
object with the usage has no choices. `token_ids` in a choice is an extension that some servers offer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from sotad.loadgen.client import Failure

Arrivals = Sequence[tuple[int, bytes]]


@dataclass
class Reply:
    """What the server streamed.

    `token_ns` has the arrival of every event that brought text or tokens. `streamed_tokens` counts the
    token ids where the server sent them, and is None where it did not: an event may hold several tokens.
    """

    text: str = ""
    token_ns: list[int] = field(default_factory=list)
    streamed_tokens: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    failure: Failure | None = None


def read_reply(arrivals: Arrivals) -> Reply:
    """The reply, whole or as far as it came; `failure` says what is wrong with it."""
    reply, parts, done = Reply(), [], False
    for when, data in _events(arrivals):
        if data == b"[DONE]":
            done = True
            break
        try:
            parts.append(_take(reply, when, orjson.loads(data)))
        except _ServerError as error:
            reply.failure = Failure("server_error", str(error)[:500])
            break
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            reply.failure = Failure("garbage", f"not an event of a completion: {data[:200]!r}")
            break
    reply.text = "".join(parts)
    reply.failure = reply.failure or _missing(reply, done, bool(arrivals))
    return reply


class _ServerError(Exception):
    """The server reported an error inside the stream."""


def _events(arrivals: Arrivals) -> Iterator[tuple[int, bytes]]:
    """The data of each event with the arrival of the chunk that completed it."""
    rest = b""
    for when, chunk in arrivals:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield when, line[5:].strip()
            elif line.strip() and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                yield when, line  # no event stream: reading it will fail, and show what it was


def _take(reply: Reply, when: int, event: dict[str, Any]) -> str:
    """Adds one event to the reply and returns its text."""
    if event.get("error"):
        raise _ServerError(str(event["error"]))
    if usage := event.get("usage"):
        reply.prompt_tokens, reply.output_tokens = (
            int(usage["prompt_tokens"]),
            int(usage["completion_tokens"]),
        )
    if not event["choices"]:
        return ""
    choice = event["choices"][0]
    text, ids = choice.get("text") or "", choice.get("token_ids")
    if ids is not None:
        reply.streamed_tokens = (reply.streamed_tokens or 0) + len(ids)
    if text or ids:
        reply.token_ns.append(when)
    reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
    return str(text)


def _missing(reply: Reply, done: bool, anything: bool) -> Failure | None:
    if not anything:
        return Failure("closed_early", "the connection ended without a byte")
    if not done:
        return Failure("closed_early", "the stream ended before [DONE]")
    if not reply.token_ns:
        return Failure("garbage", "the stream held no token")
    if reply.output_tokens is None:
        return Failure("no_usage", "the server sent no usage, so the tokens cannot be counted")
    return None
