"""The steps of a capture without a device, and which operators the time of each went into."""

from __future__ import annotations

import numpy as np

from sotad.analysis.operators import UNNAMED, self_times
from sotad.analysis.pairing import OPERATORS, PLAIN, UNCOVERED, Part, Side, Steps
from sotad.analysis.rows import row_id
from sotad.analysis.stages import Stages, Step
from sotad.trace.columns import I64, Trace

DECODE = "decode"  # one token a sequence, also where the capture tells only the sequences


def operator_side(name: str, trace: Trace, stages: Stages) -> Side:
    """The steps with the self time of every operator, by innermost annotation, and what no operator covers."""
    steps = sorted(stages.steps, key=lambda step: step.begin)
    if not steps:
        return Side(name, OPERATORS)
    own, annotation = self_times(trace)
    begins, ends = (np.array([getattr(step, key) for step in steps], dtype=np.int64) for key in ("begin", "end"))
    at = np.searchsorted(begins, trace.ops.begin, side="right") - 1
    at = np.where((at >= 0) & (trace.ops.begin < ends[at]), at, -1)
    keys = (annotation + 1) * len(trace.names) + trace.ops.name
    found = {}
    for stage in dict.fromkeys(step.stage for step in steps):
        rows = np.flatnonzero([step.stage == stage for step in steps])
        inside = np.flatnonzero(np.isin(at, rows))
        place = np.searchsorted(rows, at[inside])
        found[stage] = _steps(trace, [steps[row] for row in rows], stage, keys[inside], place, own[inside])
    return Side(name, OPERATORS, found)


def _steps(trace: Trace, steps: list[Step], stage: str, keys: I64, place: I64, own: I64) -> Steps:
    """One column for every operator, and one for the rest of the step."""
    kinds, column = np.unique(keys, return_inverse=True)
    times, counts = np.zeros((len(steps), len(kinds) + 1)), np.zeros((len(steps), len(kinds) + 1))
    np.add.at(times, (place, column), own / 1e6)
    np.add.at(counts, (place, column), 1)
    lengths = np.array([step.end - step.begin for step in steps]) / 1e6
    times[:, -1] = lengths - times[:, :-1].sum(axis=1)
    counts[:, -1] = 1
    parts = [_part(trace, stage, *divmod(int(kind), len(trace.names))) for kind in kinds]
    sequences, tokens = (np.array([getattr(s, key) for s in steps], dtype=np.int64) for key in ("sequences", "tokens"))
    if stage == DECODE:
        tokens = np.where(tokens > 0, tokens, sequences)
    rest = Part(row_id(stage, None, UNNAMED), UNNAMED, UNCOVERED)
    return Steps([*parts, rest], times, counts, sequences, tokens, np.zeros(len(steps), dtype=np.bool_))


def _part(trace: Trace, stage: str, label: int, name: int) -> Part:
    annotation = trace.names[label - 1] if label else None
    text = trace.names[name]
    return Part(row_id(stage, annotation, text), text, annotation or PLAIN, annotation)
