"""The desk of a call: a fresh folder in its run that holds the request, and in which the answer appears.

The rest of the run's directory, where its outcome is written, is out of the agent's reach.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sotad.agents.call import JSON, PROMPT, REQUEST, SCHEMA, Call
from sotad.agents.prompts import prompt
from sotad.shim import write_atomically

HOME = "home"
"""The home of a call that has no other: it stays until there is an answer, for a session to go on with lies in it."""
PLACED = (REQUEST, PROMPT, SCHEMA)
LONGEST_PLACED = 1 << 26  # bytes; nothing of ours is longer
EVERYDAY = ("PATH", "LANG")


def desk_of(run: str) -> Path:
    """The desk in a run's directory."""
    return Path(run) / "desk"


def place(call: Call, request: JSON, home: Path) -> None:
    """The desk holds the request, its text and the answer's schema, and nothing from before; the home exists."""
    desk = Path(call.desk)
    shutil.rmtree(desk, ignore_errors=True)
    for folder in (desk, desk / "tmp", home):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (desk / REQUEST).write_text(json.dumps(request, sort_keys=True, indent=1))
    (desk / SCHEMA).write_text(json.dumps(call.schema, sort_keys=True, indent=1))
    told = prompt(request, call.folder, call.on_desk(REQUEST), call.schema, bool(call.resume))
    (desk / PROMPT).write_text(told, errors="replace")


def clear(desk: Path, scrub: Callable[[bytes], bytes], keep: Collection[str] = ()) -> None:
    """What the agent wrote is gone, which may hold what it was trusted with, ``keep`` apart.

    Request, prompt and schema stay, and hold no secret even when the agent has written to them.
    """
    for entry in desk.iterdir() if desk.is_dir() else ():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name in PLACED and _is_plain(entry):
            write_atomically(entry, scrub(entry.read_bytes()))
        else:
            entry.unlink()


def _is_plain(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_size <= LONGEST_PLACED


def everyday(desk: Path, home: Path, source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """All that an agent's process inherits and is given, secrets apart: who commits is nobody of the user's."""
    who = {"NAME": "sotad implementer", "EMAIL": "implementer@sotad.invalid"}
    return {
        **{name: source[name] for name in EVERYDAY if name in source},
        **{f"GIT_{part}_{key}": value for part in ("AUTHOR", "COMMITTER") for key, value in who.items()},
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(desk / "tmp"),
    }
