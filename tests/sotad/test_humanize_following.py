"""The mirror on disk: it follows a journal on a real ledger, outlives edits and trouble, and harms nobody."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from humanize_rig import folded, simulated
from structlog.testing import capture_logs

from ledger.artifacts import Artifacts
from ledger.events import Draft, Event
from ledger.reader import Reader
from ledger.store import Ledger
from ledger.writer import Writer
from sotad.daemon.journal import Journal
from sotad.humanize import following
from sotad.humanize.following import Mirrors
from sotad.humanize.layout import STATE_FILES
from sotad.humanize.mirror import tree
from sotad.paths import StateDir
from statemachine.evidence import digest
from statemachine.fold import advance
from statemachine.state import Campaign, World

JSON = dict[str, Any]
HALF = 300  # events of the campaign that are there already


class Replayed:
    """A ledger with the first events of a campaign, and a journal that takes the others as the daemon would."""

    def __init__(self, root: Path, events: list[Event], humanize: JSON | None) -> None:
        self.paths, self.events = StateDir(root), [_with(event, humanize) for event in events]
        self.paths.root.mkdir(parents=True, exist_ok=True)
        self.now = 0
        self.ledger = Ledger.open(self.paths.ledger, clock=lambda: self.now)
        self.ledger.claim_epoch()
        self.writer = Writer(self.ledger)
        self.world = World()
        self.journal = Journal(self.ledger, self.writer, self.world, lambda: self.now)
        self.artifacts = Artifacts(self.paths.artifacts)

    @property
    def c(self) -> Campaign:
        return self.world.campaigns["demo"]

    def fill(self, until: int) -> None:
        """Events of before the daemon began."""
        for event in self.events[:until]:
            self.now = event.time_ns
            (written,) = self.ledger.append([_draft(event)])
            advance(self.world, written)

    async def record(self, first: int, last: int) -> None:
        """Events while the daemon runs."""
        for event in self.events[first:last]:
            self.now = event.time_ns
            await self.journal.record("demo", event.type, event.payload, actor=event.actor)

    def expected(self, until: int) -> dict[str, str]:
        """The mirror after so many events."""
        return tree(folded(self.events[:until]), self.events[:until], nothing_kept)


def nothing_kept(digest: str) -> bytes:
    raise FileNotFoundError(digest)


def _draft(event: Event) -> Draft:
    return Draft(campaign="demo", type=event.type, payload=event.payload, actor=event.actor)


def _with(event: Event, humanize: JSON | None) -> Event:
    if event.type != "campaign.created" or humanize is None:
        return event
    spec = {**event.payload["spec"], "humanize": humanize}
    return event._replace(payload={**event.payload, "spec": spec, "spec_digest": digest(spec)})


@asynccontextmanager
async def replayed(root: Path, until: int = HALF, **humanize: Any) -> AsyncIterator[Replayed]:
    found = Replayed(root, simulated("plain"), humanize or None)
    found.fill(until)
    try:
        yield found
    finally:
        found.journal.close()
        await found.writer.close()


def content(root: Path) -> dict[str, str]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def without_artifacts(files: dict[str, str]) -> dict[str, str]:
    """What does not show why an artifact could not be had."""
    return {name: text for name, text in files.items() if not name.endswith("review-prompt.md")}


async def until_true(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come soon."""
    monkeypatch.setattr(following, "POLL_S", 0.05)
    monkeypatch.setattr(following, "SETTLE_S", 0.01)


async def test_it_follows_a_campaign_to_its_end(tmp_path: Path, quick: None) -> None:
    """What is on disk is the projection, while events come and once the campaign is closed; then it is left alone."""
    async with replayed(tmp_path / "state") as found:
        root = found.paths.root / "humanize" / "demo"
        following_task = asyncio.create_task(following.mirror(found.journal, found.paths, found.artifacts))
        await until_true(
            lambda: root.exists() and without_artifacts(content(root)) == without_artifacts(found.expected(HALF))
        )
        await found.record(HALF, len(found.events))
        await until_true(lambda: any(root.rglob("complete-state.md")) and not any(root.rglob("finalize-state.md")))
        following_task.cancel()
        await asyncio.gather(following_task, return_exceptions=True)
        assert without_artifacts(content(root)) == without_artifacts(found.expected(len(found.events)))


async def test_a_daemon_that_stops_leaves_the_last_word(tmp_path: Path) -> None:
    """What was recorded right before it stopped is in the files."""
    async with replayed(tmp_path / "state") as found:
        root = found.paths.root / "humanize" / "demo"
        task = asyncio.create_task(following.mirror(found.journal, found.paths, found.artifacts))
        await until_true(lambda: any(root.rglob("state.md")))
        await found.record(HALF, len(found.events))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert without_artifacts(content(root)) == without_artifacts(found.expected(len(found.events)))


async def test_a_daemon_that_stops_in_the_middle_of_a_look_tells_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look begins when the reading that was under way is over."""
    reading = threading.Event()

    class SlowReader(Reader):
        def events(self, *args: Any, **more: Any) -> Iterator[Event]:
            reading.set()
            time.sleep(0.3)
            return super().events(*args, **more)

    monkeypatch.setattr(following, "Reader", SlowReader)
    async with replayed(tmp_path / "state") as found:
        task = asyncio.create_task(following.mirror(found.journal, found.paths, found.artifacts))
        await until_true(reading.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        root = found.paths.root / "humanize" / "demo"
        assert without_artifacts(content(root)) == without_artifacts(found.expected(HALF))


async def test_an_edit_is_undone_and_a_planted_file_changes_nothing(tmp_path: Path, quick: None) -> None:
    """Edited, deleted, replaced by a link, planted under a name of the layout: as before. Other files stay."""
    async with replayed(tmp_path / "state") as found:
        mirrors = Mirrors(found.journal, found.paths, found.artifacts)
        await mirrors.look()
        root = found.paths.root / "humanize" / "demo"
        before = content(root)
        (folder,) = (root / ".humanize/rlcr").iterdir()
        outside = tmp_path / "outside"
        outside.write_text("keep")
        (folder / "state.md").write_text("current_round: 99")
        (folder / "plan.md").unlink()
        (folder / ".sotad").unlink()
        (folder / "goal-tracker.md").unlink()
        (folder / "goal-tracker.md").symlink_to(outside)
        (folder / "complete-state.md").write_text("planted")
        (folder / "round-7-review-result.md").write_text("Mainline Progress Verdict: ADVANCED\nCOMPLETE\n")
        (folder / ".new-leftover").write_text("half")
        (folder / "notes.txt").write_text("mine")
        await asyncio.sleep(0.06)
        phase, seq = found.c.phase, found.world.seq
        await mirrors.look()
        assert content(root) == {**before, str((folder / "notes.txt").relative_to(root)): "mine"}
        assert outside.read_text() == "keep"
        assert (found.c.phase, found.world.seq) == (phase, seq)


async def test_only_events_that_show_are_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a launch and its runs nothing is projected and no file is looked at."""
    made: list[int] = []
    monkeypatch.setattr(following, "tree", lambda *args: made.append(1) or tree(*args))
    async with replayed(tmp_path / "state", 0) as found:
        launches = [n for n, e in enumerate(found.events) if e.type == "candidate.launched" and n > HALF]
        found.fill(launches[0])
        mirrors = Mirrors(found.journal, found.paths, found.artifacts)
        await mirrors.look()
        monkeypatch.setattr(following, "place_files", lambda *args: pytest.fail("files were looked at"))
        await found.record(launches[0], launches[0] + 3)
        assert found.world.seq == launches[0] + 3
        await mirrors.look()
        assert made == [1]


async def test_a_burst_is_projected_once_and_agrees_with_its_state(tmp_path: Path) -> None:
    """However many events came since the last look."""
    async with replayed(tmp_path / "state", 0) as found:
        mirrors = Mirrors(found.journal, found.paths, found.artifacts)
        await mirrors.look()
        for first in range(0, len(found.events), 97):
            await found.record(first, first + 97)
            await mirrors.look()
        root = found.paths.root / "humanize" / "demo"
        assert without_artifacts(content(root)) == without_artifacts(found.expected(len(found.events)))


async def test_what_happens_during_a_look_is_in_state_and_events_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are those of one moment, however the journal runs ahead of the reading."""
    async with replayed(tmp_path / "state") as found:
        here, read, done = asyncio.get_running_loop(), Mirrors._read, HALF

        def read_late(self: Mirrors, *args: Any) -> None:
            nonlocal done
            read(self, *args)
            if done == HALF:
                done = HALF + 150
                asyncio.run_coroutine_threadsafe(found.record(HALF, done), here).result(20)

        monkeypatch.setattr(Mirrors, "_read", read_late)
        await Mirrors(found.journal, found.paths, found.artifacts).look()
        root = found.paths.root / "humanize" / "demo"
        assert done > HALF
        assert without_artifacts(content(root)) == without_artifacts(found.expected(done))


async def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, quick: None) -> None:
    """One line in the log, and one when it is over; the journal never hears of it."""
    folder = tmp_path / "project"
    folder.write_text("a file in the place of a folder")
    async with replayed(tmp_path / "state", folder=str(folder)) as found:
        mirrors = Mirrors(found.journal, found.paths, found.artifacts)
        with capture_logs() as logs:
            for _ in range(3):
                await mirrors.look()
            await found.record(HALF, HALF + 1)
            folder.unlink()
            await mirrors.look()
        assert [entry["event"] for entry in logs] == ["mirror.failed", "mirror.restored"]
        assert str(folder) in str(logs[0])
        assert any(folder.rglob("state.md"))


async def test_a_full_disk_leaves_whole_files_only(tmp_path: Path, quick: None) -> None:
    """What cannot be written to its end is not put in place; with room again everything is there."""
    async with replayed(tmp_path / "state") as found:
        mirrors = Mirrors(found.journal, found.paths, found.artifacts)
        root = found.paths.root / "humanize" / "demo"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))  # a write beyond fails, as on a full disk
        try:
            with capture_logs() as logs:
                await mirrors.look()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [entry["event"] for entry in logs] == ["mirror.failed"]
        partial, whole = content(root), found.expected(HALF)
        assert 0 < len(partial) < len(whole)
        assert all(whole[name] == text for name, text in without_artifacts(partial).items())
        await asyncio.sleep(0.06)
        await mirrors.look()
        assert without_artifacts(content(root)) == without_artifacts(whole)


async def test_somebody_elses_loop_is_not_touched(tmp_path: Path, quick: None) -> None:
    """A folder of the same second that holds another loop stays as it is."""
    folder = tmp_path / "project"
    async with replayed(tmp_path / "state", folder=str(folder)) as found:
        where = folder / Path(next(iter(found.expected(HALF)))).parent
        where.mkdir(parents=True)
        (where / "state.md").write_text("theirs")
        (where / "round-0-summary.md").write_text("theirs")
        with capture_logs() as logs:
            await Mirrors(found.journal, found.paths, found.artifacts).look()
        assert "another loop" in str(logs)
        assert set(content(where).values()) == {"theirs"}


async def test_a_mirror_can_be_switched_off(tmp_path: Path, quick: None) -> None:
    """``humanize.mirror: false`` in the campaign's spec."""
    async with replayed(tmp_path / "state", mirror=False) as found:
        await Mirrors(found.journal, found.paths, found.artifacts).look()
        assert not (found.paths.root / "humanize").exists()


async def test_a_restart_finds_its_own_folder_and_corrects_it(tmp_path: Path, quick: None) -> None:
    """Closed campaigns too: whatever happened to their files while no daemon ran."""
    async with replayed(tmp_path / "state", 0) as found:
        found.fill(len(found.events))
        await Mirrors(found.journal, found.paths, found.artifacts).look()
        root = found.paths.root / "humanize" / "demo"
        before = content(root)
        (state,) = [path for path in root.rglob("*") if path.name in STATE_FILES]
        state.rename(state.with_name("state.md"))
        os.truncate(next(root.rglob("goal-tracker.md")), 10)
        mirrors = Mirrors(found.journal, found.paths, found.artifacts)
        await mirrors.look()
        assert content(root) == before
        state.unlink()
        await asyncio.sleep(0.06)
        await mirrors.look()
        assert not state.exists()  # it is closed and was told to its end: no more work
