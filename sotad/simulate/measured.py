"""Steps of a trace beside the model: time per stage and category, as kernels took it.

A stage's steps are those of its most frequent shape (sequences, tokens); the others are counted, not mixed in. All
times are medians over these steps, of one device each.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.categories import categorize
from sotad.analysis.stages import Stages, Step, find_stages
from sotad.simulate.errors import SimulateError
from sotad.trace.columns import I64, Trace
from sotad.trace.errors import TraceError
from sotad.trace.files import find
from sotad.trace.reader import read

GENERATING = ("decode", "verify", "draft")


@dataclass(frozen=True, slots=True)
class Measured:
    """One stage: ``steps`` of ``sequences`` and ``tokens`` each (0: not said), ``others`` of other shapes.

    Milliseconds: ``kernel_ms`` is the sum of kernels, ``busy_ms`` the time with at least one running, ``span_ms`` from
    the first to the end of the last, ``period_ms`` from one step's first kernel to the next step's (None where no two
    follow each other). ``categories`` are kernel milliseconds by category.
    """

    stage: str
    steps: int
    others: int
    devices: int
    sequences: int
    tokens: int
    kernel_ms: float
    busy_ms: float
    span_ms: float
    period_ms: float | None
    categories: dict[str, float]

    @property
    def step_ms(self) -> float:
        """What one more step costs: while generating the period, where it is known, as gaps between steps count too.

        Else the span: what passes between two prefills may be waiting for requests.
        """
        return self.period_ms if self.period_ms is not None and self.stage in GENERATING else self.span_ms

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {name: getattr(self, name) for name in (*self.__dataclass_fields__, "step_ms")}


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of one device, in nanoseconds."""

    step: Step
    device: tuple[Path, int]
    kernel: int
    busy: int
    categories: dict[str, int]
    period: int | None


def measure(path: Path) -> dict[str, Measured]:
    """Every stage that the traces at ``path`` (a file, or a folder of ranks) show.

    Raises:
        SimulateError: there is no trace, it cannot be read, or no step with kernels is in it.
    """
    found: dict[str, list[_Step]] = {}
    try:
        for file in find(path):
            trace = read(file.path)
            for each in _steps(trace, find_stages(trace, file.stage), file.path):
                found.setdefault(each.step.stage, []).append(each)
    except TraceError as error:
        raise SimulateError(str(error)) from None
    if not found:
        raise SimulateError(f"{path}: no annotated step with kernels in it: give --measured-ms instead of --trace")
    return {stage: _stage(stage, steps) for stage, steps in found.items()}


def _steps(trace: Trace, stages: Stages, path: Path) -> list[_Step]:
    kinds = [categorize(name) for name in trace.names]
    order = np.argsort(stages.kernel_step, kind="stable")
    bounds = np.searchsorted(stages.kernel_step[order], np.arange(len(stages.steps) + 1))
    found = []
    for number, step in enumerate(stages.steps):
        rows = order[bounds[number] : bounds[number + 1]]
        if len(rows):
            period = _period(stages.steps, number)
            found.append(_step(trace, step, (path, step.device), rows, kinds, period))
    return found


def _step(
    trace: Trace, step: Step, device: tuple[Path, int], rows: NDArray[np.intp], kinds: list[str], period: int | None
) -> _Step:
    begin, end = trace.kernels.begin[rows], trace.kernels.end[rows]
    taken = end - begin
    sums: dict[str, int] = {}
    for name, time in zip(trace.kernels.name[rows].tolist(), taken.tolist(), strict=True):
        sums[kinds[name]] = sums.get(kinds[name], 0) + time
    return _Step(step, device, int(taken.sum()), _union(begin, end), sums, period)


def _union(begin: I64, end: I64) -> int:
    """Length of the union of intervals, which are sorted by begin."""
    covered = np.maximum.accumulate(end)
    reached = np.concatenate([begin[:1], covered[:-1]])
    return int(np.maximum(0, end - np.maximum(begin, reached)).sum())


def _period(steps: list[Step], number: int) -> int | None:
    """To the beginning of the next step, if that is of the same stage and device (steps are in order per device)."""
    if number + 1 == len(steps):
        return None
    here, after = steps[number], steps[number + 1]
    same = (here.device, here.stage, here.sequences) == (after.device, after.stage, after.sequences)
    return after.begin - here.begin if same and after.begin > here.begin else None


def _stage(stage: str, steps: list[_Step]) -> Measured:
    shapes = Counter((each.step.sequences, each.step.tokens) for each in steps)
    shape = max(shapes, key=lambda key: (shapes[key], key))
    kept = [each for each in steps if (each.step.sequences, each.step.tokens) == shape]
    kinds = sorted({kind for each in kept for kind in each.categories})
    periods = [each.period for each in kept if each.period is not None]
    categories = {kind: _median_ms([each.categories.get(kind, 0) for each in kept]) for kind in kinds}
    return Measured(
        stage,
        len(kept),
        len(steps) - len(kept),
        len({each.device for each in kept}),
        *shape,
        kernel_ms=_median_ms([each.kernel for each in kept]),
        busy_ms=_median_ms([each.busy for each in kept]),
        span_ms=_median_ms([each.step.end - each.step.begin for each in kept]),
        period_ms=_median_ms(periods) if periods else None,
        categories=dict(sorted(categories.items(), key=lambda item: -item[1])),
    )


def _median_ms(values: list[int]) -> float:
    return float(np.median(values)) / 1e6
