"""From the bytes of one exchange to the record that is kept. Pure; runs after the last request has ended."""

from hashlib import sha256
from typing import Any

from sotad.benchmark.tokens import Tokenizer
from sotad.loadgen.exchange import Exchange, Failure
from sotad.loadgen.http import Response, decode
from sotad.loadgen.stream import Reply, read_reply

Record = dict[str, Any]


def request_record(
    exchange: Exchange, begin_ns: int, wanted: int | None = None, tokenizer: Tokenizer | None = None
) -> Record:
    """One request; `wanted` tokens make it complete, None where any number does.

    Tokens are those of the server's usage; where it sends none, `tokenizer` counts the text that it streamed,
    and `tokens_source` says so. Without either the request has failed.
    """
    response = decode(exchange.arrivals)
    reply = read_reply(response.body) if response.status == 200 and not response.problem else Reply()
    source = _count_tokens(reply, tokenizer)
    failure = _verdict(exchange, response, reply) or _short(reply.output_tokens, wanted)
    times = [when - begin_ns for when in reply.token_ns]
    return {
        "index": exchange.index,
        "due_ns": exchange.due_ns - begin_ns,
        "planned_ns": exchange.planned_ns - begin_ns if exchange.planned_ns else None,
        "sent_ns": exchange.sent_ns - begin_ns if exchange.sent_ns else None,
        "written_ns": exchange.written_ns - begin_ns if exchange.written_ns else None,
        "first_token_ns": times[0] if times else None,
        "last_token_ns": times[-1] if times else None,
        "ended_ns": exchange.ended_ns - begin_ns if exchange.ended_ns else None,
        "chunk_ns": times,
        "prompt_tokens": reply.prompt_tokens,
        "output_tokens": reply.output_tokens,
        "tokens_source": source,
        "streamed_tokens": reply.streamed_tokens,
        "finish_reason": reply.finish_reason,
        "text": reply.text,
        "text_sha256": sha256(reply.text.encode("utf-8", "surrogatepass")).hexdigest() if times else None,
        "http_status": response.status,
        "error": {"kind": failure.kind, "detail": failure.detail} if failure else None,
    }


def _count_tokens(reply: Reply, tokenizer: Tokenizer | None) -> str | None:
    """Says who counted; lets the tokenizer count where only that is missing."""
    if reply.output_tokens is not None:
        return "usage"
    if tokenizer is None or reply.found or not reply.missing or reply.missing.kind != "no_usage":
        return None
    reply.output_tokens, reply.missing = len(tokenizer.ids(reply.text)), None
    return "tokenizer"


def _verdict(exchange: Exchange, response: Response, reply: Reply) -> Failure | None:
    """What the bytes prove comes first, then how the exchange ended, then what is missing."""
    if exchange.failure and not exchange.arrivals:
        return exchange.failure
    if response.problem:
        return Failure("garbage", response.problem)
    if response.status not in (None, 200):
        text = b"".join(data for _, data in response.body)[:500].decode("utf-8", "replace")
        return Failure("http_status", f"{response.status}: {text}")
    framing = None if response.whole else Failure("closed_early", "the connection ended before the reply")
    return reply.found or exchange.failure or framing or reply.missing


def _short(output_tokens: int | None, wanted: int | None) -> Failure | None:
    if wanted is None or output_tokens == wanted:
        return None
    return Failure("short_output", f"{output_tokens} tokens instead of {wanted}")
