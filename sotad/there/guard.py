"""Become a command, guarded by this host's kernel: ``guard.py LIMITS -- COMMAND ...``; see :mod:`sotad.sandbox`.

LIMITS is JSON: lists of paths ``writable``, ``readable``, ``hidden`` and ``protected``, and ``programs``, whose virtual
environments are protected, too. Where people keep their logins is hidden. On a kernel that cannot do it the command
runs as it is, and standard error says so.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sotad import sandbox
from sotad.private import LOGINS, private


def environments(programs: Sequence[str]) -> list[Path]:
    """The virtual environments that programs come from."""
    folders = [Path(program).parent.parent for program in programs if Path(program).is_absolute()]
    return [folder for folder in folders if (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir()]


def limits_of(asked: dict[str, list[str]]) -> sandbox.Limits:
    """The limits by the real paths of this host; folders of ``writable`` are made."""
    paths = {name: [Path(path) for path in given] for name, given in asked.items() if name != "programs"}
    for folder in paths["writable"]:
        folder.mkdir(parents=True, exist_ok=True)
    paths["hidden"] += private(Path.home(), LOGINS, [*paths["writable"], *paths["readable"]])
    paths["protected"] += environments(asked["programs"])
    return sandbox.resolved(paths)


def main(argv: Sequence[str]) -> int:
    """Returns only when the command cannot be started; the exit status is the sandbox's."""
    if len(argv) < 3 or argv[1] != "--":
        print("usage: guard.py LIMITS -- COMMAND ...", file=sys.stderr)
        return 2
    if why := sandbox.available():
        print(f"not guarded: {why}", file=sys.stderr, flush=True)
        os.execvp(argv[2], list(argv[2:]))
    try:
        limits = limits_of(json.loads(argv[0]))
    except (OSError, ValueError) as error:
        print(f"guard: {error}", file=sys.stderr)
        return 126
    return sandbox.main([json.dumps(limits), *argv[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
