"""One daemon per state directory: a lock that the kernel lets go of, however its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO

from sotad.errors import OperatorFault

TRIES, PAUSE_S = 5, 0.05


class Lock:
    """An exclusive lock on ``<state>/lock``; the file says who holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take the lock, or say who has it.

        Raises:
            OperatorFault: another daemon holds it, or the directory cannot be written.
        """
        try:
            self._file = self._path.open("a+")
        except OSError as error:
            raise OperatorFault(f"{self._path}: {error.strerror}: choose a writable --dir") from None
        try:
            self._lock(self._file)
        except BlockingIOError:
            self._file.seek(0)
            holder = _holder(self._file.read())
            self._file.close()
            raise OperatorFault(
                f"{self._path.parent} is in use by {holder}: stop it with `sotad stop`, or choose another --dir"
            ) from None
        self._sign()

    def _lock(self, file: IO[str]) -> None:
        """Lock, trying again for a moment: `sotad stop` and `sotactl doctor` touch the lock to look at it."""
        for _ in range(TRIES):
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(PAUSE_S)
        return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _sign(self) -> None:
        """Say who holds it; a full disk must not keep a daemon from going on where it left off."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.write(json.dumps({"pid": os.getpid(), "host": os.uname().nodename}))
            self._file.flush()

    def release(self) -> None:
        """Let go of the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"the daemon with pid {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return "another daemon"
