"""The table of a trace without a device: the self time of operators, per stage and innermost annotation.

Self time is an operator's duration without the operators that it called. What no operator covers of a step is its
own row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sotad.analysis.dialects import parse
from sotad.analysis.nesting import Nesting
from sotad.analysis.rows import row_id
from sotad.analysis.stages import ALL, OUTSIDE, Stages
from sotad.trace.columns import I64, Trace

UNNAMED = "(not in an operator)"  # the time of steps that no operator covers
Row = dict[str, Any]


class OperatorTables(NamedTuple):
    """``rows``: row_id, stage, name, annotation, category, count, time_ms, share (percent of the stage's counted
    time), by time. ``stages``: per stage row_id, stage, count (steps), mean_batch_size, tokens, total_ms."""

    rows: list[Row]
    stages: dict[str, Row]


def operator_tables(trace: Trace, stages: Stages) -> OperatorTables:
    """The operators of every stage. An operator belongs to the step that was the last to begin before it, if that
    step has not ended. Without steps all is of the stage "all"; without operators there are no rows."""
    self_time, annotation = self_times(trace)
    order, stage = _stage_of(trace, stages)
    names = [*order, OUTSIDE] if stages.steps else [stages.names[0] if stages.names else ALL]
    width, labels = len(trace.names), len(trace.names) + 1
    key = (stage * labels + annotation + 1) * width + trace.ops.name
    unique, index, count = np.unique(key, return_inverse=True, return_counts=True)
    total = np.zeros(len(unique), np.int64)
    np.add.at(total, index.reshape(-1), self_time)
    found: dict[tuple[str, str | None, str, str], tuple[int, int]] = {}
    for value, times, amount in zip(unique.tolist(), count.tolist(), total.tolist(), strict=True):
        place, name = divmod(value, width)
        of, label = divmod(place, labels)
        found[names[of], trace.names[label - 1] if label else None, trace.names[name], "cpu_op"] = times, amount
    if found:
        _add_unnamed(found, stages)
    return OperatorTables(_rows(found), _stage_rows(stages))


def self_times(trace: Trace) -> tuple[I64, I64]:
    """Per operator its ns without its children's, and the name of the innermost annotation that is no step (-1)."""
    ops, marks = trace.ops, trace.marks
    begin, end = np.concatenate([marks.begin, ops.begin]), np.concatenate([marks.end, ops.end])
    nesting = Nesting(begin, end, np.concatenate([marks.thread, ops.thread]))
    first = len(marks)
    steps = [name for name in np.unique(marks.name) if parse(trace.names[name])]
    rank = np.concatenate([np.where(np.isin(marks.name, steps), 0, 1), np.full(len(ops), -1)])
    best = nesting.inherit(rank)[first:]
    annotation = np.where(rank[best] == 1, np.concatenate([marks.name, ops.name])[best], -1).astype(np.int64)
    above = _operator_above(nesting, first)
    inner = np.zeros(len(begin), np.int64)
    children = np.flatnonzero(above >= 0)
    around = above[children]
    np.add.at(inner, around, np.minimum(end[children], end[around]) - begin[children])
    return np.maximum(0, end - begin - inner)[first:], annotation


def _operator_above(nesting: Nesting, first: int) -> I64:
    """Per interval the innermost operator around it, through annotations; -1 where none is. Operators only."""
    above = np.full(len(nesting.parent), -1, np.int64)
    for level in nesting.levels():
        parent = nesting.parent[level]
        above[level] = np.where(parent >= first, parent, np.where(parent >= 0, above[parent], -1))
    above[:first] = -1
    return above


def _stage_of(trace: Trace, stages: Stages) -> tuple[list[str], I64]:
    """The stages by name, and per operator the index of its stage; outside is the one after the last."""
    steps = sorted(stages.steps, key=lambda step: step.begin)
    order = sorted({step.stage for step in steps})
    if not steps:
        return order, np.zeros(len(trace.ops), np.int64)
    begins, ends = np.array([step.begin for step in steps]), np.array([step.end for step in steps])
    index = np.array([order.index(step.stage) for step in steps])
    at = np.searchsorted(begins, trace.ops.begin, side="right") - 1
    inside = (at >= 0) & (trace.ops.begin < ends[at])
    return order, np.where(inside, index[at], len(order))


def _add_unnamed(found: dict[tuple[str, str | None, str, str], tuple[int, int]], stages: Stages) -> None:
    left: dict[str, list[int]] = {}
    for step in stages.steps:
        entry = left.setdefault(step.stage, [0, 0])
        entry[0] += 1
        entry[1] += step.end - step.begin
    for (stage, *_), (_, duration) in found.items():
        if stage in left:
            left[stage][1] -= duration
    found.update({(stage, None, UNNAMED, "gap"): (n, ns) for stage, (n, ns) in left.items() if ns > 0})


def _rows(found: dict[tuple[str, str | None, str, str], tuple[int, int]]) -> list[Row]:
    whole: dict[str, int] = {}
    for (stage, *_), (_, duration) in found.items():
        whole[stage] = whole.get(stage, 0) + duration
    rows = [
        {
            "row_id": row_id(stage, annotation, name),
            "stage": stage,
            "name": name,
            "annotation": annotation,
            "category": category,
            "count": count,
            "time_ms": duration / 1e6,
            "share": 100 * duration / whole[stage] if whole[stage] else None,
        }
        for (stage, annotation, name, category), (count, duration) in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["time_ms"], row["row_id"]))


def _stage_rows(stages: Stages) -> dict[str, Row]:
    return {
        stage: {
            "row_id": f"{stage}/step",
            "stage": stage,
            "count": len(group),
            "mean_batch_size": sum(step.sequences for step in group) / len(group),
            "tokens": sum(step.tokens for step in group),
            "total_ms": sum(step.end - step.begin for step in group) / 1e6,
        }
        for stage in sorted({step.stage for step in stages.steps})
        for group in [[step for step in stages.steps if step.stage == stage]]
    }
