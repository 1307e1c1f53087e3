"""The steps of a capture, and what the time of each is spent on.

A step's annotation does not hold all of its work: engines sample, copy and prepare inputs before or after it. Where
steps that generate follow each other, a step goes on until the next one's annotation, with the pause before that, for
its sequences wait for it. Elsewhere the server may have waited for a request: there the longest pause between two
annotations is where one step ends and the next begins, and it belongs to neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.canonical import canonical
from sotad.analysis.categories import categorize
from sotad.analysis.device_names import on_devices
from sotad.analysis.noise import F64
from sotad.analysis.pairing import BETWEEN, IDLE, INSIDE, KERNELS, Part, Side, Steps, joined
from sotad.analysis.rows import row_id
from sotad.trace.columns import I32, I64, Trace

if TYPE_CHECKING:
    from sotad.analysis.overlap import Overlap
    from sotad.analysis.stages import Stages

COPY = "copy"
DECODE = "decode"  # one token a sequence, also where the capture tells only the sequences

ONE_BY_ONE = ("prefill", "encode", "outside", "all")  # after such a step nothing may be waiting
TRAILING = 0.1  # of the last step's length: a longer pause ends it


@dataclass(slots=True)
class Work:
    """All work of one device in order of begin: kernels and copies. ``part`` indexes the parts, ``stage`` the tables'
    stages, and ``shared`` is the busy time that is its own, in ns."""

    begin: I64
    end: I64
    part: I32
    stage: I32
    shared: I64

    def take(self, kept: NDArray[Any] | slice) -> Work:
        """Only what ``kept`` selects, in its order."""
        return Work(*(getattr(self, column)[kept] for column in self.__slots__))


@dataclass(slots=True)
class Marked:
    """The annotated steps of one device in order of begin."""

    begin: I64
    end: I64
    stage: list[str]
    sequences: I64
    tokens: I64


@dataclass(slots=True)
class Cycles:
    """When each step begins, when its last work ends, and when the next one begins (ns; -1 for the last).

    ``closed`` are the steps whose pause until the next one is theirs.
    """

    begin: I64
    end: I64
    next: I64
    closed: NDArray[np.bool_]


def find_cycles(work: Work, marked: Marked) -> Cycles:
    """The steps with the work around their annotations; ``marked`` has at least one step and each has work."""
    reach = np.maximum.accumulate(work.end)
    pause = work.begin - np.concatenate([work.begin[:1], reach[:-1]])
    waits = np.array([stage not in ONE_BY_ONE for stage in marked.stage])
    closed = waits & np.append(waits[1:], False)
    begin, last = marked.begin.copy(), np.zeros(len(marked.begin), dtype=np.int64)
    for i in range(len(begin) - 1):
        first, after = np.searchsorted(work.begin, [max(marked.end[i], begin[i] + 1), marked.begin[i + 1]])
        among = pause[first : after + 1] if not closed[i] else pause[:0]
        place = int(first + among.argmax()) if len(among) else int(after)
        begin[i + 1] = min(marked.begin[i + 1], work.begin[place]) if place < len(work.begin) else marked.begin[i + 1]
        last[i] = place
    last[-1] = _last_work(pause, work, marked)
    end = np.maximum(reach[np.maximum(last - 1, 0)], begin)
    following = np.append(begin[1:], -1)
    end[:-1] = np.minimum(end[:-1], following[:-1])
    return Cycles(begin, end, following, closed)


def _last_work(pause: I64, work: Work, marked: Marked) -> int:
    """The end of the work that follows the last annotation closely."""
    first = int(np.searchsorted(work.begin, marked.end[-1]))
    far = np.flatnonzero(pause[first:] > TRAILING * (marked.end[-1] - marked.begin[-1]))
    return first + int(far[0]) if len(far) else len(pause)


def kernel_side(name: str, trace: Trace, stages: Stages, overlap: Overlap) -> Side:
    """The steps of a trace with kernels, over all of its devices."""
    keys, part_of = _keys(trace)
    found: dict[str, list[Steps]] = {}
    device = np.concatenate([trace.kernels.device, trace.copies.device])
    work = _work(trace, stages, overlap, part_of, len(trace.names))
    for number in np.unique(device):
        rows = np.flatnonzero(device == number)
        own = work.take(rows[np.argsort(work.begin[rows], kind="stable")])
        marked = _marked(stages, int(number), own)
        if len(marked.begin):
            for stage, steps in _by_stage(own, marked, keys, stages.names):
                found.setdefault(stage, []).append(steps)
    return Side(name, KERNELS, {stage: joined(steps) for stage, steps in found.items()})


def _keys(trace: Trace) -> tuple[list[tuple[str, str]], I32]:
    """The different (category, name), and which of them every name is as a kernel, then as a copy."""
    names = on_devices(trace, canonical)
    keys = [*zip(on_devices(trace, categorize), names, strict=True), *((COPY, name) for name in names)]
    different = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return list(different), np.array([different[key] for key in keys], dtype=np.int32)


def _work(trace: Trace, stages: Stages, overlap: Overlap, part_of: I32, copied: int) -> Work:
    kernels, copies = trace.kernels, trace.copies
    return Work(
        np.concatenate([kernels.begin, copies.begin]),
        np.concatenate([kernels.end, copies.end]),
        np.concatenate([part_of[kernels.name], part_of[copied:][copies.name]]),
        np.concatenate([stages.kernel, stages.copy]),
        np.concatenate([overlap.kernels.attributed, overlap.copies.attributed]),
    )


def _marked(stages: Stages, device: int, work: Work) -> Marked:
    """The steps of a device that hold the beginning of any work."""
    steps = sorted((step for step in stages.steps if step.device == device), key=lambda step: (step.begin, step.end))
    held = [np.searchsorted(work.begin, step.end) > np.searchsorted(work.begin, step.begin) for step in steps]
    steps = [step for step, any_work in zip(steps, held, strict=True) if any_work]
    columns = ([getattr(step, name) for step in steps] for name in ("begin", "end", "sequences", "tokens"))
    begin, end, sequences, tokens = (np.array(column, dtype=np.int64) for column in columns)
    return Marked(begin, end, [step.stage for step in steps], sequences, tokens)


def _by_stage(
    work: Work, marked: Marked, keys: list[tuple[str, str]], names: Sequence[str]
) -> Iterator[tuple[str, Steps]]:
    cycles = find_cycles(work, marked)
    at = np.searchsorted(cycles.begin, work.begin, side="right") - 1
    spent, counts = _spent(work, cycles, at, len(keys))
    idle = cycles.end - cycles.begin - spent.sum(axis=1)
    between = np.where(cycles.closed, cycles.next - cycles.end, 0)
    stage_of = np.array(marked.stage)
    one_each = np.where(marked.tokens, marked.tokens, marked.sequences)
    for stage in dict.fromkeys(marked.stage):
        rows = (stage_of == stage) & counts.any(axis=1)
        if not rows.any():
            continue
        used = np.flatnonzero(counts[rows].any(axis=0) | spent[rows].any(axis=0))
        parts = _parts(stage, work, rows[np.maximum(at, 0)] & (at >= 0), used, keys, names)
        columns = [spent[rows][:, used], idle[rows][:, None], between[rows][:, None]]
        times = np.concatenate(columns, axis=1) / 1e6
        pauses = np.ones((int(rows.sum()), 2))
        launched = np.concatenate([counts[rows][:, used].astype(np.float64), pauses], axis=1)
        parts += [Part(row_id(stage, None, pause), pause, IDLE) for pause in (INSIDE, BETWEEN)]
        tokens = (one_each if stage == DECODE else marked.tokens)[rows]
        yield stage, Steps(parts, times, launched, marked.sequences[rows], tokens, cycles.closed[rows])


def _parts(
    stage: str, work: Work, own: NDArray[np.bool_], used: I64, keys: list[tuple[str, str]], names: Sequence[str]
) -> list[Part]:
    """The parts with the row ids of the tables: those of the table's stage in which most of the part's time is."""
    weight = np.zeros(len(keys) * len(names), dtype=np.int64)
    np.add.at(weight, work.part[own] * len(names) + work.stage[own], work.end[own] - work.begin[own] + 1)
    most = weight.reshape(len(keys), len(names)).argmax(axis=1)
    return [Part(row_id(names[most[i]], None, keys[i][1]), keys[i][1], keys[i][0]) for i in used]


def _spent(work: Work, cycles: Cycles, at: I64, parts: int) -> tuple[F64, I64]:
    """ns and counts [steps, parts] of the work in each step; work that runs on into the next step is split."""
    steps = len(cycles.begin)
    edges = np.append(cycles.begin, max(cycles.end[-1], cycles.begin[-1] + 1))
    spent, counts = np.zeros(steps * parts), np.zeros(steps * parts, dtype=np.int64)
    inside = slice(*np.searchsorted(work.begin, [edges[0], edges[-1]]))
    begin, end, shared, at = (column[inside] for column in (work.begin, work.end, work.shared, at))
    part = work.part[inside]
    np.add.at(counts, at * parts + part, 1)
    if not (end > edges[at + 1]).any():
        np.add.at(spent, at * parts + part, shared)
        return spent.reshape(steps, parts), counts.reshape(steps, parts)
    until = _until(work)
    while len(at):
        cut = np.minimum(end, edges[at + 1])
        np.add.at(spent, at * parts + part, until(cut) - until(begin))
        more = (cut < end) & (at + 1 < steps)
        begin, end, part, at = cut[more], end[more], part[more], at[more] + 1
    return spent.reshape(steps, parts), counts.reshape(steps, parts)


def _until(work: Work) -> Callable[[I64], F64]:
    """The busy time until a moment, in ns, that work running all along has as its own: what several share is split."""
    moments = np.concatenate([work.begin, work.end])
    order = np.argsort(moments, kind="stable")
    running = np.cumsum(np.where(order < len(work.begin), 1, -1))
    moments = moments[order]
    total = np.concatenate([[0.0], np.cumsum(np.diff(moments) / np.maximum(running[:-1], 1))])
    return lambda moment: np.interp(moment, moments, total)
