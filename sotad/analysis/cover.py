"""The time that a set of intervals covers, and how much of it lies inside any window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sotad.trace.columns import I64


@dataclass(slots=True)
class Cover:
    """Disjoint intervals in order, ns; ``before[i]`` is the time covered by the first i of them."""

    begin: I64
    end: I64
    before: I64

    @property
    def total(self) -> int:
        """All the time covered, ns."""
        return int(self.before[-1])

    def until(self, moment: I64) -> I64:
        """The time covered before each moment, ns."""
        if not len(self.begin):
            return np.zeros(len(moment), dtype=np.int64)
        last = np.searchsorted(self.begin, moment, side="right") - 1
        inside = np.minimum(moment, self.end[last]) - self.begin[last]
        return np.where(last < 0, 0, self.before[last] + inside)

    def within(self, begin: I64, end: I64) -> I64:
        """The time covered inside each window, ns."""
        return self.until(end) - self.until(begin)


def cover(begin: I64, end: I64) -> Cover:
    """The union of intervals that may overlap, in any order; those that touch become one."""
    if not len(begin):
        empty = np.zeros(0, dtype=np.int64)
        return Cover(empty, empty, np.zeros(1, dtype=np.int64))
    order = np.argsort(begin, kind="stable")
    begin, reach = begin[order], np.maximum.accumulate(end[order])
    opens = np.concatenate(([True], begin[1:] > reach[:-1]))
    closes = np.concatenate((opens[1:], [True]))
    begin, reach = begin[opens], reach[closes]
    return Cover(begin, reach, np.concatenate(([0], np.cumsum(reach - begin))))
