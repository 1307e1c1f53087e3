"""Chrome-trace events in short, and the trace that they make."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sotad.trace.columns import Trace
from sotad.trace.reader import read

Event = dict[str, Any]
PID = 70


def event(cat: str, name: str, begin: float, end: float, pid: Any = PID, tid: Any = PID, **args: Any) -> Event:
    """A complete event; times in us."""
    ids = {key.replace("_", " "): value for key, value in args.items() if value is not None}
    return {"ph": "X", "cat": cat, "name": name, "ts": begin, "dur": end - begin, "pid": pid, "tid": tid, "args": ids}


def mark(name: str, begin: float, end: float, tid: Any = PID, external: int | None = None, pid: Any = PID) -> Event:
    return event("user_annotation", name, begin, end, pid, tid, External_id=external)


def window(name: str, begin: float, end: float, stream: int = 7, external: int | None = None, device: int = 0) -> Event:
    return event("gpu_user_annotation", name, begin, end, device, stream, External_id=external)


def launch(begin: float, correlation: int, name: str = "cudaLaunchKernel", tid: Any = PID, pid: Any = PID) -> Event:
    return event("cuda_runtime", name, begin, begin + 1, pid, tid, correlation=correlation)


def op(name: str, begin: float, end: float, external: int | None = None, tid: Any = PID) -> Event:
    return event("cpu_op", name, begin, end, PID, tid, External_id=external)


def frame(name: str, begin: float, end: float, tid: Any = PID) -> Event:
    return event("python_function", name, begin, end, PID, tid, Python_id=1)


def kernel(
    name: str,
    begin: float,
    end: float,
    correlation: int | None = None,
    external: int | None = None,
    stream: int = 7,
    device: int = 0,
) -> Event:
    ids = {"correlation": correlation, "External_id": external, "stream": stream, "device": device}
    return event("kernel", name, begin, end, device, stream, **ids)


def copy(name: str, begin: float, end: float, correlation: int | None = None, stream: int = 7) -> Event:
    return event("gpu_memcpy", name, begin, end, 0, stream, correlation=correlation, stream=stream, device=0)


def trace_of(events: Iterable[Event]) -> Trace:
    """The trace of a file with these events."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.trace.json"
        path.write_text(json.dumps({"traceEvents": list(events)}))
        return read(path)
