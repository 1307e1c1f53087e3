"""What CUDA graphs did: which launch replayed which kernels, and what the nodes of a graph have in common.

A node of a graph is captured once, from one line of source, and runs that kernel in every replay. So whatever says
where the kernels of a node come from has to say the same of all of them, else it is not to be believed. Torch 2.11
writes no node ids, later Kineto does (github.com/pytorch/kineto/pull/1276); without them, kernels of a graph are known
by their launch alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.joins import kinds, launches_of
from sotad.trace.columns import I64, Trace, Work

_REPLAY = "graphlaunch"


def replaying(trace: Trace) -> NDArray[np.bool_]:
    """Per name of the trace, whether it is that of a call that replays a graph."""
    return np.array([_REPLAY in name.lower() for name in trace.names], np.bool_)


def replayed_by(trace: Trace) -> I64:
    """The launch that replayed each kernel, as index of `Trace.launches`; -1 where it was launched alone."""
    replays, launch = replaying(trace), launches_of(trace.kernels, trace)
    if not len(trace.launches) or not replays.any():
        return np.full(len(launch), -1, np.int64)
    return np.where((launch >= 0) & replays[trace.launches.name[launch]], launch, -1)


def nodes_of(work: Work) -> I64:
    """A number for each node of a graph that the work is of, -1 where none is known.

    A node that got another function between two replays (cudaGraphExecKernelNodeSetParams) counts as another.
    """
    rows = np.flatnonzero(work.node > 0)
    found = np.full(len(work), -1, np.int64)
    if len(rows):
        found[rows] = kinds(np.stack([each[rows] for each in (work.node, work.graph, work.device, work.name)]))
    return found
