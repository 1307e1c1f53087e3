"""Every file system call, interrupted in turn by SIGKILL and by EIO: no acknowledged event is ever lost.

strace counts the calls of a run that touch the ledger's files, then the run is repeated once for each call and
each fault, on a fresh copy. After each, the ledger must verify, hold everything acknowledged, and go on working.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger.errors import NotFound
from ledger.verify import verify

WORKER = Path(__file__).with_name("crash_worker.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
FILES = (
    "ledger.db",
    "ledger.db.new",
    "ledger.db.new-wal",
    "ledger.db.new-journal",
    "ledger.db-wal",
    "ledger.db-shm",
    "ledger.db-journal",
    "ledger.db.turn",
    "checkpoints.jsonl",
)
CALLS = "openat,close,read,pread64,write,pwrite64,lseek,newfstatat,fcntl,flock,fdatasync,fsync,ftruncate,unlink,mmap"
DIRECTORY_CALLS = "fsync,rename,linkat,fchmod"
"""Calls that the interpreter itself does not make: swept on every path, so that keys and artifacts are in."""

SCENARIOS = {"create": 2, "append": 3, "recover": 0, "recover and append": 2}
"""What the worker is doing when the fault strikes, and how many groups it appends."""


class Point(NamedTuple):
    """One call to interrupt: the n-th ``call`` of the scenario, within ``paths`` (strace options)."""

    scenario: str
    fault: str
    paths: tuple[str, ...]
    call: str
    number: int


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The state directory that each scenario starts from."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace to interrupt system calls")
    root = tmp_path_factory.mktemp("bases")
    new, clean, crashed = (root / name for name in ("new", "clean", "crashed"))
    new.mkdir()
    clean.mkdir()
    run_worker(clean, 2)
    shutil.copytree(clean, crashed)
    killed = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(crashed / "ledger.db-wal")]
    run_worker(crashed, 3, (*killed, "-e", "inject=fdatasync:signal=KILL:when=4"))
    if not (crashed / "ledger.db-wal").stat().st_size:
        pytest.skip("strace cannot inject faults here")
    return {"create": new, "append": clean, "recover": crashed, "recover and append": crashed}


def run_worker(folder: Path, appends: int, tracer: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*tracer, sys.executable, str(WORKER), str(folder / "ledger.db"), str(appends)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)


def points(bases: dict[str, Path], folder: Path) -> Iterator[Point]:
    """Count the calls of each scenario once, without a fault."""
    ours = tuple(option for name in FILES for option in ("-P", str(folder / name)))
    for scenario, appends in SCENARIOS.items():
        for paths, calls in ((ours, CALLS), ((), DIRECTORY_CALLS)):
            prepare(bases[scenario], folder)
            log = folder.with_suffix(".trace")
            run_worker(folder, appends, ("strace", "-f", "-qq", "-o", str(log), *paths, "-e", f"trace={calls}"))
            counts = Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))
            for call, count in sorted(counts.items()):
                for fault in ("signal=KILL", "error=EIO"):
                    yield from (Point(scenario, fault, paths, call, n + 1) for n in range(count))


def prepare(base: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)


@cache
def acknowledged(base: Path) -> dict[int, str]:
    """The events that the base directory holds; all were acknowledged or are whole in its log."""
    if not (base / "ledger.db").exists():
        return {}
    copy = base.with_name(base.name + ".read")
    shutil.copytree(base, copy)
    return stored(copy / "ledger.db")


def stored(path: Path) -> dict[int, str]:
    with sqlite3.connect(path) as connection:
        rows = dict(connection.execute("SELECT seq, hash FROM events"))
    connection.close()
    return rows


def interrupt(point: Point, base: Path, folder: Path, catalogue: Any) -> None:
    """Strike once, then demand that nothing is lost and that the next daemon works."""
    prepare(base, folder)
    inject = ("-e", f"trace={point.call}", "-e", f"inject={point.call}:{point.fault}:when={point.number}")
    tracer = ("strace", "-f", "-qq", "-o", "/dev/null", *point.paths, *inject)
    first = run_worker(folder, SCENARIOS[point.scenario], tracer)
    assert "Traceback" not in first.stderr, first.stderr
    expected = acknowledged(base) | acks(first.stdout)
    check(folder, expected, catalogue)
    second = run_worker(folder, 1)
    assert second.stdout.endswith("done\n"), second.stdout + second.stderr
    check(folder, expected | acks(second.stdout), catalogue)


def acks(output: str) -> dict[int, str]:
    return {int(line[1]): line[2] for text in output.splitlines() if (line := text.split())[0] == "ack"}


def check(folder: Path, expected: dict[int, str], catalogue: Any) -> None:
    try:
        report = verify(folder / "ledger.db", catalogue=catalogue)
    except NotFound:
        assert not expected, "the ledger is gone"
        assert not (folder / "ledger.db").exists()
        return
    assert report.ok, report.problems
    rows = stored(folder / "ledger.db")
    lost = {seq for seq, hash_ in expected.items() if rows.get(seq) != hash_}
    assert not lost, f"acknowledged events {sorted(lost)} are lost"


def sweep(chosen: list[Point], bases: dict[str, Path], folder: Path, catalogue: Any) -> None:
    for point in chosen:
        try:
            interrupt(point, bases[point.scenario], folder, catalogue)
        except AssertionError as error:
            raise AssertionError(f"{point._replace(paths=())}: {error}") from error
    by_kind = Counter((point.scenario, point.fault) for point in chosen)
    print(f"{len(chosen)} crash points, nothing lost: {dict(by_kind)}")


class AnyPayload:
    """A catalogue that takes everything, as the worker's does."""

    def validate(self, _: str, payload: Any, /) -> Any:
        return 1, dict(payload)

    def upcast(self, _: str, __: int, payload: dict[str, Any], /) -> dict[str, Any]:
        return payload


def test_some_crash_points_lose_nothing(bases: dict[str, Path], tmp_path: Path) -> None:
    """A sample of the sweep, spread over scenarios, faults and calls."""
    every = list(points(bases, tmp_path / "state"))
    step = len(every) // 350
    sweep(every[step // 2 :: step], bases, tmp_path / "state", AnyPayload())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_crash_point_loses_anything(bases: dict[str, Path], tmp_path: Path) -> None:
    """Every call, both faults, in every scenario."""
    every = list(points(bases, tmp_path / "state"))
    assert len(every) > 500
    sweep(every, bases, tmp_path / "state", AnyPayload())
