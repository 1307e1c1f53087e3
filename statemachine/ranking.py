"""SLA and ranking of benchmark rows: pure rules, used by the benchmark and run again as guards.

A row is a mapping with ``status``, ``metrics`` (name to number or None) and optionally ``hardware``. What was
not measured, or is no finite number, never counts in a row's favour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]

SLA_KEYS = ("max_p50_ttft_ms", "max_p50_tpot_ms", "min_success_rate")


class SlaFailure(NamedTuple):
    """A key of the SLA that does not hold; None where the SLA has no limit or the row no number."""

    key: str
    limit: float | None
    observed: float | None


def sla_failures(measured: Mapping[str, Any] | None, sla: Mapping[str, Any]) -> list[SlaFailure]:
    """What of the SLA does not hold; empty is passed.

    ``max_NAME`` and ``min_NAME`` bound metric NAME. A key that is required and absent fails, and so does one
    whose metric is unknown, missing or not a number.
    """
    keys = dict.fromkeys((*SLA_KEYS, *(key for key in sla if key != "passed")))
    failures = (_breach(key, sla.get(key), (measured or {}).get(key[4:])) for key in keys)
    return [failure for failure in failures if failure is not None]


def _breach(key: str, limit: float | None, observed: float | None) -> SlaFailure | None:
    if observed is not None and math.isfinite(observed) and limit is not None:
        if key.startswith("max_") and observed <= limit:
            return None
        if key.startswith("min_") and observed >= limit:
            return None
    return SlaFailure(key, limit, observed)


def passes(row: Row, sla: Mapping[str, Any]) -> bool:
    """Whether the row ran and meets every key of the SLA."""
    return row.get("status") == "ok" and not sla_failures(row.get("metrics"), sla)


def ranking_key(row: Row, sla: Mapping[str, Any]) -> tuple[float, ...]:
    """Larger is better, compared from the left.

    status ok, SLA passed (recomputed, whatever the row says), request throughput, output token throughput,
    lower TTFT, lower TPOT, fewer GPUs. A missing p50 is replaced by the mean, a missing mean by the worst;
    so is everything that is not a finite number.
    """
    measured = row.get("metrics") or {}
    return (
        float(row.get("status") == "ok"),
        float(passes(row, sla)),
        _number(measured.get("request_throughput"), -math.inf),
        _number(measured.get("output_token_throughput"), -math.inf),
        -_latency(measured, "ttft_ms"),
        -_latency(measured, "tpot_ms"),
        -_number((row.get("hardware") or {}).get("gpu_count"), math.inf),
    )


def _number(value: object, otherwise: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return otherwise


def _latency(measured: Mapping[str, Any], name: str) -> float:
    return _number(measured.get(f"p50_{name}"), _number(measured.get(f"mean_{name}"), math.inf))


def best(rows: Iterable[Row], sla: Mapping[str, Any]) -> Row | None:
    """The best row that ran and passes the SLA, or None; ties go to the first."""
    passing = [row for row in rows if passes(row, sla)]
    return max(passing, key=lambda row: ranking_key(row, sla), default=None)
