"""Files of a loop that somebody else writes: looked at without trusting what lies there.

A look never follows a link, never waits on a pipe, never takes in more than MAX_BYTES, and takes a file only when it
stayed as it was while it was read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sotad.humanize.layout import Place, place
from sotad.humanize.reading import JSON, read

MAX_BYTES = 256 * 1024
"""Of one file: with JSON around it, it must fit a request to the daemon."""

Stamp = tuple[int, int, int]


class Unusable(Exception):
    """A file that cannot be taken as it is; the text says why, and after the name makes one line."""


class Version(NamedTuple):
    """One content of one file. ``modified`` is what its own stamp says, in UTC."""

    file: str
    place: Place
    sha256: str
    modified: str
    text: str

    @property
    def fields(self) -> JSON:
        """What it says, with the stamp."""
        return {**read(self.place, self.text), "modified": self.modified}


def names(folder: Path) -> list[str]:
    """The files of the layout in a folder, as the loop went. Names that are no UTF-8 are none of it.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = {path.name: where for path in folder.iterdir() if (where := place(path.name)) is not None}
    return sorted(found, key=lambda name: found[name].order)


def stamp(path: Path) -> Stamp | None:
    """What changes when a file does; None when it is gone."""
    try:
        return _stamp(path.lstat())
    except OSError:
        return None


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_size, found.st_ino


def load(path: Path) -> Version:
    """Read one file.

    Raises:
        Unusable: it is no plain file, too large, no UTF-8 text, gone, or was written to meanwhile.
    """
    where = place(path.name)
    if where is None:
        raise Unusable("is no file of a loop")
    data, found = _data(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Unusable(f"is no UTF-8 text: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise Unusable(f"holds a NUL character at {text.index(chr(0))}")
    modified = f"{datetime.fromtimestamp(found.st_mtime_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Version(path.name, where, hashlib.sha256(data).hexdigest(), modified, text)


def _data(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        before = path.lstat()
        if not stat.S_ISREG(before.st_mode):
            raise Unusable("is a link: not followed" if stat.S_ISLNK(before.st_mode) else "is no plain file")
        if before.st_size > MAX_BYTES:
            raise Unusable(f"has {before.st_size} bytes, more than the {MAX_BYTES} that are taken")
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(MAX_BYTES + 1)
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise Unusable("vanished") from None
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from None
    if _stamp(before) != _stamp(after) or len(data) != after.st_size:
        raise Unusable("is being written to")
    return data, after
