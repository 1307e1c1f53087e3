"""What a profiler trace holds, as columns: one array per field, one row per event.

Times are nanoseconds since the trace's own first event (`Trace.origin_ns` is that event, as the file says it).
Tables are sorted by begin, then by longer first, so that a parent comes before its children.
A column of ids holds -1 where the event has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
FLOW_PHASES = ("s", "t", "f")
FLOW_START = 0


def absent(length: int) -> I64:
    """A column of ids of which there is none; it takes no memory and cannot be written."""
    return np.broadcast_to(np.int64(-1), length)


@dataclass(slots=True)
class Spans:
    """Complete events of one kind.

    ``name`` indexes `Trace.names`, ``thread`` `Trace.threads`. ``external`` is the External id that ties an operator
    to what it launched, ``correlation`` the id that ties a launch to its kernels.
    """

    begin: I64
    end: I64
    name: I32
    thread: I32
    external: I64
    correlation: I64

    def __len__(self) -> int:
        return len(self.begin)


@dataclass(slots=True)
class Work(Spans):
    """What ran on a device: kernels, copies or fills.

    ``device`` and ``stream`` index `Trace.devices` and `Trace.streams`. ``graph`` is the id of the CUDA graph that
    held it, ``node`` that of its node there, the same in every replay; left out, they are -1 throughout.
    """

    device: I32
    stream: I32
    graph: I64 = field(default_factory=lambda: absent(0))
    node: I64 = field(default_factory=lambda: absent(0))

    def __post_init__(self) -> None:
        self.graph = self.graph if len(self.graph) else absent(len(self))
        self.node = self.node if len(self.node) else absent(len(self))


@dataclass(slots=True)
class Frames(Spans):
    """Python frames; ``identity`` and ``parent`` are torch's `Python id` and `Python parent id`."""

    identity: I64
    parent: I64


@dataclass(slots=True)
class Flows:
    """The ends of arrows between events, in order of time.

    An arrow begins and ends where an event of ``thread`` (index of `Trace.threads`: process and thread) begins at
    ``time``; its ends share ``identity`` and ``category`` (index of ``categories``). ``phase`` indexes `FLOW_PHASES`:
    start, step, finish.
    """

    time: I64
    identity: I64
    thread: I32
    category: I32
    phase: I8
    categories: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.time)


def no_flows() -> Flows:
    """The table of a trace without any."""
    none = np.zeros(0, np.int64)
    return Flows(none, none, none.astype(np.int32), none.astype(np.int32), none.astype(np.int8))


Table = TypeVar("Table", Spans, Work, Frames)


def emptied(table: Table) -> Table:
    """A table of the same kind without rows; it holds nothing of the other."""
    return type(table)(**{column.name: getattr(table, column.name)[:0].copy() for column in fields(table)})


@dataclass(slots=True)
class Trace:
    """One trace file.

    ``kernels`` are events of category `kernel`; ``copies`` are `gpu_memcpy` and `gpu_memset`. ``ops`` are `cpu_op`;
    ``launches`` are the `cuda_runtime` and `cuda_driver` events that put work on a device; ``marks`` are
    `user_annotation` on CPU threads, ``gpu_marks`` are `gpu_user_annotation`. ``threads`` are (process, thread) as
    the file names them, ``streams`` (index into ``devices``, stream). ``flows`` are events of phase s, t and f.
    ``facts`` are the other keys of the file (deviceProperties, distributedInfo, ...). ``dropped`` counts events that
    could not be used, by reason.
    """

    path: str
    origin_ns: int
    names: list[str]
    threads: list[tuple[str, str]]
    devices: list[str]
    streams: list[tuple[int, str]]
    kernels: Work
    copies: Work
    ops: Spans
    launches: Spans
    frames: Frames
    marks: Spans
    gpu_marks: Work
    facts: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    events: int = 0
    flows: Flows = field(default_factory=no_flows)
