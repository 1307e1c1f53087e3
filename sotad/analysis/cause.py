"""The cause that a campaign cites: the slow stage of two captures of one workload, and the rows that explain it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sotad.analysis.difference import LARGE, SMALL, UNCOUNTED, either
from sotad.analysis.noise import ordinary
from sotad.analysis.pairing import KERNELS, PROMPTS, Part, Refused, Side, Steps
from statemachine.evidence import MIN_ROW_SHARE, costliest

JSON = dict[str, Any]
CITED_ROWS = 6
DIGITS = 4
STEP = "step"
EXPLAINS = 0.05  # of the stage's difference a group must be, for its rows to be cited, or 1% of the stage
DISTINCT = 1.1  # stages whose slowdowns are closer than this factor are slowed alike


def explain(
    target: Side,
    leader: Side,
    request: Mapping[str, float] | None = None,
    waited_ms: Mapping[str, float] | None = None,
) -> JSON:
    """The slow stage, its rows by extra milliseconds, and the rows that a root cause may cite.

    Both captures are of one workload, so times are compared per token of their stage over all steps: a side that
    batches worse pays for it here. Times are ms within the target's capture; the leader's are scaled to the same
    number of tokens, and for one capture on the CPU by `common_factor`, the slowdown that all stages share. ``share``
    is percent of the stage's time in the target. A stage that one side lacks, or whose steps tell no tokens, is left
    out.

    Stages that were captured apart do not show how much of each a workload has: with ``request``, the tokens of one
    request by stage, all times are ms of such a request (``per_request`` is true then). ``waited_ms``, by how much
    longer a measured request waited in each stage, then says which of those that take longer is the slow one: prefill
    is captured one prompt at a time, and how many a workload has at once is not in its tokens.

    Of kernels, only steps of ordinary length count, and only rows of a group (see `difference`) that takes longer in
    the target are cited: a kernel that stands for a slower one of the leader explains nothing. What is as large as a
    row must be to prove anything is cited however large the difference is.

    Raises:
        Refused: no stage is left.
    """
    target, leader = _ordinary(target), _ordinary(leader)
    both = [name for name in target.stages if name in leader.stages]
    names = [name for name in both if _counted(target, name) and _counted(leader, name)]
    if not names:
        raise Refused("no stage has steps with known tokens in both captures: there is nothing to compare by")
    pairs = [(name, target.stages[name], leader.stages[name]) for name in names]
    kernels = target.kind == KERNELS
    ratios = [_per_token(ours) / _per_token(theirs) for _, ours, theirs in pairs if theirs.times.any()]
    factor = 1.0 if kernels or request else _common_factor(ratios)
    units = {name: (request or {}).get(name, ours.tokens.sum()) / float(ours.tokens.sum()) for name, ours, _ in pairs}
    rows = [row for each in pairs for row in _campaign_rows(*each, factor, units[each[0]], by_category=kernels)]
    rows.sort(key=lambda row: (-row["extra_ms"], row["row_id"]))
    extra = {row["stage"]: row["extra_ms"] for row in rows if row["name"] == "step"}
    slow = costliest(extra, waited_ms or {})
    own = [row for row in rows if row["stage"] == slow]
    whole_ms = next(row["time_ms"] for row in own if row["row_id"] == f"{slow}/{STEP}")
    longer = _longer(own, target.kind, min(EXPLAINS * max(extra[slow], 0.0), MIN_ROW_SHARE / 100 * whole_ms))
    cited = [row for row in own if row["share"] >= MIN_ROW_SHARE and row["extra_ms"] > 0 and row["row_id"] in longer]
    cited.sort(key=lambda row: (-longer[row["row_id"]], -row["extra_ms"], row["row_id"]))
    return {
        "stage": slow,
        "common_factor": round(factor, DIGITS),
        "per_request": bool(request),
        "extra_ms": extra,
        "waited_ms": dict(waited_ms or {}),
        "stages": {"target": _plain(target), "leader": _plain(leader)},
        "rows": [row for row in rows if row["share"] >= MIN_ROW_SHARE],
        "cited": [row["row_id"] for row in cited[:CITED_ROWS]],
    }


def _ordinary(side: Side) -> Side:
    """Of a capture with kernels only whole steps, none of odd length; on the CPU lengths vary, and all steps count."""
    if side.kind != KERNELS:
        return side
    stages = {name: steps.take(steps.closed) if steps.closed.any() else steps for name, steps in side.stages.items()}
    for name, steps in stages.items():
        units = np.maximum(steps.tokens, 1) if name in PROMPTS else 1
        stages[name] = steps.take(ordinary(steps.times.sum(axis=1) / units))
    return Side(side.name, side.kind, stages)


def _longer(rows: Sequence[JSON], kind: str, least_ms: float) -> dict[str, float]:
    """Rows whose group takes longer in the target, by more than ``least_ms``, with the milliseconds of the group.

    A row of operators, and that of whole steps, is a group by itself.
    """
    groups: dict[str, list[JSON]] = defaultdict(list)
    for row in rows:
        whole = kind != KERNELS or row["name"] == STEP
        category = row["annotation"] if row["annotation"] in LARGE else SMALL
        groups[row["row_id"] if whole else category].append(row)
    sums = {name: sum(row["extra_ms"] for row in members) for name, members in groups.items()}
    return {row["row_id"]: sums[name] for name, rows in groups.items() if sums[name] > least_ms for row in rows}


def _counted(side: Side, name: str) -> bool:
    return name not in UNCOUNTED and len(side.stages[name]) > 0 and bool(side.stages[name].tokens.sum())


def _per_token(steps: Steps) -> float:
    return float(steps.times.sum() / steps.tokens.sum())


def _common_factor(ratios: Sequence[float]) -> float:
    """By how much every stage of the target is slower, which says nothing about any one stage.

    The two captures are taken one after the other, and a host that is busier during one of them slows all of its
    stages alike. When the stages hardly differ in this, the slowdown itself is what has to be explained: then 1.
    """
    if len(ratios) < 2 or max(ratios) < DISTINCT * min(ratios):
        return 1.0
    return min(ratios)


def _campaign_rows(
    stage: str, target: Steps, leader: Steps, factor: float, unit: float, by_category: bool
) -> Iterator[JSON]:
    """A row for every part of either side, and one for whole steps; kernels have their category as annotation.

    Times are multiplied by ``unit``, the leader's by ``factor`` and to the target's tokens too.
    """
    scale = unit * factor * float(target.tokens.sum() / leader.tokens.sum())
    ours, theirs = _totals(stage, target), _totals(stage, leader)
    whole_ms = float(target.times.sum())
    for identity in ours | theirs:
        part, time_ms, count = ours.get(identity, (None, 0.0, 0))
        leader_part, leader_time_ms, leader_count = theirs.get(identity, (None, 0.0, 0))
        named = either(part, leader_part)
        yield {
            "row_id": identity,
            "stage": stage,
            "name": named.name,
            "time_ms": round(unit * time_ms, DIGITS),
            "leader_time_ms": round(scale * leader_time_ms, DIGITS),
            "extra_ms": round(unit * time_ms - scale * leader_time_ms, DIGITS),
            "share": round(100 * time_ms / whole_ms, 3) if whole_ms else 0.0,
            "count": count,
            "leader_count": leader_count,
            "annotation": (named.category if by_category else named.annotation) or "",
            "mean_batch_size": round(float(target.sequences.mean()), DIGITS) if named.name == STEP else 0.0,
            "leader_mean_batch_size": round(float(leader.sequences.mean()), DIGITS) if named.name == STEP else 0.0,
        }


def _totals(stage: str, steps: Steps) -> dict[str, tuple[Part, float, int]]:
    """Part, ms and count in the whole capture by row id; `STAGE/step` is the steps themselves."""
    times, counts = steps.times.sum(axis=0), steps.counts.sum(axis=0)
    found = {part.row_id: (part, float(times[i]), int(counts[i])) for i, part in enumerate(steps.parts)}
    whole = Part(f"{stage}/{STEP}", STEP, STEP)
    return {**found, whole.row_id: (whole, float(times.sum()), len(steps))}


def _plain(side: Side) -> JSON:
    """Each stage's steps: count, mean batch size, tokens and total ms."""
    return {
        stage: {
            "row_id": f"{stage}/{STEP}",
            "stage": stage,
            "count": len(steps),
            "mean_batch_size": round(float(steps.sequences.mean()), DIGITS) if len(steps) else 0.0,
            "tokens": int(steps.tokens.sum()),
            "total_ms": round(float(steps.times.sum()), DIGITS),
        }
        for stage, steps in side.stages.items()
    }
