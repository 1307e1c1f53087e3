"""Print the SHA-256 and size of files, as JSON by path: ``digests.py FILE ...``."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

BLOCK = 1 << 20


def digest(path: Path) -> dict[str, object]:
    """Of one file, read by the block."""
    known, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            known.update(block)
            size += len(block)
    return {"sha256": known.hexdigest(), "bytes": size}


def main(argv: Sequence[str]) -> int:
    try:
        print(json.dumps({name: digest(Path(name)) for name in argv}))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
