"""What the server's own load lines show after the start: how full it got and which limit it met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sotad.capacity.rules import Event
from sotad.capacity.session import Session

FULL = 0.95  # share of the pool from which on it counts as met


def observed(session: Session, request_limit: int | None) -> dict[str, Any] | None:
    """Peaks and 95th percentiles of the load lines, all pools apart; None when the log has none of them."""
    framework = "sglang" if session.framework == "tokenspeed" else session.framework
    lines = [event for event in session.traffic if event.framework == framework]
    if not lines:
        return None
    running, queued = _values(lines, "running"), _values(lines, "queued")
    usage = [share for event in lines if (share := _usage(event)) is not None]
    retracted = [event for event in session.events if event.name == "retract"]
    return {
        "load_lines": len(lines),
        "lines": [lines[0].line, lines[-1].line],
        "running": _peak(running),
        "queued": _peak(queued),
        "pool_usage": _peak(usage),
        "tokens_per_request_at_peak": _each_at_peak(lines),
        "retractions": len(retracted),
        "retraction_lines": [event.line for event in retracted[:10]],
        "met_first": _met(running, queued, usage, len(retracted), request_limit),
    }


def _values(lines: Sequence[Event], part: str) -> list[int]:
    return [value for event in lines if (value := event.whole(part)) is not None]


def _usage(event: Event) -> float | None:
    """Share of the pool in use; vLLM prints percent, and on a CPU calls its pool so."""
    if isinstance(share := event.values.get("usage"), float):
        return share
    percent = event.values.get("percent", event.values.get("cpu_percent"))
    return round(percent / 100, 4) if isinstance(percent, float) else None


def _peak(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {"max": ordered[-1], "p95": ordered[round(0.95 * (len(ordered) - 1))]}


def _each_at_peak(lines: Sequence[Event]) -> float | None:
    """Tokens in the pool for each running request in the line that has most of them."""
    held = [event for event in lines if event.whole("tokens") and event.whole("running")]
    if not held:
        return None
    peak = max(held, key=lambda event: event.whole("tokens") or 0)
    return round((peak.whole("tokens") or 0) / (peak.whole("running") or 1), 1)


def _met(
    running: Sequence[float], queued: Sequence[float], usage: Sequence[float], retracted: int, limit: int | None
) -> str:
    if retracted or max(usage, default=0.0) >= FULL:
        return "token pool"
    if limit is not None and max(running, default=0.0) >= limit:
        return "request limit"
    return "neither, but requests waited" if max(queued, default=0) > 0 else "neither"
