"""Notices of changes in a folder: a reason to look sooner, never what is true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

SETTLE_S = 0.2
"""Seconds after a notice in which what else happens is waited for: whoever writes all the time gets no busy reader."""


class _Hint(FileSystemEventHandler):
    def __init__(self, happened: threading.Event) -> None:
        self._happened = happened

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Reading is no change: our own looks would call for the next look."""
        if event.event_type not in ("opened", "closed_no_write"):
            self._happened.set()


@contextmanager
def hinted(folder: Path) -> Iterator[Callable[[float], None]]:
    """A way to wait some seconds that ends when something changes in the folder; where nothing tells, it just waits."""
    happened = threading.Event()

    def wait(seconds: float) -> None:
        if happened.wait(seconds):
            time.sleep(SETTLE_S)
        happened.clear()

    observer = Observer()
    try:
        observer.schedule(_Hint(happened), str(folder))
        observer.start()
    except OSError:  # no inotify watches left: the poll finds everything
        yield wait
        return
    try:
        yield wait
    finally:
        observer.stop()
        observer.join()
