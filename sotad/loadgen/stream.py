"""Reads a streamed completion out of the body that arrived. Pure.

The format is that of OpenAI's streamed completions, plain and chat: lines `data: {json}`, at last
`data: [DONE]`; the object with the usage has no choices. `token_ids` in a choice is an extension that some
servers offer, and so is reasoning beside a delta's content.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from sotad.loadgen.exchange import Failure

SHOWN = 200  # bytes of a server's nonsense that an error quotes
TEXTS = ("reasoning_content", "reasoning", "content")


@dataclass
class Reply:
    """What the server streamed.

    `token_ns` has the arrival of every event that brought text or tokens. `streamed_tokens` counts the
    token ids where the server sent them, and is None where it did not: an event may hold several tokens.
    `found` is what the bytes themselves show to be wrong, `missing` what they lack.
    """

    text: str = ""
    token_ns: list[int] = field(default_factory=list)
    streamed_tokens: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    found: Failure | None = None
    missing: Failure | None = None

    @property
    def failure(self) -> Failure | None:
        """What is wrong with the reply, if anything."""
        return self.found or self.missing


def read_reply(body: Sequence[tuple[int, bytes]]) -> Reply:
    """The reply, whole or as far as it came."""
    reply, parts, done = Reply(), [], False
    for when, data in _events(body):
        if data == b"[DONE]":
            done = True
            break
        try:
            parts.append(_take(reply, when, orjson.loads(data)))
        except _ServerError as error:
            reply.found = Failure("server_error", str(error)[:500])
            break
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            said = str(error) if isinstance(error, _BadUsage) else "not an event of a completion"
            reply.found = Failure("garbage", f"{said}: {data[:SHOWN]!r}")
            break
    reply.text = "".join(parts)
    reply.missing = _missing(reply, done, bool(body))
    return reply


class _ServerError(Exception):
    """The server reported an error inside the stream."""


class _BadUsage(ValueError):
    """The server's count of tokens is no count."""


def _events(body: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The data of each event with the arrival of the chunk that completed it."""
    rest = b""
    for when, chunk in body:
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
        reply.prompt_tokens, reply.output_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not event["choices"]:
        return ""
    choice = event["choices"][0]
    text, ids = _text(choice), choice.get("token_ids")
    if ids is not None:
        reply.streamed_tokens = (reply.streamed_tokens or 0) + len(ids)
    if text or ids:
        reply.token_ns.append(when)
    reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
    return text


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    if delta is None:
        return str(choice.get("text") or "")
    return "".join(str(delta.get(name) or "") for name in TEXTS)


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage[name]
    if type(value) is not int or value < 0:
        raise _BadUsage(f"{name} is {value!r}, not a number of tokens")
    return value


def _missing(reply: Reply, done: bool, anything: bool) -> Failure | None:
    if not anything:
        return Failure("closed_early", "the connection ended without a byte of the answer")
    if not done:
        return Failure("closed_early", "the stream ended before [DONE]")
    if not reply.token_ns:
        return Failure("garbage", "the stream held no token")
    if reply.output_tokens is None:
        return Failure("no_usage", "the server sent no usage, so the tokens cannot be counted without a tokenizer")
    return None
