"""What ran at the same time on a device: for every kernel and copy how much of it other streams hid.

Definitions, all in whole nanoseconds, every device on its own:

* A kernel or copy is hidden while work of another stream of its device runs, and exclusive otherwise. Work of one
  stream may overlap in a trace (rounding, programmatic dependent launch): that alone hides nothing.
* A device is busy while anything runs on it; each instant of that has one stream active, or several.
* Attributed time is the busy time shared equally among the work running at an instant, so that it adds up to the busy
  time exactly (what does not divide goes to the work that ends last, less than a nanosecond per piece of work and
  instant at which anything begins or ends).
* Communication is exposed while it runs and no other kernel does. Copies do not cover it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.categories import categorize
from sotad.analysis.cover import Cover, cover
from sotad.analysis.device_names import on_devices
from sotad.analysis.gaps import Bubble, LaunchGaps, Waits, find_bubbles, find_waits, launch_gaps
from sotad.trace.columns import I64, Trace, Work

if TYPE_CHECKING:
    from sotad.analysis.stages import Stages

Mask = NDArray[np.bool_]

COMPUTE = frozenset({"gemm", "attention", "linear_attn", "moe", "conv"})
_BLOCK = 1 << 17  # pieces of work swept at once: what the arrays of a block need is a few megabytes


@dataclass(slots=True)
class Shares:
    """Of each kernel or copy, ns. ``attributed_multi`` is the part of ``attributed`` while several streams ran."""

    duration: I64
    hidden: I64
    hidden_by_compute: I64
    attributed: I64
    attributed_multi: I64

    @property
    def exclusive(self) -> I64:
        """What nothing hides."""
        return self.duration - self.hidden


@dataclass(slots=True)
class DeviceTime:
    """One device over the whole trace; ``idle_ns`` is between its first and last work, a part of it in steps."""

    device: int
    busy_ns: int
    single_stream_ns: int
    multi_stream_ns: int
    idle_ns: int
    max_streams: int
    idle_in_steps_ns: int = 0


@dataclass(slots=True)
class StageTime:
    """One stage on all devices: its part of their busy time, and what its steps hold.

    ``busy_ns`` is attributed time: over all stages it adds up to the busy time of the devices. ``window_ns`` is the
    time that the steps cover, ``idle_ns`` the part of it when the device ran nothing at all.
    """

    busy_ns: int
    single_stream_ns: int
    multi_stream_ns: int
    steps: int
    window_ns: int
    idle_ns: int
    exposed_communication_ns: int
    gaps: LaunchGaps


@dataclass(slots=True)
class StepTimes:
    """Of each step of `Stages.steps`, on its device, ns; a step on no known device has 0 everywhere."""

    busy: I64
    idle: I64
    exposed_communication: I64


@dataclass(slots=True)
class Overlap:
    """What ran at the same time in one trace; ``busy`` is when each device ran anything."""

    kernels: Shares
    copies: Shares
    devices: list[DeviceTime]
    stages: dict[str, StageTime]
    steps: StepTimes
    bubbles: list[Bubble]
    busy: dict[int, Cover]


def sweep(trace: Trace, stages: Stages, category: Callable[[str], str] = categorize) -> Overlap:
    """How the work of the trace overlaps; `category` tells communication and compute by kernel name.

    Time and memory grow with n log n in the number of kernels and copies.
    """
    kinds = np.array(on_devices(trace, category), dtype=object)
    compute = np.isin(kinds, list(COMPUTE))
    talks = (kinds == "communication")[trace.kernels.name]
    kernels, copies = _no_shares(trace.kernels), _no_shares(trace.copies)
    devices = []
    covers: dict[int, Cover] = {}
    steps = _no_steps(stages)
    for device in _devices(trace):
        own, moved = np.flatnonzero(trace.kernels.device == device), np.flatnonzero(trace.copies.device == device)
        devices.append(_sweep_device(device, trace, own, moved, compute, kernels, copies))
        covers[device] = _busy(trace, own, moved)
        _add_steps(steps, stages, device, covers[device])
        devices[-1].idle_in_steps_ns = _idle_in_steps(stages, device, covers[device])
        if talks[own].any():
            _add_exposed(steps, stages, device, trace.kernels, own, talks)
    waits = find_waits(trace.kernels, stages.kernel, stages.kernel_step)
    by_stage = {name: _stage_time(name, trace, stages, kernels, copies, covers, steps, waits) for name in stages.names}
    return Overlap(kernels, copies, devices, by_stage, steps, find_bubbles(trace, stages, covers), covers)


def _no_shares(work: Work) -> Shares:
    return Shares(work.end - work.begin, *(np.zeros(len(work), dtype=np.int64) for _ in range(4)))


def _devices(trace: Trace) -> list[int]:
    return sorted({*np.unique(trace.kernels.device).tolist(), *np.unique(trace.copies.device).tolist()})


def _busy(trace: Trace, own: I64, moved: I64) -> Cover:
    """The time of any work of a device."""
    begin = np.concatenate((trace.kernels.begin[own], trace.copies.begin[moved]))
    return cover(begin, np.concatenate((trace.kernels.end[own], trace.copies.end[moved])))


def _sweep_device(
    device: int, trace: Trace, own: I64, moved: I64, compute: Mask, kernels: Shares, copies: Shares
) -> DeviceTime:
    begin = np.concatenate((trace.kernels.begin[own], trace.copies.begin[moved]))
    end = np.concatenate((trace.kernels.end[own], trace.copies.end[moved]))
    stream = np.concatenate((trace.kernels.stream[own], trace.copies.stream[moved]))
    computes = np.concatenate((compute[trace.kernels.name[own]], np.zeros(len(moved), dtype=np.bool_)))
    order = np.argsort(begin, kind="stable")
    single = multi = widest = 0
    for part in _blocks(begin, end, order):
        block = _Block(begin[part], end[part], stream[part].astype(np.int64), computes[part])
        single, multi = single + block.single_stream_ns, multi + block.multi_stream_ns
        widest = max(widest, block.max_streams)
        found = block.shares()
        is_kernel = part < len(own)
        _store(kernels, own[part[is_kernel]], found, is_kernel)
        _store(copies, moved[part[~is_kernel] - len(own)], found, ~is_kernel)
    span = int(end.max() - begin.min()) if len(begin) else 0
    return DeviceTime(device, single + multi, single, multi, span - single - multi, widest)


def _blocks(begin: I64, end: I64, order: I64) -> Iterator[I64]:
    """The work in order of begin, cut where nothing runs over the cut."""
    cuts = np.flatnonzero(begin[order[1:]] >= np.maximum.accumulate(end[order])[:-1]) + 1
    at = 0
    while len(order) - at > _BLOCK:
        found = np.searchsorted(cuts, at + _BLOCK)
        if found == len(cuts):
            break
        yield order[at : cuts[found]]
        at = int(cuts[found])
    yield order[at:]


def _store(into: Shares, rows: I64, found: Shares, chosen: Mask) -> None:
    into.hidden[rows] = found.hidden[chosen]
    into.hidden_by_compute[rows] = found.hidden_by_compute[chosen]
    into.attributed[rows] = found.attributed[chosen]
    into.attributed_multi[rows] = found.attributed_multi[chosen]


class _Block:
    """Work in order of begin, and the moments at which any of it begins or ends.

    A moment's rank is its place in time. ``length[r]`` is the time from moment r to the next; a prefix sum over it,
    read at the ranks of a piece of work, is the time that holds while that work runs.
    """

    def __init__(self, begin: I64, end: I64, stream: I64, computes: Mask) -> None:
        count = len(begin)
        self.stream, self.computes, self.duration = stream, computes, end - begin
        moments = np.concatenate((end, begin))  # ends first: what ends and what begins at an instant do not overlap
        self.order = np.argsort(moments, kind="stable")
        rank = np.empty(2 * count, dtype=np.int64)
        rank[self.order] = np.arange(2 * count)
        self.ended, self.began = rank[:count], rank[count:]
        moments = moments[self.order]
        self.length = np.diff(moments, append=moments[-1:])
        self.streams = self._streams_active(np.ones(count, dtype=np.bool_))[0]
        running = self.length > 0
        self.single_stream_ns = int(self.length[self.streams == 1].sum())
        self.multi_stream_ns = int(self.length[self.streams > 1].sum())
        self.max_streams = int(self.streams[running].max(initial=0))

    def shares(self) -> Shares:
        """What each piece of work shares with others."""
        several = self.streams > 1
        hidden = self._during(several)
        by_compute = self._hidden_by_compute() if self.multi_stream_ns else np.zeros_like(hidden)
        attributed = self._attributed(self.streams > 0)
        together = self._attributed(several) if self.multi_stream_ns else np.zeros_like(hidden)
        return Shares(self.duration, hidden, by_compute, attributed, together)

    def _prefix(self, length: I64) -> I64:
        return np.concatenate(([0], np.cumsum(length)))

    def _during(self, condition: Mask) -> I64:
        """The time, of each piece of work, when the condition holds."""
        before = self._prefix(np.where(condition, self.length, 0))
        return before[self.ended] - before[self.began]

    def _streams_active(self, chosen: Mask) -> tuple[I64, I64]:
        """From each moment on: how many streams run chosen work, and which one it is if that is one."""
        span = 2 * len(self.stream)
        rows = np.flatnonzero(chosen)
        small = np.int16 if self.stream.max(initial=0) < 1 << 15 else np.int64  # numpy sorts short numbers faster
        rows = rows[np.argsort(self.stream[rows].astype(small), kind="stable")]
        stream = self.stream[rows]
        reach = np.maximum.accumulate(self.ended[rows] + stream * span)
        opens = np.concatenate(([True], self.began[rows][1:] + stream[1:] * span > reach[:-1]))[: len(rows)]
        closes = np.concatenate((opens[1:], [True]))[: len(rows)]
        change, owner = np.zeros(span, dtype=np.int64), np.zeros(span, dtype=np.int64)
        begun, done = self.began[rows][opens], (reach - stream * span)[closes]
        change[begun], owner[begun] = 1, stream[opens]
        change[done], owner[done] = -1, -stream[closes]
        return np.cumsum(change), np.cumsum(owner)

    def _hidden_by_compute(self) -> I64:
        """The time when compute runs on another stream: when any runs, less when only its own stream's does."""
        active, owner = self._streams_active(self.computes)
        found = self._during(active > 0)
        sole = np.flatnonzero((active == 1) & (self.length > 0))
        span = len(self.length) + 1
        key = owner[sole] * span + sole
        order = np.argsort(key, kind="stable")
        key, before = key[order], self._prefix(self.length[sole][order])
        first, last = (np.searchsorted(key, self.stream * span + rank) for rank in (self.began, self.ended))
        return found - np.where(self.duration > 0, before[last] - before[first], 0)

    def _attributed(self, condition: Mask) -> I64:
        """The time when the condition holds, shared equally among the work that runs."""
        begins = self.order >= len(self.stream)
        running = np.maximum(np.cumsum(np.where(begins, 1, -1)), 1)
        length = np.where(condition, self.length, 0)
        each = length // running
        before = self._prefix(each)
        found = before[self.ended] - before[self.began]
        left = length - each * running
        where = np.flatnonzero(left)
        latest = np.maximum.accumulate(self.ended)[np.cumsum(begins)[where] - 1]  # rank of the end that is last
        np.add.at(found, self.order[latest], left[where])
        return found


def _no_steps(stages: Stages) -> StepTimes:
    return StepTimes(*(np.zeros(len(stages.steps), dtype=np.int64) for _ in range(3)))


def _windows(stages: Stages, device: int, stage: str | None = None) -> tuple[list[int], I64, I64]:
    """Indices, begins and ends of the steps of a device, of one stage or of all."""
    chosen = [(i, s) for i, s in enumerate(stages.steps) if s.device == device and stage in (None, s.stage)]
    begin, end = (np.array([getattr(step, key) for _, step in chosen], dtype=np.int64) for key in ("begin", "end"))
    return [index for index, _ in chosen], begin, end


def _add_steps(found: StepTimes, stages: Stages, device: int, busy: Cover) -> None:
    rows, begin, end = _windows(stages, device)
    found.busy[rows] = busy.within(begin, end)
    found.idle[rows] = end - begin - found.busy[rows]


def _idle_in_steps(stages: Stages, device: int, busy: Cover) -> int:
    """Of the device's idle time the part inside steps, those that run at the same time counted once."""
    _, begin, end = _windows(stages, device)
    if not len(begin) or not len(busy.begin):
        return 0
    first, last = busy.begin[0], busy.end[-1]
    steps = cover(np.clip(begin, first, last), np.clip(end, first, last))
    return steps.total - int(busy.within(steps.begin, steps.end).sum())


def _add_exposed(found: StepTimes, stages: Stages, device: int, kernels: Work, own: I64, talks: Mask) -> None:
    """The time of kernels in each step, less that of kernels that are not communication."""
    rows, begin, end = _windows(stages, device)
    found.exposed_communication[rows] = cover(kernels.begin[own], kernels.end[own]).within(begin, end)
    works = own[~talks[own]]
    found.exposed_communication[rows] -= cover(kernels.begin[works], kernels.end[works]).within(begin, end)


def _stage_time(
    name: str,
    trace: Trace,
    stages: Stages,
    kernels: Shares,
    copies: Shares,
    covers: dict[int, Cover],
    steps: StepTimes,
    waits: Waits,
) -> StageTime:
    number = stages.names.index(name)
    own, moved = stages.kernel == number, stages.copy == number
    busy = int(kernels.attributed[own].sum() + copies.attributed[moved].sum())
    multi = int(kernels.attributed_multi[own].sum() + copies.attributed_multi[moved].sum())
    members: list[int] = []
    window = idle = 0
    for device, everything in covers.items():
        rows, begin, end = _windows(stages, device, name)
        members += rows
        windows = cover(begin, end)
        window += windows.total
        idle += windows.total - int(everything.within(windows.begin, windows.end).sum())
    exposed = int(steps.exposed_communication[members].sum())
    gaps = launch_gaps(trace, waits, number)
    return StageTime(busy, busy - multi, multi, len(members), window, idle, exposed, gaps)
