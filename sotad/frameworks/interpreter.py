"""Which Python a server command runs under."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

_SHEBANG = re.compile(r"^#!\s*(\S*?)(?:\s+(\S+))?\s*$", re.M)
_LONG = re.compile(r"^'''exec'\s+\"?([^\"\s]+)\"?\s", re.M)  # what pip writes where the path is too long for a shebang


def is_python(program: str) -> bool:
    """Whether a program is an interpreter, by its name."""
    return Path(program).name.startswith("python")


def interpreter(command: Sequence[str]) -> str:
    """The Python that a command runs under: its first word, or what that program's first line names; else empty."""
    if is_python(command[0]):
        return command[0]
    path = shutil.which(command[0])
    if path is None:
        return ""
    with Path(path).open("rb") as file:
        return shebang(file.read(1024).decode(errors="replace"))


def shebang(head: str) -> str:
    """The interpreter in the head of a script, when it is a Python."""
    if long := _LONG.search(head):
        return long[1]
    first = _SHEBANG.match(head)
    if not first:
        return ""
    program = first[2] if first[1].endswith("/env") and first[2] else first[1]
    return program if is_python(program) else ""
