"""The first program on a host: puts the real one there, by digest. Sent as source to `python -I -S -`.

In the words of Python 3.6, to be able to say that it is too old.
"""

import base64
import errno
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LEAST = (3, 8)


def boot(mark: str, root: str, name: str, digest: str, data: str) -> None:
    """Print `mark` and what is there as JSON; write `data` (base64) first, if it was given and is not there."""
    answer: dict[str, Any] = {"version": list(sys.version_info[:2])}
    if sys.version_info >= LEAST:
        path = Path(root, "files", digest, name)
        try:
            if data and not holds(path, digest):
                write(path, base64.b64decode(data))
            answer.update(path=str(path), held=holds(path, digest), monotonic=time.monotonic())
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            answer.update(error=error.strerror, full=full, file=str(error.filename or path))
    sys.stdout.write(mark + json.dumps(answer) + "\n")


def holds(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except (FileNotFoundError, NotADirectoryError):
        return False


def write(path: Path, data: bytes) -> None:
    """`path` holds all of `data`, or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        if draft.exists():
            draft.unlink()
        raise
