"""Snapshots make a start cost the tail, and can never change a result."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import Corrupt
from ledger.events import Draft, Event
from ledger.replay import Anchor, replay
from ledger.snapshots import Snapshot
from ledger.store import Ledger


def fold(total: int, events: Iterable[Event]) -> int:
    for event in events:
        total = (total * 31 + event.payload["n"] + event.campaign_seq) % (1 << 61)
    return total


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    ledger.append([Draft(campaign=f"c{n % 3}", type="step", payload={"n": n}) for n in range(40)])
    return ledger


@pytest.mark.parametrize("at", [1, 2, 20, 40])
def test_a_start_from_a_snapshot_ends_where_a_full_replay_ends(filled: Ledger, catalogue: Any, at: int) -> None:
    """snapshot + tail == everything, wherever the snapshot was taken."""
    state = fold(0, filled.events(until=at))
    filled.save_snapshot(at, str(state).encode(), "m")
    snapshot = filled.load_snapshot("m")
    assert snapshot is not None and snapshot.anchor.seq == at
    tail = list(replay(filled.path, snapshot.anchor, catalogue))
    assert len(tail) == 40 - at
    assert fold(int(snapshot.state), tail) == fold(0, replay(filled.path, catalogue=catalogue))


def test_a_snapshot_belongs_to_one_machine_and_the_last_one_counts(filled: Ledger) -> None:
    """Another declaration of the state machine replays everything."""
    filled.save_snapshot(10, b"old", "m")
    filled.save_snapshot(20, b"new", "m")
    snapshot = filled.load_snapshot("m")
    assert isinstance(snapshot, Snapshot) and (snapshot.anchor.seq, snapshot.state) == (20, b"new")
    assert filled.load_snapshot("other machine") is None


def test_a_snapshot_of_an_event_that_is_not_there_is_refused(filled: Ledger) -> None:
    """The anchor must exist; the earlier snapshot stays."""
    filled.save_snapshot(10, b"old", "m")
    with pytest.raises(ValueError, match="no event 41"):
        filled.save_snapshot(41, b"", "m")
    snapshot = filled.load_snapshot("m")
    assert snapshot is not None and snapshot.anchor.seq == 10


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE snapshots SET state = x'00'",
        "UPDATE snapshots SET seq = seq + 1",
        "UPDATE snapshots SET hash = replace(hash, 'a', 'b')",
        "UPDATE snapshots SET machine = 'n'",
        "UPDATE events SET actor = 'x' WHERE seq = 20",
        "DELETE FROM events WHERE seq = 20",
        "DELETE FROM events WHERE seq = 19",
        "DELETE FROM snapshots",
    ],
)
def test_a_snapshot_that_does_not_fit_is_thrown_away(filled: Ledger, change: str) -> None:
    """An altered snapshot, or one whose event was altered, counts as none."""
    filled.save_snapshot(20, b"state", "m")
    with sqlite3.connect(filled.path) as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("DROP TRIGGER events_no_delete")
        connection.execute(change)
    connection.close()
    assert filled.load_snapshot("m") is None
    assert filled.load_snapshot("n") is None


@pytest.mark.parametrize("change", ["UPDATE events SET epoch = 2 WHERE seq = 30", "DELETE FROM events WHERE seq = 30"])
def test_replay_stops_at_the_first_break(filled: Ledger, catalogue: Any, change: str) -> None:
    """Nothing of a broken row is yielded; everything before it is."""
    with sqlite3.connect(filled.path) as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("DROP TRIGGER events_no_delete")
        connection.execute(change)
    connection.close()
    seen = []
    with pytest.raises(Corrupt, match="chain breaks at event 30"):
        seen.extend(event.seq for event in replay(filled.path, catalogue=catalogue))
    with pytest.raises(Corrupt, match="chain breaks at event 11"):
        next(replay(filled.path, Anchor(10, "0" * 64), catalogue))


def test_replay_sees_a_growing_ledger_as_it_was(filled: Ledger, catalogue: Any) -> None:
    """A replay that began before an append is not disturbed by it."""
    events = replay(filled.path, catalogue=catalogue)
    next(events)
    filled.append([Draft(campaign="z", type="step", payload={"n": 0})])
    assert [event.seq for event in events] == list(range(2, 41))


def test_replay_of_a_damaged_page_says_so(tmp_path: Path, filled: Ledger, catalogue: Any) -> None:
    """A file that SQLite cannot read is a Corrupt, not a crash."""
    path = filled.path
    filled.close()
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        list(replay(path, catalogue=catalogue))
