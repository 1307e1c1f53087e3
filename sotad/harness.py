"""The code that measures and judges, as one digest: what is compared must have been measured by the same."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import ledger
import sotad
import statemachine

PACKAGES = (ledger, statemachine, sotad)


def files() -> Iterator[tuple[str, Path]]:
    """Every file of our packages, compiled ones apart, by its name below the packages' folder; in a fixed order."""
    for package in PACKAGES:
        root = Path(str(package.__file__)).parent
        for path in sorted(file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts):
            yield f"{root.name}/{path.relative_to(root).as_posix()}", path


def harness_digest() -> str:
    """SHA-256 over the names and contents of every file of our packages."""
    total = sha256()
    for name, path in files():
        total.update(f"{name}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
