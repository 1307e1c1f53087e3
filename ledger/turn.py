"""Whose turn it is to write: one lock that two writing processes never hold at once."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ledger.errors import Unwritable

_POLL_SECONDS = 0.005


class Turn:
    """A file lock around every commit and checkpoint, as a context manager.

    SQLite commits first and checkpoints afterwards, outside its own write lock. Two writers overlapping there
    is what the WAL-reset bug needs, so nobody writes or checkpoints without holding this.
    """

    def __init__(self, path: Path, patience_seconds: float) -> None:
        self._path = path
        self._patience = patience_seconds
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        if self._file >= 0 and self._taken():
            return
        if self._file < 0:
            raise Unwritable(f"{self._path}: the ledger is closed; nothing was written")
        deadline = time.monotonic() + self._patience
        while not self._taken():
            if time.monotonic() > deadline:
                raise Unwritable(f"{self._path}: another process has been writing for {self._patience:g} s; stop it")
            time.sleep(_POLL_SECONDS)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock up for good; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
