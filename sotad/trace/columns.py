"""What a profiler trace holds, as columns: one array per field, one row per event.

Times are nanoseconds since the trace's own first event (`Trace.origin_ns` is that event, as the file says it).
Tables are sorted by begin, then by longer first, so that a parent comes before its children.
A column of ids holds -1 where the event has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]


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

    ``device`` and ``stream`` index `Trace.devices` and `Trace.streams`.
    """

    device: I32
    stream: I32


@dataclass(slots=True)
class Frames(Spans):
    """Python frames; ``identity`` and ``parent`` are torch's `Python id` and `Python parent id`."""

    identity: I64
    parent: I64


@dataclass(slots=True)
class Trace:
    """One trace file.

    ``kernels`` are events of category `kernel`; ``copies`` are `gpu_memcpy` and `gpu_memset`. ``ops`` are `cpu_op`;
    ``launches`` are the `cuda_runtime` and `cuda_driver` events that put work on a device; ``marks`` are
    `user_annotation` on CPU threads, ``gpu_marks`` are `gpu_user_annotation`. ``threads`` are (process, thread) as
    the file names them, ``streams`` (index into ``devices``, stream). ``facts`` are the other keys of the file
    (deviceProperties, distributedInfo, ...). ``dropped`` counts events that could not be used, by reason.
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
