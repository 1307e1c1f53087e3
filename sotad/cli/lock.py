"""Who holds a state directory, seen from outside."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path


def holder(path: Path) -> str | None:
    """The daemon that holds the lock, in words, or None when it is free.

    The lock is tried, shared and without waiting, because only the kernel knows; it is given back at once.

    Raises:
        OSError: the file is there but cannot be read.
    """
    try:
        file = path.open("r", encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(file.read())
    return None


def _named(text: str) -> str:
    try:
        said = json.loads(text)
        return f"pid {said['pid']} on {said['host']}"
    except (ValueError, KeyError, TypeError):
        return "a daemon that did not leave its name"
