"""Time that never steps back, so that what the machine admitted now is still legal at the time it is written with."""

from __future__ import annotations

import threading
import time


class Clock:
    """UTC in nanoseconds; when the system's clock is set back, it stands still until that has caught up."""

    def __init__(self, floor_ns: int = 0) -> None:
        self._last_ns = floor_ns
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self._last_ns = max(self._last_ns, time.time_ns())
            return self._last_ns

    def not_before(self, floor_ns: int) -> None:
        """Never answer with less than ``floor_ns`` from here on."""
        with self._lock:
            self._last_ns = max(self._last_ns, floor_ns)
