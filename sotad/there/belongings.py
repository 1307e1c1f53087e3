"""What a campaign has on this host: ``belongings.py REQUEST`` reads a JSON file and prints JSON.

One file, standard library only, Linux: it is run where the campaign's processes and folders are.

    {"runs": DIR, "folders": [DIR, ...], "end": bool, "remove": [DIR, ...], "patience_s": SECONDS}

``runs`` holds the campaign's run directories (see `shim.py`): processes are told by the token that each run's
processes carry, and shims by pid and start, never by name; the run that asks is left out. With ``end`` processes are
ended that outlived their run, shims apart, which go by themselves within ``patience_s``. Folders in ``remove`` are
removed; each folder asked about is measured afterwards. `~` is this user's home. A symbolic link is never followed,
neither to be measured nor to be removed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOKEN = "SOTAD_RUN"
KILL_WAIT_S = 5.0
LONGEST = 300  # characters of a command line

Record = dict[str, Any]


def processes(runs: Path) -> list[Record]:
    """Every live process of a run below ``runs``: pid, command line, the run, and whether it is the run's shim."""
    claims = list(_claims(runs))
    tokens = {claim["token"]: name for name, claim in claims}
    shims = {(claim["shim_pid"], claim["shim_start_ticks"]): name for name, claim in claims}
    found = []
    for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        of, shim_of = tokens.get(_token(pid)), shims.get((pid, _start_ticks(pid)))
        if (of or shim_of) and (command := _command(pid)):
            found.append({"pid": pid, "command": command, "run": of or shim_of, "shim": of is None})
    return found


def _claims(runs: Path) -> Iterator[tuple[str, Record]]:
    """The runs that were begun since this machine was booted."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for folder, below, files in os.walk(runs):
        if "pid.json" in files:
            below.clear()
            try:
                claim = json.loads(Path(folder, "pid.json").read_bytes())
            except (OSError, ValueError):
                continue
            if claim.get("boot_id") == boot and claim["token"] != os.environ.get(TOKEN):
                yield str(Path(folder).relative_to(runs)), claim


def _token(pid: int) -> str:
    """The token of the run that a process belongs to; empty for other people's, which cannot be read."""
    try:
        parts = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    mark = f"{TOKEN}=".encode()
    return next((part[len(mark) :].decode("ascii", "replace") for part in parts if part.startswith(mark)), "")


def _start_ticks(pid: int) -> int:
    """When a process started, as proc_pid_stat(5) has it; 0 when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _command(pid: int) -> str:
    """Its command line; empty when it is gone, a zombie among them."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return line[:LONGEST] or (Path(f"/proc/{pid}/comm").read_text().strip() if _start_ticks(pid) else "")
    except OSError:
        return ""


def end(runs: Path, patience_s: float) -> None:
    """SIGKILL what outlived its run and wait for the shims, until nothing is left or the time for that is over."""
    deadline = time.monotonic() + patience_s
    while (left := processes(runs)) and time.monotonic() < deadline:
        for process in left:
            if not process["shim"]:
                _kill(process["pid"])
        time.sleep(0.05)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def measured(folder: Path) -> Record:
    """How many files a folder holds, and the bytes that they take on the disk; each inode counts once."""
    seen: set[tuple[int, int]] = set()
    files = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))  # noqa: PTH118 - hundreds of thousands of files
            except OSError:
                continue
            files += 1
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                size += found.st_blocks * 512
    return {"there": os.path.lexists(folder), "files": files, "bytes": size}


def remove(folder: Path) -> str:
    """Remove a folder and what is in it; why that is impossible, or an empty string."""
    if folder.is_symlink():
        return f"{folder} is a link: left alone"
    problems: list[str] = []
    if folder.exists():
        for place, _, _ in os.walk(folder):
            Path(place).chmod(0o700)  # what is read-only cannot be emptied
        shutil.rmtree(folder, onerror=lambda _, path, error: problems.append(f"{path}: {error[1]}"))
    return problems[0] if problems else ""


def answer(request: Record) -> Record:
    """What is there, after what was asked for was done."""
    runs = Path(request["runs"])
    if request.get("end"):
        end(runs, float(request.get("patience_s", KILL_WAIT_S)))
    problems = [problem for name in request.get("remove", ()) if (problem := remove(_place(name)))]
    folders = [{**measured(_place(name)), "path": name} for name in request.get("folders", ())]
    return {"processes": processes(runs), "folders": folders, "problems": problems}


def _place(name: str) -> Path:
    return Path(name).expanduser()


if __name__ == "__main__":
    json.dump(answer(json.loads(Path(sys.argv[1]).read_bytes())), sys.stdout)
