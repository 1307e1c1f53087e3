"""The journal and the loop where two things happen at once: the state is the ledger, and no word is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ledger.artifacts import Artifacts
from ledger.errors import Deposed
from ledger.store import Ledger
from ledger.writer import Writer
from sotad.activities.context import Context
from sotad.config import parse_campaign
from sotad.daemon.driver import Driver
from sotad.daemon.hosts import Hosts
from sotad.daemon.journal import Journal, to_the_end
from sotad.hosts.base import RunSpec, allowed_environment
from sotad.hosts.local import LocalHost
from statemachine.evidence import digest
from statemachine.machine import IllegalEvent
from statemachine.state import World

HOST = {"host": "local", "gpu_ids": []}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """A journal on a ledger of its own."""
    ledger = Ledger.open(tmp_path / "ledger.db")
    ledger.claim_epoch()
    writer = Writer(ledger)
    found = Journal(ledger, writer, World())
    yield found
    found.close()
    await writer.close()


async def create(journal: Journal, name: str, example: str, **budget: float) -> None:
    """A campaign in intake that is asking for the host."""
    spec = parse_campaign(example, "test.yaml", Path("/"))
    spec["budget"] |= budget
    await journal.record(name, "campaign.created", {"spec": spec, "spec_digest": digest(spec), "source": "test"})
    job = {"job": "lease/0", "activity": "lease", "attempt": 1, "params": {}, "deadline_ns": 2**62}
    await journal.record(name, "job.dispatched", job)


async def test_two_campaigns_that_ask_at_once_do_not_both_get_the_host(journal: Journal, example: str) -> None:
    """One lease is granted, the other refused: the second is judged on a state that knows the first."""
    await create(journal, "a", example)
    await create(journal, "b", example)
    asked = [journal.record(name, "lease.granted", HOST) for name in ("a", "b")]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(isinstance(each, IllegalEvent) for each in found) == [False, True]


async def test_a_conclusion_that_an_operator_overtakes_is_dropped(
    journal: Journal, example: str, tmp_path: Path
) -> None:
    """Cancelled while the loop is about to write that the budget is used up: no error, one step only."""
    await create(journal, "a", example, wall_clock_s=0.000001)
    c = journal.world.campaigns["a"]
    driver = Driver(journal, Hosts(LocalHost(tmp_path / "runs")), Artifacts(tmp_path / "artifacts"), tmp_path)
    by = {"by": "operator:test", "confirmed": False}
    cancelling = asyncio.create_task(journal.record("a", "campaign.cancel_requested", by))
    await asyncio.sleep(0)  # it is on its way to the ledger
    await driver._time_limits(c)
    await cancelling
    assert (c.phase, c.stop["condition"]) == ("stopping", "cancelled")


async def test_a_cancel_that_meets_a_change_is_not_lost(journal: Journal) -> None:
    """Who waits for a change and is cancelled at the very moment of one, is cancelled."""
    waiting = asyncio.create_task(journal.changed(0, 30.0))
    await asyncio.sleep(0)
    journal.wake()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_event_under_way_is_folded_before_a_cancel_takes_effect(journal: Journal, example: str) -> None:
    """When the cancelled caller is gone, its event is in the ledger and in the state."""
    await create(journal, "a", example)
    recording = asyncio.create_task(journal.record("a", "lease.granted", HOST))
    await asyncio.sleep(0)
    for _ in range(3):
        recording.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await recording
    assert journal.world.campaigns["a"].lease == HOST


async def test_a_process_under_way_is_there_when_a_cancel_takes_effect(journal: Journal, tmp_path: Path) -> None:
    """A start that is cancelled half-way leaves a run that whoever ends the attempt can see and end."""
    host = LocalHost(tmp_path / "runs")
    context = Context("a", "job", 1, {}, 0, journal, host, Artifacts(tmp_path / "artifacts"), tmp_path)
    spec = RunSpec(argv=("sleep", "60"), cwd="/", env=allowed_environment(), timeout_s=60)
    starting = asyncio.create_task(context.start("sleeper", spec))
    while not (tmp_path / "runs").exists():  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    try:
        assert await host.list_runs("a/job/1/") == ["a/job/1/sleeper"]
        assert (await host.status("a/job/1/sleeper")).phase == "running"
    finally:
        assert (await host.stop("a/job/1/sleeper")).reason == "stopped"


async def test_a_journal_that_cannot_write_says_so_to_everybody(journal: Journal, example: str) -> None:
    """The first writer gets the error; the loop finds it as the journal's failure."""
    await create(journal, "a", example)
    with Ledger.open(journal._ledger.path) as usurper:
        usurper.claim_epoch()
    with pytest.raises(Deposed):
        await journal.record("a", "lease.granted", HOST)
    assert isinstance(journal.failure, Deposed)


async def test_what_is_brought_to_its_end_keeps_its_error() -> None:
    """Without a cancel the outcome comes through, good or bad."""
    assert await to_the_end(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(IllegalEvent):
        await to_the_end(fail())


async def fail() -> None:
    raise IllegalEvent("a", "intake", "x", "y", "z")
