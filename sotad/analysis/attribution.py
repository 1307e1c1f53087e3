"""Where in the source each kernel comes from: the operator and the Python line that were active when it was launched.

A kernel is tied to its launch by correlation or a flow and to its operator by External id. The Python frames that were
open on the launching thread at that moment are its stack; the one that says most (`sotad.analysis.frames`) is its
location.
What ids and times do not prove stays `unresolved`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.frames import read_frame
from sotad.analysis.graphs import replaying
from sotad.analysis.joins import by_id, distinct, launches_of
from sotad.analysis.nesting import Nesting
from sotad.trace.columns import I32, I64, Trace, Work

UNRESOLVED = "unresolved"
STACK = 4  # frames of a stack that are shown, innermost last


class Site(NamedTuple):
    """One place in the source.

    ``location`` is `path:line function` or `unresolved`; ``frames`` the innermost frames around it, innermost last;
    ``op`` the operator or, without one, the launch. ``replay``: the place replays a CUDA graph, so it tells where
    the graph was started, not where its kernels come from.
    """

    location: str
    frames: tuple[str, ...] = ()
    op: str = ""
    replay: bool = False


@dataclass(slots=True)
class Attribution:
    """``kernel_site`` and ``copy_site`` index ``sites``, whose first is wholly unknown; ``kernel_op`` indexes
    `Trace.names` (-1: no operator known)."""

    sites: list[Site]
    kernel_site: I32
    copy_site: I32
    kernel_op: I32

    def located(self) -> NDArray[np.bool_]:
        """Per site, whether it names a line of source that is where its kernels come from."""
        return np.array([site.location != UNRESOLVED and not site.replay for site in self.sites])


@dataclass(slots=True)
class _Moments:
    """When and where on the CPU each kernel or copy was asked for. `thread` is -1 where that is not known."""

    time: I64
    thread: I64
    op: I64  # row of trace.ops, -1: none
    launch: I64  # row of trace.launches, -1: none


def attribute(trace: Trace) -> Attribution:
    """The source of every kernel and copy. O(n log n) in events, whatever the depth of the stacks."""
    if not len(trace.ops) and not len(trace.launches):
        kernels, copies = len(trace.kernels), len(trace.copies)
        nowhere: I32 = np.zeros(kernels, np.int32)
        return Attribution([Site(UNRESOLVED)], nowhere, np.zeros(copies, np.int32), np.full(kernels, -1, np.int32))
    ops = Nesting(trace.ops.begin, trace.ops.end, trace.ops.thread)
    stacks = _Stacks(trace)
    asked = [_moments(work, trace, ops) for work in (trace.kernels, trace.copies)]
    op = np.concatenate([each.op for each in asked])
    launch = _name(trace.launches.name, np.concatenate([each.launch for each in asked]))
    replays = np.append(replaying(trace), False)[launch]
    text = np.where((op >= 0) & ~replays, _name(trace.ops.name, op), launch)
    time, thread = (np.concatenate([getattr(each, name) for each in asked]) for name in ("time", "thread"))
    stack = stacks.at(time, thread)
    none = np.full((STACK + 3, 1), -1)
    none[-1] = 0
    columns = np.concatenate([none, np.vstack([stack, text, replays])], axis=1)
    first, place = distinct(columns)
    sites = [_site(trace, stacks, columns[:, row].tolist()) for row in first]
    site: I32 = place[1:].astype(np.int32)
    kernels = len(trace.kernels)
    operator: I32 = _name(trace.ops.name, op)[:kernels].astype(np.int32)
    return Attribution(sites, site[:kernels], site[kernels:], operator)


def _site(trace: Trace, stacks: _Stacks, column: list[int]) -> Site:
    *stack, chosen, op, replay = column
    location = stacks.known[chosen].location if chosen >= 0 else UNRESOLVED
    shown = tuple(stacks.known[name].location for name in stack if name >= 0) if chosen >= 0 else ()
    return Site(location, shown, trace.names[op] if op >= 0 else "", bool(replay))


class _Stacks:
    """The Python stacks of a trace. `known` reads each name of a frame once."""

    def __init__(self, trace: Trace) -> None:
        frames = trace.frames
        self.known = {int(name): read_frame(trace.names[name]) for name in np.unique(frames.name)}
        table = np.zeros(len(trace.names) + 1, np.int64)
        table[list(self.known)] = [frame.rank for frame in self.known.values()]
        rank = table[frames.name]
        self._nesting = Nesting(frames.begin, frames.end, frames.thread)
        best = self._nesting.inherit(rank)
        self._shown = np.full((STACK + 1, len(frames) + 1), -1, np.int32)  # the last column is of no frame
        for level in self._nesting.levels():
            around = self._shown[:STACK, self._nesting.parent[level]]
            own = np.vstack([around[1:], frames.name[level]])
            self._shown[:STACK, level] = np.where(rank[level] > 0, own, around)
        self._shown[STACK, :-1] = np.where(rank[best] > 0, frames.name[best], -1)

    def at(self, time: I64, thread: I64) -> I32:
        """Columns of `STACK` names of frames, innermost last, and the name of the frame that says most."""
        return self._shown[:, self._nesting.innermost(time, thread)]


def _name(names: I32 | I64, rows: I64) -> I64:
    return np.where(rows >= 0, names[rows] if len(names) else -1, -1).astype(np.int64)


def _moments(work: Work, trace: Trace, ops: Nesting) -> _Moments:
    """By its launch, which also says the operator around it; without one, by the operator with its External id."""
    launch = launches_of(work, trace)
    launched = launch >= 0
    time = np.where(launched, _name(trace.launches.begin, launch), -1)
    thread = np.where(launched, _name(trace.launches.thread, launch), -1)
    around = ops.innermost(time, thread)
    named = by_id(work.external, trace.ops.external)
    named = np.where(_denied(work, trace, ~launched & (named >= 0), named), -1, named)
    inside = launched & (named >= 0)
    if inside.any():
        inside &= (trace.ops.begin[named] <= time) & (time < trace.ops.end[named]) & (trace.ops.thread[named] == thread)
    # an id that names an operator which was not open at the launch contradicts it: neither is believed
    op = np.where(inside | ~launched, named, np.where(named >= 0, -1, around))
    alone = ~launched & (named >= 0)
    time = np.where(alone, _name(trace.ops.begin, named), time)
    thread = np.where(alone, _name(trace.ops.thread, named), thread)
    return _Moments(time, thread, op, launch)


def _denied(work: Work, trace: Trace, asked: NDArray[np.bool_], op: I64) -> NDArray[np.bool_]:
    """Of the asked, those whose correlation is that of several launches, none of which began inside the operator."""
    launches, denied = trace.launches, np.zeros(len(work), np.bool_)
    rows = np.flatnonzero(asked & (work.correlation > 0) & np.isin(work.correlation, launches.correlation))
    if not len(rows):
        return denied
    begin, end = trace.ops.begin[op[rows]], trace.ops.end[op[rows]]
    times, time = np.unique(np.concatenate([launches.begin, begin, end]), return_inverse=True)
    _, group = np.unique(np.concatenate([launches.correlation, work.correlation[rows]]), return_inverse=True)
    group = group * len(trace.threads) + np.concatenate([launches.thread, trace.ops.thread[op[rows]]])
    held, first, last = np.split(time, [len(launches), len(launches) + len(rows)])
    own = group[len(launches) :] * len(times)
    keys = np.sort(group[: len(launches)] * len(times) + held)
    denied[rows] = np.searchsorted(keys, own + first) == np.searchsorted(keys, own + last)
    return denied
