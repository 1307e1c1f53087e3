"""What a profiler needs to look into a target that lost: where, against whom, with which lengths. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sotad.results.compare import By, Comparison, Group
from sotad.results.plausible import in_flight
from sotad.results.rows import Row, ran

JSON = dict[str, Any]


def handoffs(comparison: Comparison, target: str) -> Iterator[JSON]:
    """One record for every load on which the target is behind another framework, or fails an SLA that one meets.

    `gap_pct` is (leader - target) / leader of the primary metric in percent; `concurrency` the running batch of
    the target's measurement. `within_noise` says that single runs cannot prove the gap: repeat them first.
    """
    for group in comparison.groups:
        own = next((row for row in group.rows if row["framework"] == target and ran(row)), None)
        leader = group.passing[0] if group.passing else None
        if own is not None and leader is not None and leader["framework"] != target:
            yield _record(group, own, leader, comparison.by)


def _record(group: Group, own: Row, leader: Row, by: By) -> JSON:
    w = own["workload"]
    bucket = "fixed" if w["input_len"] and w["output_len"] else "p50"
    lengths = [w[f"{side}_len"] or w[f"{side}_len_p50"] for side in ("input", "output")]
    prompt, output = (None if length is None else round(length) for length in lengths)
    ours, theirs = own["metrics"][by], leader["metrics"][by]
    return {
        "scenario": group.label,
        "input_len": prompt,
        "output_len": output,
        "bucket": bucket,
        "slow_framework": own["framework"],
        "slow_candidate": own["candidate_id"],
        "fast_framework": leader["framework"],
        "fast_candidate": leader["candidate_id"],
        "metric": by,
        "gap_pct": 100 * (theirs - ours) / theirs if ours is not None and theirs else None,
        "ci": {"slow": own["ci95"].get(by), "fast": leader["ci95"].get(by)},
        "sla_gap": own["reasons"],
        "within_noise": not own["reasons"] and any(row["framework"] == own["framework"] for row in group.within_noise),
        "commands": {
            "prefill": f"--prefill-input-len {_shown(prompt)} --prefill-output-len 1",
            "decode": f"--decode-input-len 1 --decode-output-len {_shown(output)}",
        },
        "concurrency": _running(own),
    }


def _shown(length: int | None) -> str:
    return "UNKNOWN" if length is None else str(length)


def _running(row: Row) -> int | None:
    """Requests in flight on average by Little's law, at most the limit; the limit where E2E was not measured."""
    flight, limit = in_flight(row["metrics"]), row["workload"]["max_concurrency"]
    if flight is None:
        return limit  # type: ignore[no-any-return]
    return max(1, min(round(flight), limit or round(flight)))
