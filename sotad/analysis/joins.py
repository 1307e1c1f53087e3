"""Which event an id names. An id that names several events names none: a join is proven or not made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotad.trace.arrows import among, at_beginning
from sotad.trace.columns import FLOW_START, I64, Flows, Spans, Trace, Work

Flags = NDArray[np.bool_]


def by_id(wanted: I64, ids: I64) -> I64:
    """For each wanted id the index of the only event that has it; -1 where none or several do, or the id is no id.

    Zero and negative ids are what profilers write when there is none.
    """
    known = np.flatnonzero(ids > 0)
    order = known[np.argsort(ids[known], kind="stable")]
    sorted_ids = ids[order]
    if not len(order):
        return np.full(len(wanted), -1, np.int64)
    first = np.searchsorted(sorted_ids, wanted, side="left")
    last = np.searchsorted(sorted_ids, wanted, side="right")
    only = (last - first == 1) & (wanted > 0)
    return np.where(only, order[np.minimum(first, len(order) - 1)], -1)


def launches_of(work: Work, trace: Trace) -> I64:
    """The launch of each kernel or copy: by its correlation, else, where it or the launch has none, by a flow; -1
    where neither proves one.

    The kernels of a CUDA graph share the correlation of the call that replayed the graph.
    """
    found = by_correlation(work, trace.launches)
    left = found < 0
    if left.any() and len(trace.flows):
        launch = by_flow(work, trace, left)
        kept = (launch >= 0) & ~_contradicts(work, trace.launches, launch)
        found[kept] = launch[kept]
    return found


def _contradicts(work: Work, launches: Spans, launch: I64) -> Flags:
    """Whether both have a correlation, and not the same."""
    if not len(launches):
        return np.zeros(len(work), np.bool_)
    own, other = work.correlation, launches.correlation[launch]
    differ: Flags = (own > 0) & (other > 0) & (own != other)
    return differ


class Tied(NamedTuple):
    """How many kernels and copies flows tie to a launch: in all, where ids do not tell it, and to another than ids."""

    all: int
    alone: int
    against: int


def tied(work: Work, trace: Trace) -> Tied:
    """What flows add to correlations."""
    if not len(trace.flows):
        return Tied(0, 0, 0)
    launch, known = by_flow(work, trace, np.ones(len(work), np.bool_)), by_correlation(work, trace.launches)
    told = launch >= 0
    against = told & (_contradicts(work, trace.launches, launch) | ((known >= 0) & (known != launch)))
    return Tied(*(int(each.sum()) for each in (told, told & (known < 0) & ~against, against)))


def by_correlation(work: Spans, launches: Spans) -> I64:
    """The launch with the correlation of each kernel or copy, or of several the one that also has its External id
    (processes that write into one file may count alike). -1 where that is not one launch."""
    found = by_id(work.correlation, launches.correlation)
    ids, count = np.unique(launches.correlation, return_counts=True)
    shared = ids[(count > 1) & (ids > 0)]
    if len(shared):
        left = np.flatnonzero(np.isin(work.correlation, shared))
        others = np.flatnonzero(np.isin(launches.correlation, shared))
        at = _by_both(work, left, launches, others)
        found[left] = np.where(at >= 0, others[at], -1)
    return found


def by_flow(work: Work, trace: Trace, asked: Flags) -> I64:
    """The launch from which a flow leads to each kernel or copy that is asked; -1 where none or several do.

    The ends of a flow share id and category; an id of 0 is none.
    """
    flows, launches = trace.flows, trace.launches
    found = np.full(len(work), -1, np.int64)
    end, row = _ends(flows, (flows.phase != FLOW_START) & among(flows.time, work.begin[asked]), work)
    row, end = row[asked[row]], end[asked[row]]
    start = (flows.phase == FLOW_START) & np.isin(flows.identity, flows.identity[end])
    start, launch = _ends(flows, start, launches)
    if not len(start) or not len(end):
        return found
    both = np.concatenate([start, end])
    arrow = kinds(np.stack([flows.identity[both], flows.category[both]]))
    launch_of = only(arrow[: len(start)], launch, len(both))[arrow[len(start) :]]
    led = launch_of >= 0
    return only(row[led], launch_of[led], len(work))


def _ends(flows: Flows, wanted: Flags, table: Spans) -> tuple[I64, I64]:
    """Of the wanted flow events with an id those that stand at an event of the table, and its row."""
    at = np.flatnonzero(wanted & (flows.identity > 0))
    row = at_beginning(flows.time[at], flows.thread[at], table.begin, table.thread)
    return at[row >= 0], row[row >= 0]


def only(key: I64, value: I64, size: int) -> I64:
    """For each key below `size` its value, where all that have the key agree; else -1."""
    low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, -1, np.int64)
    np.minimum.at(low, key, value)
    np.maximum.at(high, key, value)
    return np.where(low == high, low, -1)


def _by_both(work: Spans, rows: I64, launches: Spans, others: I64) -> I64:
    correlation = np.concatenate([launches.correlation[others], work.correlation[rows]])
    external = np.concatenate([launches.external[others], work.external[rows]])
    _, pair = np.unique(np.stack([correlation, external]), axis=1, return_inverse=True)
    pair = np.where(external > 0, pair.reshape(-1) + 1, 0)
    return by_id(pair[len(others) :], pair[: len(others)])


def distinct(columns: I64) -> tuple[I64, I64]:
    """Of the columns of a table of names (-1 and up), the first of each kind, in order, and the kind of each."""
    key = kinds(columns)
    _, first = np.unique(key, return_index=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.sort(first), rank[key]


def kinds(columns: I64) -> I64:
    """A number for each column of a table (of -1 and up), the same for the same."""
    key = np.zeros(columns.shape[1], np.int64)
    for values in columns:
        row = values if int(values.max()) < 2**31 else _dense(values + 1)
        key = _dense(key * (int(row.max()) + 2) + row + 1)
    return key


def _dense(values: I64) -> I64:
    """The same distinctions in small numbers; by a table where that is smaller than sorting."""
    limit = int(values.max()) + 1
    if limit > 4 * len(values) + 1_000_000:
        return np.unique(values, return_inverse=True)[1].reshape(-1)
    present = np.zeros(limit, bool)
    present[values] = True
    numbers: I64 = np.cumsum(present) - 1
    return numbers[values]
