"""Which interval of a thread is open at a moment, and which interval encloses which, without loops over events."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotad.trace.columns import I64

Lane = NDArray[Any]  # whole numbers of any width
ROUNDS = 16  # of undoing crossings; what still crosses then is answered only where an interval does hold the moment


class Nesting:
    """The half-open intervals [begin, end) of many lanes (threads), nested in each other within a lane.

    ``parent`` is the index of the innermost interval around each interval and ``depth`` how many there are around it
    (-1 and 0 where there is none). Of two that cross, as rounding makes them, the overlap goes to one of them: the
    later one ends with the earlier if it lies mostly in it, else the earlier one ends where the later begins.
    An interval without length encloses nothing. O(n log n), whatever the depth.
    """

    def __init__(self, begin: I64, end: I64, lane: Lane) -> None:
        self.parent = np.full(len(begin), -1, np.int64)
        self.depth = np.zeros(len(begin), np.int64)
        self._lanes: dict[int, tuple[I64, I64]] = {}  # boundary times, and the interval that is open after each
        for value, members in split(lane):
            sized = members[end[members] > begin[members]]
            if len(sized):
                self._lanes[value] = self._nest(begin, end, sized)
        empty = np.flatnonzero(end <= begin)
        self.parent[empty] = self.innermost(begin[empty], lane[empty])
        self.depth[empty] = np.where(self.parent[empty] >= 0, self.depth[self.parent[empty]] + 1, 0)

    def _nest(self, begin: I64, end: I64, members: I64) -> tuple[I64, I64]:
        members = members[np.lexsort((-end[members], begin[members]))]
        begin, end = begin[members], end[members]
        for _ in range(ROUNDS):
            times, opened, parent, depth = _sweep(begin, end)
            crossing = np.flatnonzero((parent >= 0) & (end > end[parent]) & (begin < end[parent]))
            if not len(crossing):
                break
            end = _uncross(begin, end, crossing, parent[crossing])
        self.parent[members] = np.where(parent >= 0, members[parent], -1)
        self.depth[members] = depth
        proven = (opened >= 0) & (begin[opened] <= times) & (times < end[opened])
        return times, np.where(proven, members[opened], -1)

    def innermost(self, moments: I64, lane: Lane) -> I64:
        """The index of the innermost interval of its lane that holds each moment; -1 where none does."""
        found = np.full(len(moments), -1, np.int64)
        for value, asked in split(lane):
            if value in self._lanes:
                times, opened = self._lanes[value]
                place = np.searchsorted(times, moments[asked], side="right") - 1
                found[asked] = np.where(place >= 0, opened[place], -1)
        return found

    def inherit(self, rank: I64) -> I64:
        """For every interval the highest ranked of itself and those around it, the innermost of equal ones."""
        best = np.arange(len(self.parent))
        for level in self.levels():
            around = np.where(self.parent[level] >= 0, best[self.parent[level]], level)
            best[level] = np.where(rank[level] >= rank[around], level, around)
        return best

    def levels(self) -> list[I64]:
        """The intervals of each depth, outermost first."""
        order = np.argsort(self.depth, kind="stable")
        edges = np.searchsorted(self.depth[order], np.arange(1, self.depth.max(initial=0) + 1))
        return np.split(order, edges)


def split(lane: Lane) -> list[tuple[int, I64]]:
    """Each lane and the indices of its members."""
    if not len(lane):
        return []
    order = np.argsort(lane, kind="stable")
    edges = np.flatnonzero(np.diff(lane[order])) + 1
    return [(int(lane[group[0]]), group) for group in np.split(order, edges)]


def _sweep(begin: I64, end: I64) -> tuple[I64, I64, I64, I64]:
    """Boundary times, the interval open after each (-1: none), and parent and depth of every interval.

    Intervals come sorted by begin, longer first. What is open at depth d is the last one begun at that depth.
    """
    count = len(begin)
    times = np.concatenate([end, begin])
    order = np.argsort(times, kind="stable")  # at one moment ends come before begins, and outer begins before inner
    starts, times, which = order >= count, times[order], order % count
    depth = np.cumsum(np.where(starts, 1, -1))
    small = np.int16 if depth.max(initial=0) < np.iinfo(np.int16).max else np.int64
    grouped = np.argsort(depth.astype(small), kind="stable")
    last = np.maximum.accumulate(np.where(starts[grouped], np.arange(2 * count), 0))
    opened = np.empty(2 * count, np.int64)
    opened[grouped] = np.where(depth[grouped] > 0, which[grouped[last]], -1)
    parent, level = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    around = np.concatenate([[-1], opened[:-1]])
    parent[which[starts]] = around[starts]
    level[which[starts]] = depth[starts] - 1
    return times, opened, parent, level


def _uncross(begin: I64, end: I64, later: I64, earlier: I64) -> I64:
    """Ends without the overlap of these pairs."""
    limit, changed = end[earlier], end.copy()
    mostly_inside = limit - begin[later] >= end[later] - limit
    changed[later[mostly_inside]] = limit[mostly_inside]
    np.minimum.at(changed, earlier[~mostly_inside], begin[later[~mostly_inside]])
    return changed
