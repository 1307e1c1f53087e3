"""Which event the end of a flow stands at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sotad.trace.columns import I32, I64


def at_beginning(time: I64, lane: I32, begin: I64, lanes: I32) -> I64:
    """The row of the only event that begins at each time on each thread; -1 where none or several do.

    `begin` is sorted, as in every table. Torch writes each end of an arrow with process, thread and time of the event
    it ties; an end somewhere inside an event, which the format allows, would prove less and is not followed.
    """
    if not len(begin) or not len(time):
        return np.full(len(time), -1, np.int64)
    new = np.append(True, begin[1:] > begin[:-1])
    moments, width = begin[new], int(max(lanes.max(), lane.max())) + 1
    key = (np.cumsum(new) - 1) * width + lanes
    at = np.minimum(np.searchsorted(moments, time), len(moments) - 1)
    wanted = np.where(moments[at] == time, at * width + lane, -1)
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.searchsorted(key, wanted)
    last = np.searchsorted(key, wanted, side="right")
    return np.where(last - first == 1, order[np.minimum(first, len(order) - 1)], -1)


def among(time: I64, begin: I64) -> NDArray[np.bool_]:
    """Which times are among the sorted begins."""
    if not len(begin):
        return np.zeros(len(time), np.bool_)
    return np.equal(begin[np.minimum(np.searchsorted(begin, time), len(begin) - 1)], time)
