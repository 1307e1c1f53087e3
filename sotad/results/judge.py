"""Whether a row passed: recomputed from its metrics, whatever it says of itself; the rules are the machine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statemachine.ranking import SlaFailure, passes, sla_failures

Row = dict[str, Any]


def limits(row: Mapping[str, Any]) -> dict[str, float]:
    """The limits that the row's SLA has."""
    return {key: value for key, value in row["sla"].items() if key != "passed" and value is not None}


def false_claim(row: Mapping[str, Any]) -> str | None:
    """What contradicts the row's own `passed`, or None. What a metric that is missing would have said is not known."""
    claimed, given = row["sla"]["passed"], limits(row)
    if claimed and row["status"] != "ok":
        return f"sla.passed is true, the status is {row['status']}"
    if claimed is None or not given or row["status"] != "ok":
        return None
    failures = [failure for failure in sla_failures(row["metrics"], given) if failure.limit is not None]
    broken = [failure for failure in failures if failure.observed is not None]
    if claimed and broken:
        return f"sla.passed is true, but the row {'; '.join(map(_said, broken))}"
    if not claimed and not failures and not missing(row):
        return "sla.passed is false, but its metrics meet every limit"
    return None


def judged(row: Mapping[str, Any], override: Mapping[str, float]) -> Row:
    """The row with `sla.passed` recomputed under its own limits and those that replace them, and with `reasons`."""
    sla = {**row["sla"], **override}
    found = {**row, "sla": sla}
    reasons = list(_reasons(found))
    return {**found, "sla": {**sla, "passed": not reasons}, "reasons": reasons}


def _reasons(row: Row) -> list[str]:
    """Why the row cannot win; empty when it can."""
    if row["status"] != "ok":
        return [f"{row['status']}: {row['failure_reason'] or 'no reason was given'}"]
    if not row["counts"]:
        return ["void: measured, but not used (counts is false)"]
    given = limits(row)
    if not given:
        return ["no SLA: the row has no limit, give them with --sla"]
    if passes(row, given):
        return missing(row)
    told = [_said(failure) for failure in sla_failures(row["metrics"], given)]
    return list(dict.fromkeys((*told, *missing(row))))


def missing(row: Mapping[str, Any]) -> list[str]:
    """What an ok row must have and does not: throughput, TTFT, TPOT (unless one token was asked for), success rate."""
    m = row["metrics"]
    names = [name for name in ("request_throughput", "success_rate") if m[name] is None]
    names += [f"p50_{name}" for name in _wanted(row) if m[f"p50_{name}"] is None and m[f"mean_{name}"] is None]
    return [f"{name} was not measured" for name in names]


def _wanted(row: Mapping[str, Any]) -> tuple[str, ...]:
    return ("ttft_ms",) if row["workload"]["output_len"] == 1 else ("ttft_ms", "tpot_ms")


def _said(failure: SlaFailure) -> str:
    key, limit, observed = failure
    if limit is None:
        return f"the SLA has no {key}"
    if observed is None:
        return f"{key[4:]} was not measured"
    return f"misses {key} {limit:g}: measured {observed:g}"
