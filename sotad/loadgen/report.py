"""Turns a measurement into the JSON that is kept. Pure; runs after the last request has ended."""

from hashlib import sha256
from typing import Any

from sotad.benchmark import workload
from sotad.loadgen.client import Exchange, Failure
from sotad.loadgen.run import Measurement
from sotad.loadgen.spec import LoadSpec
from sotad.loadgen.stream import read_reply

FORMAT = "sotad.loadgen/1"


def report(spec: LoadSpec, measured: Measurement) -> dict[str, Any]:
    """Everything that was observed, per request; times in nanoseconds after the first due request.

    `client` says how well this program kept up: its own delay before sending, and the share of one core
    that it used. Above about 0.9 the client, not the server, may have been measured.
    """
    requests = [
        request_record(index, exchange, measured.begin_ns, spec.scenario.output_len)
        for index, exchange in enumerate(measured.exchanges)
    ]
    duration_s = max((each["ended_ns"] or 0 for each in requests), default=0) / 1e9
    return {
        "format": FORMAT,
        "spec": spec.model_dump(),
        "workload_digest": workload.digest(spec.scenario),
        "started_at_ns": measured.started_at_ns,
        "duration_s": duration_s,
        "interrupted": measured.interrupted,
        "warmup": _warmup(measured.warmup),
        "client": _fidelity(measured, duration_s),
        "requests": requests,
    }


def request_record(index: int, exchange: Exchange, begin_ns: int, output_len: int | None) -> dict[str, Any]:
    """One request; `output_len` is the length that counts as complete, None where any does."""
    reply = read_reply(exchange.arrivals)
    failure = exchange.failure or reply.failure or _short(reply.output_tokens, output_len)
    times = [when - begin_ns for when in reply.token_ns]
    return {
        "index": index,
        "due_ns": exchange.due_ns - begin_ns,
        "planned_ns": exchange.planned_ns - begin_ns if exchange.planned_ns else None,
        "sent_ns": exchange.sent_ns - begin_ns if exchange.sent_ns else None,
        "first_token_ns": times[0] if times else None,
        "last_token_ns": times[-1] if times else None,
        "ended_ns": exchange.ended_ns - begin_ns if exchange.ended_ns else None,
        "chunk_ns": times,
        "prompt_tokens": reply.prompt_tokens,
        "output_tokens": reply.output_tokens,
        "tokens_source": "usage" if reply.output_tokens is not None else None,
        "streamed_tokens": reply.streamed_tokens,
        "finish_reason": reply.finish_reason,
        "text": reply.text,
        "text_sha256": sha256(reply.text.encode("utf-8", "surrogatepass")).hexdigest() if times else None,
        "http_status": exchange.http_status,
        "error": {"kind": failure.kind, "detail": failure.detail} if failure else None,
    }


def _short(output_tokens: int | None, wanted: int | None) -> Failure | None:
    if wanted is None or output_tokens == wanted:
        return None
    return Failure("short_output", f"{output_tokens} tokens instead of {wanted}")


def _warmup(exchanges: list[Exchange]) -> dict[str, Any]:
    kinds = [exchange.failure or read_reply(exchange.arrivals).failure for exchange in exchanges]
    return {"requests": len(exchanges), "failed": sum(kind is not None for kind in kinds)}


def _fidelity(measured: Measurement, duration_s: float) -> dict[str, Any]:
    late = sorted(each.sent_ns - each.planned_ns for each in measured.exchanges if each.sent_ns)
    return {
        "late_ms_p50": late[len(late) // 2] / 1e6 if late else None,
        "late_ms_max": late[-1] / 1e6 if late else None,
        "cpu_share": measured.cpu_s / duration_s if duration_s else None,
    }
