"""Two traces in, one explanation out: where the target spends more than the leader, row by row.

``python -m sotad.analysis.explain TARGET LEADER OUT`` runs in a process of its own, because a trace is large.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sotad.analysis.kernels import Tables, TraceError, compare, read_tables

JSON = dict[str, Any]
CITED_ROWS = 6
MIN_SHARE = 1.0  # percent of the stage; smaller rows prove nothing
DIGITS = 4
DISTINCT = 1.1  # stages whose slowdowns are closer than this factor are slowed alike


def explain(target: Tables, leader: Tables) -> JSON:
    """The slow stage, its rows by extra milliseconds, and the rows that a root cause may cite.

    Times are ms within the target's capture; the leader's are scaled to the same number of tokens, and by
    ``common_factor`` (see there). ``share`` is percent of the stage's time in the target.
    """
    counts = {row["row_id"]: row for row in target.rows} | {s["row_id"]: s for s in target.stages.values()}
    leader_counts = {row["row_id"]: row for row in leader.rows} | {s["row_id"]: s for s in leader.stages.values()}
    totals = {stage: entry["total_ms"] for stage, entry in target.stages.items()}
    compared = compare(target, leader)
    factor = common_factor(compared)
    rows = [_row(found, counts, leader_counts, totals, factor) for found in compared]
    rows.sort(key=lambda row: (-row["extra_ms"], row["row_id"]))
    extra = {stage: sum(r["extra_ms"] for r in rows if r["row_id"] == f"{stage}/step") for stage in totals}
    slow = max(extra, key=lambda stage: (extra[stage], stage))
    cited = [row for row in rows if row["stage"] == slow and row["share"] >= MIN_SHARE and row["extra_ms"] > 0]
    return {
        "stage": slow,
        "common_factor": round(factor, DIGITS),
        "extra_ms": {stage: round(value, DIGITS) for stage, value in extra.items()},
        "stages": {"target": _plain(target.stages), "leader": _plain(leader.stages)},
        "rows": [row for row in rows if row["share"] >= MIN_SHARE],
        "cited": [row["row_id"] for row in cited[:CITED_ROWS]],
    }


def common_factor(compared: list[JSON]) -> float:
    """By how much every stage of the target is slower, which says nothing about any one stage.

    The two captures are taken one after the other, and a host that is busier during one of them slows all of its
    stages alike. When the stages hardly differ in this, the slowdown itself is what has to be explained: then 1.
    """
    steps = [row for row in compared if row["row_id"].endswith("/step") and row["leader_us_per_token"]]
    ratios: list[float] = [row["us_per_token"] / row["leader_us_per_token"] for row in steps]
    if len(ratios) < 2 or max(ratios) < DISTINCT * min(ratios):
        return 1.0
    return min(ratios)


def _row(found: JSON, counts: JSON, leader_counts: JSON, totals: dict[str, float], factor: float) -> JSON:
    identity = found["row_id"]
    count, leader_count = counts.get(identity, {}), leader_counts.get(identity, {})
    leader_ms = factor * (found["time_ms"] - found["extra_ms"])
    return {
        "row_id": identity,
        "stage": found["stage"],
        "name": found["name"],
        "time_ms": round(found["time_ms"], DIGITS),
        "leader_time_ms": round(leader_ms, DIGITS),
        "extra_ms": round(found["time_ms"] - leader_ms, DIGITS),
        "share": round(100 * found["time_ms"] / totals[found["stage"]], 3) if totals[found["stage"]] else 0.0,
        "count": count.get("count", 0),
        "leader_count": leader_count.get("count", 0),
        "annotation": count.get("annotation") or leader_count.get("annotation") or "",
        "mean_batch_size": round(count.get("mean_batch_size", 0.0), DIGITS),
        "leader_mean_batch_size": round(leader_count.get("mean_batch_size", 0.0), DIGITS),
    }


def _plain(stages: dict[str, JSON]) -> JSON:
    return {
        stage: {key: round(v, DIGITS) if isinstance(v, float) else v for key, v in entry.items()}
        for stage, entry in stages.items()
    }


def statement(found: JSON, target: str, leader: str) -> str:
    """The explanation in one sentence, with row ids."""
    by_id = {row["row_id"]: row for row in found["rows"]}
    step = by_id.get(f"{found['stage']}/step")
    head = f"{found['stage']} is the slow stage: {target} spends {found['extra_ms'][found['stage']]:.1f} ms more"
    if step:
        head += (
            f" than {leader} for the same tokens ({step['count']} steps at mean batch {step['mean_batch_size']:.2f}"
            f" against {step['leader_count']} at {step['leader_mean_batch_size']:.2f})"
        )
    rows = [by_id[name] for name in found["cited"] if name in by_id and not name.endswith("/step")]
    if found["common_factor"] != 1.0:
        head += f", after a factor of {found['common_factor']:.2f} that all stages share"
    parts = [f"{row['row_id']} +{row['extra_ms']:.1f} ms ({row['share']:.1f}%)" for row in rows]
    return head + ("; rows " + ", ".join(parts) if parts else "") + "."


def main(argv: list[str]) -> int:
    """Exit 0 with OUT written, 1 when a trace cannot be used, 2 on bad usage."""
    if len(argv) != 3:
        print("usage: python -m sotad.analysis.explain TARGET LEADER OUT", file=sys.stderr)
        return 2
    try:
        found = explain(read_tables(Path(argv[0])), read_tables(Path(argv[1])))
    except (TraceError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    Path(argv[2]).write_text(json.dumps(found, sort_keys=True, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
