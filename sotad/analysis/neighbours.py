"""What ran right before and after a kernel, on its own stream and on the others: evidence of who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.cover import Cover
from sotad.trace.columns import I32, I64

FOLLOWS_NS = 10_000  # a stream that idled and starts this soon after work ended elsewhere probably waited for it
_LOOK = 4  # pieces of work looked at around such an end


@dataclass(slots=True)
class Around:
    """Of each chosen kernel: name ids of its neighbours (-1: none) and what their distance says.

    ``before`` and ``after`` are on its own stream; ``tight_*`` tells that the gap is short for the kernel's length,
    ``waits_*`` that the device mostly idled in the gap. ``feeds`` is work that idled on another stream until this one
    ended, ``fed_by`` work of another stream whose end this one's idle stream waited for.
    """

    before: I64
    after: I64
    tight_before: NDArray[np.bool_]
    tight_after: NDArray[np.bool_]
    waits_before: NDArray[np.bool_]
    waits_after: NDArray[np.bool_]
    feeds: I64
    fed_by: I64

    def part(self, first: int, last: int) -> Around:
        """What is around some of the kernels, by place."""
        return Around(*(getattr(self, each.name)[first:last] for each in fields(self)))


def stream_by_stream(begin: I64, stream: I32) -> I64:
    """The order by stream, then by begin, as `np.lexsort` has it; faster where streams are few."""
    order = np.argsort(begin, kind="stable")
    small = np.int16 if stream.max(initial=0) < 1 << 15 else np.int32  # numpy sorts short numbers faster
    return order[np.argsort(stream[order].astype(small), kind="stable")]


class Neighbours:
    """The work of one device, ready to look around in; `busy` is when the device ran anything."""

    def __init__(self, begin: I64, end: I64, stream: I32, name: I32, busy: Cover) -> None:
        self.begin, self.end, self.stream, self.name = begin, end, stream, name
        self.busy = busy
        self.order = stream_by_stream(begin, stream).astype(np.int32)
        self.place = np.empty(len(begin), dtype=np.int32)
        self.place[self.order] = np.arange(len(begin), dtype=np.int32)
        ranked = stream[self.order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))[: len(begin)]
        reach = end[self.order]
        for first, last in zip(starts, [*starts[1:], len(begin)], strict=True):
            np.maximum.accumulate(reach[first:last], out=reach[first:last])
        self.idle_since = np.full(len(begin), -1, dtype=np.int64)  # when the stream's earlier work was done
        later = np.flatnonzero(ranked[1:] == ranked[:-1]) + 1
        self.idle_since[self.order[later]] = reach[later - 1]
        self.by_begin, self.by_end = (np.argsort(each, kind="stable").astype(np.int32) for each in (begin, end))

    def around(self, rows: I64) -> Around:
        """What is around the work of these rows."""
        before, after = self._beside(rows, -1), self._beside(rows, 1)
        duration = self.end[rows] - self.begin[rows]
        limit = np.clip(duration * 3 // 20, 2_000, 20_000)
        since = np.where(before >= 0, self.idle_since[rows], self.begin[rows])
        until = np.where(after >= 0, self.begin[after], self.end[rows])
        gap_before, gap_after = np.maximum(self.begin[rows] - since, 0), np.maximum(until - self.end[rows], 0)
        idle_before = gap_before - self.busy.within(self.begin[rows] - gap_before, self.begin[rows])
        idle_after = gap_after - self.busy.within(self.end[rows], self.end[rows] + gap_after)
        tight_before, tight_after = (before >= 0) & (gap_before <= limit), (after >= 0) & (gap_after <= limit)
        return Around(
            self._named(before),
            self._named(after),
            tight_before,
            tight_after,
            (gap_before > limit) & (2 * idle_before > gap_before),
            (gap_after > limit) & (2 * idle_after > gap_after),
            self._named(self._feeds(rows)),
            self._named(self._fed_by(rows)),
        )

    def _named(self, rows: I64) -> I64:
        return np.where(rows >= 0, self.name[rows], -1).astype(np.int64)

    def _beside(self, rows: I64, side: int) -> I64:
        place = self.place[rows] + side
        inside = (place >= 0) & (place < len(self.order))
        found = self.order[np.where(inside, place, 0)]
        return np.where(inside & (self.stream[found] == self.stream[rows]), found, -1)

    def _feeds(self, rows: I64) -> I64:
        """The first work that begins soon after on a stream that idled when this one ended."""
        found = np.full(len(rows), -1, dtype=np.int64)
        done = self.end[rows]
        at = np.searchsorted(self.begin[self.by_begin], done, side="left")
        for offset in range(_LOOK):
            place = np.minimum(at + offset, len(self.by_begin) - 1)
            other = self.by_begin[place]
            soon = (self.begin[other] >= done) & (self.begin[other] <= done + FOLLOWS_NS)
            waited = (self.idle_since[other] <= done) & (self.stream[other] != self.stream[rows])
            found = np.where((found < 0) & soon & waited & (at + offset < len(self.by_begin)), other, found)
        return found

    def _fed_by(self, rows: I64) -> I64:
        """The last work of another stream that ended shortly before, while this one's stream idled."""
        found = np.full(len(rows), -1, dtype=np.int64)
        begun = self.begin[rows]
        at = np.searchsorted(self.end[self.by_end], begun, side="right") - 1
        for offset in range(_LOOK):
            place = np.maximum(at - offset, 0)
            other = self.by_end[place]
            done = self.end[other]
            waited = (done <= begun) & (done >= begun - FOLLOWS_NS) & (self.idle_since[rows] <= done)
            elsewhere = (self.stream[other] != self.stream[rows]) & (at - offset >= 0)
            found = np.where((found < 0) & waited & elsewhere, other, found)
        return found
