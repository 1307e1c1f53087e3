"""When a device waits: gaps between kernels of its main stream, and the longest times when it ran nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.canonical import canonical
from sotad.analysis.cover import Cover
from sotad.trace.columns import I32, I64, Trace, Work

if TYPE_CHECKING:
    from sotad.analysis.stages import Stages

EDGES_US = (1, 2, 5, 10, 20, 50, 100, 1000)  # upper limits of the classes of gaps; the last class has none
_PAIRS = 5
_LONGEST = 10  # bubbles kept per device


@dataclass(slots=True)
class GapPair:
    """All gaps of a stage between the same two kernels."""

    after: str
    before: str
    count: int
    total_ns: int


@dataclass(slots=True)
class LaunchGaps:
    """Times between one kernel's end and the next one's begin on a main stream, within one step, ns.

    ``below_us`` counts them by upper limit (`EDGES_US`, then none), ``below_ns`` adds them up;
    ``between`` are the pairs of kernels that wait longest in all, at most `_PAIRS`.
    Gaps of the main stream while another stream works are gaps too.
    """

    count: int
    total_ns: int
    median_ns: int
    largest_ns: int
    below_us: list[int]
    below_ns: list[int]
    between: list[GapPair]


@dataclass(slots=True)
class Bubble:
    """A time when a device ran nothing.

    ``stage`` is None between steps; ``after`` and ``before`` name the work that ended and that began it.
    """

    device: int
    begin: int
    duration_ns: int
    stage: str | None
    after: str
    before: str


def main_streams(work: Work) -> set[int]:
    """The stream of each device with the most work on it."""
    if not len(work):
        return set()
    total = np.zeros(int(work.stream.max()) + 1, dtype=np.int64)
    known = work.stream >= 0
    np.add.at(total, work.stream[known], (work.end - work.begin)[known])
    device = np.full(len(total), -1)
    device[work.stream[known]] = work.device[known]
    best = {int(each): -1 for each in np.unique(device[device >= 0])}
    for stream in np.argsort(total, kind="stable").tolist():
        best[int(device[stream])] = stream
    return {stream for number, stream in best.items() if number >= 0}


@dataclass(slots=True)
class Waits:
    """The gaps of the main streams within steps: length in ns, stage, and the name ids of the kernels around it."""

    gap: I64
    stage: I32
    after: I32
    before: I32


def find_waits(work: Work, stage: I32, step: I32) -> Waits:
    """The gaps between kernels of one stage and step that follow one another on a main stream."""
    found = [_waits_on(work, np.flatnonzero(work.stream == each), stage, step) for each in sorted(main_streams(work))]
    nothing = (np.zeros(0, dtype=np.int64), *(np.zeros(0, dtype=np.int32) for _ in range(3)))
    return Waits(*(np.concatenate(column) for column in zip(nothing, *found, strict=True)))


def _waits_on(work: Work, rows: I64, stage: I32, step: I32) -> tuple[I64, I32, I32, I32]:
    rows = rows[np.argsort(work.begin[rows], kind="stable")].astype(np.int32)
    gap = work.begin[rows][1:] - np.maximum.accumulate(work.end[rows])[:-1]
    after, before = rows[:-1], rows[1:]
    kept = np.flatnonzero((gap > 0) & (stage[after] == stage[before]) & (step[after] == step[before]))
    after, before = after[kept], before[kept]
    return gap[kept], stage[after], work.name[after], work.name[before]


def launch_gaps(trace: Trace, waits: Waits, number: int) -> LaunchGaps:
    """The gaps of stage `number`."""
    rows = np.flatnonzero(waits.stage == number)
    gaps = waits.gap[rows]
    group = np.searchsorted(np.array(EDGES_US) * 1000, gaps, side="right")
    sums = np.zeros(len(EDGES_US) + 1, dtype=np.int64)
    np.add.at(sums, group, gaps)
    return LaunchGaps(
        count=len(gaps),
        total_ns=int(gaps.sum()),
        median_ns=int(np.median(gaps)) if len(gaps) else 0,
        largest_ns=int(gaps.max(initial=0)),
        below_us=np.bincount(group, minlength=len(EDGES_US) + 1).tolist(),
        below_ns=sums.tolist(),
        between=_pairs(trace, gaps, waits.after[rows], waits.before[rows]),
    )


def _pairs(trace: Trace, gaps: I64, after: I32, before: I32) -> list[GapPair]:
    count = len(trace.names)
    small = np.int32 if count < 1 << 15 else np.int64  # numpy sorts short numbers faster
    pair: NDArray[Any] = after.astype(small) * count
    pair += before
    keys, which = np.unique(pair, return_inverse=True)
    counts, total = np.bincount(which, minlength=len(keys)), np.zeros(len(keys), dtype=np.int64)
    np.add.at(total, which, gaps)
    longest = np.argsort(-total, kind="stable")[:_PAIRS].tolist()
    pairs = [(divmod(int(keys[place]), count), place) for place in longest]
    return [
        GapPair(canonical(trace.names[left]), canonical(trace.names[right]), int(counts[place]), int(total[place]))
        for (left, right), place in pairs
    ]


def find_bubbles(trace: Trace, stages: Stages, covers: dict[int, Cover]) -> list[Bubble]:
    """The longest times when a device ran nothing, longest first, at most `_LONGEST` of each device."""
    found = []
    for device, busy in covers.items():
        idle = busy.begin[1:] - busy.end[:-1]
        for index in np.argsort(-idle, kind="stable")[:_LONGEST].tolist():
            begin, end = int(busy.end[index]), int(busy.begin[index + 1])
            after, before = _name_at(trace, device, "end", begin), _name_at(trace, device, "begin", end)
            found.append(Bubble(device, begin, end - begin, _stage_of(stages, device, begin, end), after, before))
    return sorted(found, key=lambda bubble: (-bubble.duration_ns, bubble.device, bubble.begin))


def _name_at(trace: Trace, device: int, side: str, moment: int) -> str:
    for work in (trace.kernels, trace.copies):
        at = np.flatnonzero((getattr(work, side) == moment) & (work.device == device))
        if len(at):
            return canonical(trace.names[int(work.name[at[0]])])
    return ""


def _stage_of(stages: Stages, device: int, begin: int, end: int) -> str | None:
    """The stage of the step that holds the whole time."""
    inside = (step for step in stages.steps if step.device == device and step.begin <= begin and end <= step.end)
    return next((step.stage for step in inside), None)
