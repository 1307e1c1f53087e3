"""Captures of steps as a Chrome trace, in the words of the reference engine's traces."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Profiler:
    """Spans while a capture runs; ``stop`` writes them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.events: list[dict[str, object]] | None = None
        self.files: list[str] = []

    @contextmanager
    def span(self, name: str, category: str) -> Iterator[None]:
        began = time.perf_counter_ns()
        yield
        if self.events is not None:
            times = {"ts": began / 1000, "dur": (time.perf_counter_ns() - began) / 1000}
            place = {"pid": os.getpid(), "tid": threading.get_ident()}
            self.events.append({"ph": "X", "name": name, "cat": category, **times, **place})

    def start(self, folder: str = "") -> str | None:
        """What is wrong, or None when a capture runs now; ``folder`` is where the caller wants its file."""
        self.folder = folder or self.folder
        if not self.folder:
            return "profiling is off: start the server with --profile-dir DIR"
        if self.events is not None:
            return "a capture is already running: POST /stop_profile first"
        self.events = []
        return None

    def stop(self) -> list[str]:
        """Write the capture, when one runs; return the file of the latest."""
        if self.events is None:
            return self.files
        events, self.events = self.events, None
        path = Path(self.folder, f"standin-{time.time_ns()}.trace.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"traceEvents": events}))
        self.files = [str(path)]
        return self.files
