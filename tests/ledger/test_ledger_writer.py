"""Writer: group commit from asyncio; cancelling, filling up, failing and closing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import Conflict, Deposed, InvalidEvent, Unwritable
from ledger.events import Draft
from ledger.keys import Signer
from ledger.store import Ledger
from ledger.verify import verify
from ledger.writer import Writer


def step(n: int, **more: Any) -> Draft:
    return Draft(campaign=f"c{n % 3}", type="step", payload={"n": n}, **more)


class Commits:
    """Counts the transactions of a ledger, and can hold the next one up."""

    def __init__(self, ledger: Ledger) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self._append_group = ledger.append_group
        ledger.append_group = self._counted  # type: ignore[method-assign]

    def _counted(self, requests: Any) -> Any:
        self.sizes.append(len(requests))
        self.entered.set()
        assert self.gate.wait(20)
        return self._append_group(requests)


async def test_appends_that_wait_together_share_one_commit(ledger: Ledger) -> None:
    """64 concurrent appends take one transaction, each gets its own event."""
    commits = Commits(ledger)
    async with Writer(ledger) as writer:
        results = await asyncio.gather(*(writer.append([step(n)]) for n in range(64)))
        assert commits.sizes == [64]
        assert sorted(events[0].seq for events in results) == list(range(1, 65))
        assert [events[0].payload["n"] for events in results] == list(range(64))


async def test_each_append_of_a_group_has_its_own_outcome(ledger: Ledger) -> None:
    """A refusal in the group refuses nobody else."""
    async with Writer(ledger) as writer:
        good, invalid, conflict, also_good = await asyncio.gather(
            writer.append([step(0)]),
            writer.append([step(0), Draft(campaign="x", type="step", payload={})]),
            writer.append([step(0)], expect={"c0": 0}),
            writer.append([step(3), step(6)], expect={"c0": 1}),
            return_exceptions=True,
        )
    assert isinstance(invalid, InvalidEvent) and isinstance(conflict, Conflict)
    assert [e.seq for e in (*good, *also_good)] == [1, 2, 3]


async def test_cancelling_an_append_does_not_touch_the_transaction(ledger: Ledger) -> None:
    """The caller stops waiting; the event is written all the same, and so are its neighbours'."""
    commits = Commits(ledger)
    commits.gate.clear()
    async with Writer(ledger) as writer:
        doomed = asyncio.create_task(writer.append([step(0)]))
        await asyncio.to_thread(commits.entered.wait, 20)
        others = [asyncio.create_task(writer.append([step(n)])) for n in (1, 2)]
        await asyncio.sleep(0)
        others[1].cancel()
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        commits.gate.set()
        assert (await others[0])[0].seq == 2
        assert (await writer.append([step(3)]))[0].seq == 4
    assert verify(ledger.path, catalogue=ledger._catalogue).ok


async def test_a_full_line_makes_callers_wait_not_fail(ledger: Ledger) -> None:
    """With room for two, ten appends all get through, at most two in a group."""
    commits = Commits(ledger)
    async with Writer(ledger, limit=2) as writer:
        results = await asyncio.gather(*(writer.append([step(n)]) for n in range(10)))
    assert len({events[0].seq for events in results}) == 10
    assert max(commits.sizes) == 2


async def test_close_writes_what_waits_and_then_refuses(ledger: Ledger) -> None:
    """Nothing that got into line is lost; whoever comes later is told."""
    writer = Writer(ledger, group=2)
    waiting = [asyncio.create_task(writer.append([step(n)])) for n in range(5)]
    await asyncio.sleep(0)
    await writer.close()
    assert sorted(events[0].seq for events in await asyncio.gather(*waiting)) == [1, 2, 3, 4, 5]
    with pytest.raises(Unwritable, match="closed"):
        await writer.append([step(9)])
    await writer.close()


async def test_a_deposed_writer_refuses_everybody_and_stays_refusing(ledger: Ledger, catalogue: Any) -> None:
    """All who wait are told; the newer daemon is not disturbed."""
    async with Writer(ledger) as writer:
        with Ledger.open(ledger.path, catalogue=catalogue) as newer:
            newer.claim_epoch()
            results = await asyncio.gather(*(writer.append([step(n)]) for n in range(3)), return_exceptions=True)
            assert [type(result) for result in results] == [Deposed] * 3
            assert len({id(result) for result in results}) == 3
            with pytest.raises(Deposed):
                await writer.append([step(1)])
            assert newer.append([step(1)])[0].seq == 1


async def test_checkpoints_and_snapshots_go_between_the_groups(ledger: Ledger, tmp_path: Path) -> None:
    """They run in the writer's thread, on what was written before them."""
    signer = Signer.load_or_create(tmp_path)
    async with Writer(ledger) as writer:
        await writer.append([step(1)])
        signed = await writer.checkpoint(signer)
        await writer.save_snapshot(1, b"state", "machine")
        assert signed is not None and signed.seq == 1
        snapshot = ledger.load_snapshot("machine")
        assert snapshot is not None and snapshot.state == b"state"


async def test_a_bug_in_the_store_reaches_the_callers_and_the_writer_goes_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen error is not swallowed and does not end the thread."""

    def broken(_: Any) -> Any:
        raise ZeroDivisionError

    async with Writer(ledger) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "append_group", broken)
            with pytest.raises(ZeroDivisionError):
                await writer.append([step(1)])
        assert (await writer.append([step(1)]))[0].seq == 1


KILLED = """
import asyncio, os, sys
from ledger.events import Draft
from ledger.store import Ledger
from ledger.writer import Writer

class Any_:
    def validate(self, type_, payload): return 1, dict(payload)
    def upcast(self, type_, version, payload): return payload

async def main():
    ledger = Ledger.open(sys.argv[1], catalogue=Any_())
    ledger.claim_epoch()
    writer = Writer(ledger)
    async def appender(i):
        for n in range(1000):
            event, = await writer.append([Draft(campaign=str(i), type="step", payload={"n": n})])
            os.write(1, b"%d %s\\n" % (event.seq, event.hash.encode()))
    await asyncio.gather(*(appender(i) for i in range(16)))
asyncio.run(main())
"""


def test_a_killed_daemon_loses_nothing_that_a_group_commit_acknowledged(tmp_path: Path, catalogue: Any) -> None:
    """SIGKILL in the middle of concurrent appends: every acknowledged event is there, with its hash."""
    path = tmp_path / "ledger.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None
    acknowledged = [process.stdout.readline() for _ in range(200)]
    process.kill()
    acknowledged += [line for line in process.stdout.read().splitlines() if len(line) > 65]
    process.wait(10)
    process.stdout.close()
    with sqlite3.connect(path) as connection:
        stored = dict(connection.execute("SELECT seq, hash FROM events"))
    connection.close()
    assert len(acknowledged) >= 200
    assert all(stored[int(seq)] == hash_ for seq, hash_ in (line.split() for line in acknowledged))
    assert verify(path, catalogue=catalogue).ok
