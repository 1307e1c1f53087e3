"""What paths of a campaign are on this host: ``survey.py ASKED``, with copies of the files in the working directory.

ASKED is JSON: ``programs``, whose first bytes are told (the name of an interpreter may stand there), and ``files``,
name to path. Prints ``{"programs": {program: {"path", "head"}}, "files": {name: {"path", "sha256", "bytes"}}}``; what
is not there is not in it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = 1024


def program(name: str) -> dict[str, str] | None:
    """Where it is, and how it begins."""
    path = shutil.which(name)
    if path is None:
        return None
    with Path(path).open("rb") as file:
        return {"path": path, "head": file.read(HEAD).decode(errors="replace")}


def copied(path: Path, target: Path) -> dict[str, Any] | None:
    """A file that is there, by digest, and a copy of it."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    target.write_bytes(data)
    return {"path": str(path), "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        print("usage: survey.py ASKED", file=sys.stderr)
        return 2
    asked = json.loads(Path(argv[0]).read_bytes())
    programs = {name: program(name) for name in asked["programs"]}
    files = {name: copied(Path(path), Path(name)) for name, path in asked["files"].items()}
    found = {"programs": programs, "files": files}
    print(json.dumps({kind: {name: each for name, each in of.items() if each} for kind, of in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
