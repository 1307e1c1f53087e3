"""Which event an id names. An id that names several events names none: a join is proven or not made."""

from __future__ import annotations

import numpy as np

from sotad.trace.columns import I64, Spans


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


def launches_of(work: Spans, launches: Spans) -> I64:
    """The launch of each kernel or copy: the one with its correlation, or of several the one that also has its
    External id (processes that write into one file may count alike). -1 where that is not one launch.

    The kernels of a CUDA graph share the correlation of the call that replayed the graph.
    """
    found = by_id(work.correlation, launches.correlation)
    ids, count = np.unique(launches.correlation, return_counts=True)
    shared = ids[(count > 1) & (ids > 0)]
    if len(shared):
        left = np.flatnonzero(np.isin(work.correlation, shared))
        others = np.flatnonzero(np.isin(launches.correlation, shared))
        at = _by_both(work, left, launches, others)
        found[left] = np.where(at >= 0, others[at], -1)
    return found


def _by_both(work: Spans, rows: I64, launches: Spans, others: I64) -> I64:
    correlation = np.concatenate([launches.correlation[others], work.correlation[rows]])
    external = np.concatenate([launches.external[others], work.external[rows]])
    _, pair = np.unique(np.stack([correlation, external]), axis=1, return_inverse=True)
    pair = np.where(external > 0, pair.reshape(-1) + 1, 0)
    return by_id(pair[len(others) :], pair[: len(others)])
