"""How the runs below a folder ended: ``runs.py FOLDER [JOB]`` prints ``{"ends": {reason: count}, "open": [run, ...]}``.

``open`` are runs that were begun, or were to be, and have no ``exit.json`` (see `sotad.shim`): they run, or were lost.
Runs below JOB, which asks, are left out. One look for all, as a campaign has hundreds.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def look(root: Path, asking: str = "") -> dict[str, Any]:
    """Every run, by its path below the folder, but for those of the job that asks."""
    ends: Counter[str] = Counter()
    unfinished = []
    for place, folders, files in os.walk(root):
        if asking and Path(place) == root / asking:
            folders.clear()
        if "spec.json" not in files:
            continue
        folders.clear()  # runs do not nest
        if "exit.json" in files:
            ends[json.loads(Path(place, "exit.json").read_bytes())["reason"]] += 1
        else:
            unfinished.append(Path(place).relative_to(root).as_posix())
    return {"ends": dict(ends), "open": sorted(unfinished)}


def main(argv: Sequence[str]) -> int:
    if not 1 <= len(argv) <= 2:
        print("usage: runs.py FOLDER [JOB]", file=sys.stderr)
        return 2
    print(json.dumps(look(Path(argv[0]), *argv[1:])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
