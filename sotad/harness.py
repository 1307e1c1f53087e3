"""The code that measures and judges, as one digest: what is compared must have been measured by the same."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import ledger
import sotad
import statemachine

PACKAGES = (ledger, statemachine, sotad)


def harness_digest() -> str:
    """SHA-256 over the names and contents of every file of our packages, compiled ones apart."""
    total = sha256()
    for package in PACKAGES:
        root = Path(str(package.__file__)).parent
        for path in sorted(file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts):
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            total.update(f"{name}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
