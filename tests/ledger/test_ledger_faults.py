"""A bad disk, a bad directory, a bad file: one clear message each, and nothing lost."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import Corrupt, LedgerError, NotALedger, NotFound, Unwritable, WrongSchema
from ledger.events import Draft
from ledger.export import export_lines
from ledger.reader import Reader
from ledger.replay import replay
from ledger.schema import sqlite_build
from ledger.store import Ledger
from ledger.verify import verify
from ledger.writer import Writer


def step(n: int, size: int = 0) -> Draft:
    return Draft(campaign="c", type="step", payload={"n": n, "text": "x" * size}, key=f"k{n}")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond the limit: the kernel refuses as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KB, or a skip where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_loses_nothing_and_appends_work_again_when_it_is_not(small_disk: Path, catalogue: Any) -> None:
    """Unwritable, saying that the disk is full; every acknowledged event stays; freed space is enough to go on."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)
    with Ledger.open(small_disk / "ledger.db", catalogue=catalogue) as ledger:
        ledger.claim_epoch()
        acknowledged = 0
        with pytest.raises(Unwritable, match="disk is full; free space"):
            for n in range(1000):
                ledger.append([step(n, 4000)])
                acknowledged += 1
        assert acknowledged > 5
        with pytest.raises(Unwritable):
            ledger.append([step(acknowledged, 4000)])
        assert verify(ledger.path, catalogue=catalogue).events == acknowledged
        ballast.unlink()
        assert ledger.append([step(acknowledged, 10)])[0].seq == acknowledged + 1
    assert verify(small_disk / "ledger.db", catalogue=catalogue).ok


def test_a_file_that_may_not_grow_loses_nothing(tmp_path: Path, catalogue: Any) -> None:
    """The same without the right to mount: the kernel refuses to extend the log."""
    with Ledger.open(tmp_path / "ledger.db", catalogue=catalogue) as ledger:
        ledger.claim_epoch()
        ledger.append([step(0)])
        with file_size_limit(300_000), pytest.raises(Unwritable, match="nothing that was acknowledged is lost"):
            ledger.append([step(1, 900_000)])
        events = ledger.append([step(1, 900_000), step(2)])
        assert [event.seq for event in events] == [2, 3]
    assert verify(tmp_path / "ledger.db", catalogue=catalogue).ok


async def test_everybody_in_a_failed_group_is_told_and_the_next_group_works(tmp_path: Path, catalogue: Any) -> None:
    """One failed commit: all who waited get Unwritable, nothing of any is there, retrying under the keys works."""
    ledger = Ledger.open(tmp_path / "ledger.db", catalogue=catalogue)
    ledger.claim_epoch()
    async with Writer(ledger) as writer:
        with file_size_limit(300_000):
            outcomes = await asyncio.gather(
                *(writer.append([step(n, 200_000)]) for n in range(4)), return_exceptions=True
            )
        assert [type(outcome) for outcome in outcomes] == [Unwritable] * 4
        assert ledger.head()[0] == 0
        retried = await asyncio.gather(*(writer.append([step(n, 200_000)]) for n in range(4)))
        assert [events[0].seq for events in retried] == [1, 2, 3, 4]


@pytest.fixture
def read_only_copy(closed: Path, tmp_path: Path) -> Iterator[Path]:
    """The closed ledger in a file system mounted read-only, or a skip."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    bind = subprocess.run(["mount", "--bind", tmp_path, folder], capture_output=True, check=False)
    if bind.returncode:
        pytest.skip("needs the right to mount")
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    yield folder / "ledger.db"
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_directory_can_be_verified_but_not_written(read_only_copy: Path, catalogue: Any) -> None:
    """Writing is refused with what to do; reading needs no shared memory file."""
    with pytest.raises(Unwritable, match=str(read_only_copy.parent)):
        Ledger.open(read_only_copy, catalogue=catalogue)
    assert verify(read_only_copy, catalogue=catalogue).ok


def test_a_read_only_directory_with_an_unfinished_log_can_be_verified(
    ledger: Ledger, tmp_path: Path, catalogue: Any
) -> None:
    """What a killed daemon left in its log counts, although nothing beside it may be written."""
    ledger.append([step(1), step(2)])
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        (frozen / name).write_bytes((tmp_path / name).read_bytes())
    mount = subprocess.run(["mount", "--bind", frozen, frozen], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", frozen], check=True)
        assert verify(frozen / "ledger.db", catalogue=catalogue).events == 2
    finally:
        subprocess.run(["umount", "-l", frozen], check=True)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()


def newer_layout(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


BAD_FILES: dict[str, tuple[Any, type[LedgerError], str]] = {
    "text": (lambda path: path.write_bytes(b"hello, this is no database\n" * 100), NotALedger, "not a ledger"),
    "other database": (lambda path: (path.unlink(), foreign(path)), NotALedger, "not a ledger"),
    "a few bytes": (lambda path: path.write_bytes(path.read_bytes()[:50]), LedgerError, "not a ledger|damaged"),
    "nothing": (lambda path: path.write_bytes(b""), NotALedger, "not a ledger"),
    "newer layout": (newer_layout, WrongSchema, "layout 99, this release reads layout 1"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(closed: Path, catalogue: Any, name: str) -> None:
    """Every way in says the same, and not a byte of the file changes."""
    spoil, error, message = BAD_FILES[name]
    spoil(closed)
    before = closed.read_bytes()
    for way_in in (
        lambda: Ledger.open(closed, catalogue=catalogue),
        lambda: Reader(closed),
        lambda: list(replay(closed, catalogue=catalogue)),
        lambda: list(export_lines(closed)),
        lambda: verify(closed, catalogue=catalogue),
    ):
        with pytest.raises(error, match=message) as caught:
            way_in()
        assert str(closed) in str(caught.value)
    assert closed.read_bytes() == before


@pytest.mark.parametrize("size", [4096, 8192, 5 * 4096, 5 * 4096 + 100])
def test_a_truncated_ledger_is_reported_and_left_alone(closed: Path, catalogue: Any, size: int) -> None:
    """verify lists what is lost, all others say Corrupt; nobody repairs in silence."""
    closed.write_bytes(closed.read_bytes()[:size])
    report = verify(closed, catalogue=catalogue)
    assert "unreadable" in {problem.kind for problem in report.problems}
    with pytest.raises(Corrupt, match=r"keep the file|chain breaks"):
        list(replay(closed, catalogue=catalogue))
    with pytest.raises(Corrupt, match="keep the file"):
        Ledger.open(closed, catalogue=catalogue)
    assert closed.stat().st_size == size


def test_a_missing_file_is_not_created_by_reading(tmp_path: Path) -> None:
    """Reading needs a ledger; only writing makes one."""
    with pytest.raises(NotFound, match="no such ledger"):
        Reader(tmp_path / "ledger.db")
    assert not list(tmp_path.iterdir())


def test_a_missing_directory_is_said(tmp_path: Path, catalogue: Any) -> None:
    """The message names the path."""
    with pytest.raises(Unwritable, match="nowhere"):
        Ledger.open(tmp_path / "nowhere" / "ledger.db", catalogue=catalogue)


def test_somebody_who_holds_the_file_is_waited_for_then_named(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, catalogue: Any
) -> None:
    """A process that writes without end does not hang the daemon for ever."""
    monkeypatch.setattr("ledger.store.BUSY_SECONDS", 0.1)
    impatient = Ledger.open(ledger.path, catalogue=catalogue)
    with ledger._turn, pytest.raises(Unwritable, match="another process has been writing"):
        impatient.claim_epoch()
    impatient.close()


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 54, 1), False),
    ],
)
def test_the_builds_with_the_wal_reset_bug_are_known(version: tuple[int, ...], affected: bool) -> None:
    """3.7.0 to 3.51.2, without the two repaired branches."""
    assert sqlite_build(version).affected is affected


def test_importing_the_package_loads_the_standard_library_only() -> None:
    """The state machine imports ledger.events: that must not cost a second."""
    code = (
        "import sys, ledger, ledger.events, ledger.errors;"
        "print([m for m in ('orjson', 'pydantic', 'cryptography', 'sqlite3') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
