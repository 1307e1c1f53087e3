"""The ledgers as files: written whole before the checkpoint that says so, and equal to what the events say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ledger.artifacts import Artifacts
from ledger.events import Draft
from ledger.reader import Reader
from ledger.store import Ledger
from ledger.writer import Writer
from sotad.activities.context import Context
from sotad.activities.record import CHECKPOINT, checkpoint, write_files
from sotad.daemon.journal import Journal
from sotad.hosts.local import LocalHost
from sotad.report.facts import Facts
from sotad.report.ledgers import ledger_files
from statemachine.fold import fold
from statemachine.state import World

sys.path.insert(0, str(Path(__file__).parent.parent / "statemachine"))
from script import SPEC, spec_with
from simulation import Simulation

JSON = dict[str, Any]


def git(repo: Path, *argv: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", "-C", str(repo), *who, *argv], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def checkout(folder: Path, *versions: str) -> Path:
    """A repository in which each of the simulation's versions is a commit."""
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    for name in versions:
        git(folder, "commit", "--quiet", "--allow-empty", "-m", name)
        git(folder, "tag", name)
    return folder


@pytest.fixture
async def recording(tmp_path: Path) -> AsyncIterator[Context]:
    """The checkpoint's activity of a campaign whose first patch was accepted, on a real ledger and repository."""
    repo = checkout(tmp_path / "target", "ours-0", "patch-1")
    ours = {**SPEC["frameworks"]["ours"], "checkout": str(repo)}
    sim = Simulation({}, spec=spec_with(frameworks={"ours": ours}))
    sim.run(until=lambda s: any(j.activity == "checkpoint" and j.status == "running" for j in s.c.jobs.values()))
    ledger = Ledger.open(tmp_path / "ledger.db")
    ledger.claim_epoch()
    for event in sim.events:
        ledger.append([Draft(campaign=event.campaign, type=event.type, payload=event.payload, actor=event.actor)])
    writer = Writer(ledger)
    journal = Journal(ledger, writer, fold(World(), sim.events))
    job = next(job for job in sim.c.jobs.values() if job.status == "running")
    known = (sim.name, job.job, job.attempt, job.params, job.deadline_ns)
    yield Context(*known, journal, LocalHost(tmp_path / "runs"), Artifacts(tmp_path / "artifacts"), tmp_path)
    journal.close()
    await writer.close()


def written(ctx: Context) -> dict[str, bytes]:
    root = ctx.state_dir / "ledgers" / ctx.campaign
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def checkpoints(ctx: Context) -> list[JSON]:
    with Reader(ctx.state_dir / "ledger.db") as reader:
        return [event.payload for event in reader.events() if event.type == "checkpoint.written"]


async def test_a_checkpoint_writes_every_ledger_as_the_events_say_it(recording: Context) -> None:
    """The files are the projections of the ledger; the checkpoint is the artifact that the event names."""
    with Reader(recording.state_dir / "ledger.db") as reader:
        expected = ledger_files(Facts(recording.c, list(reader.events()), recording.artifacts.read))
    assert await checkpoint(recording) == "patch-1"
    files = written(recording)
    assert files.keys() == {*expected, CHECKPOINT}
    assert {name: files[name] for name in expected} == expected
    (event,) = checkpoints(recording)
    assert recording.artifacts.read(event["document"]["sha256"]) == files[CHECKPOINT]
    assert json.loads(files[CHECKPOINT])["commit"] == event["commit"] == "patch-1"
    assert [json.loads(line)["verdict"] for line in files["attempt-ledger.jsonl"].splitlines()] == ["accepted"]


async def test_the_campaign_branch_is_at_the_champion(recording: Context) -> None:
    """It is what a person, or another machine, checks out."""
    await checkpoint(recording)
    repo = Path(recording.spec["frameworks"]["ours"]["checkout"])
    assert git(repo, "rev-parse", recording.c.branch) == git(repo, "rev-parse", "patch-1")


async def test_no_checkpoint_is_on_record_without_its_files(
    recording: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full refuses the files, and with them the event; the next try writes both, once."""
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            await checkpoint(recording)
    assert checkpoints(recording) == []
    await checkpoint(recording)
    await checkpoint(recording)
    assert len(checkpoints(recording)) == 1
    assert not [name for name in written(recording) if name.endswith(".new")]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a ledger sees the old or the new, never a part."""
    write_files(tmp_path, {"a/b.md": b"old"})
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            write_files(tmp_path, {"a/b.md": b"new"})
    assert (tmp_path / "a" / "b.md").read_bytes() == b"old"
    write_files(tmp_path, {"a/b.md": b"new"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {"b.md": b"new"}
