"""Appending: durable, gapless, all or nothing, refused with a reason."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import GENESIS
from ledger.errors import Conflict, Deposed, InvalidEvent, KeyReused, LedgerError
from ledger.events import Draft
from ledger.store import Ledger


def step(n: int = 0, **more: Any) -> Draft:
    return Draft(**{"campaign": "c", "type": "step", "payload": {"n": n}, **more})


def test_numbers_are_gapless_over_the_ledger_and_per_campaign(ledger: Ledger) -> None:
    """seq counts over all, campaign_seq within each campaign, both from 1."""
    events = ledger.append([step(campaign=c) for c in "aabba"])
    assert [(e.seq, e.campaign_seq) for e in events] == [(1, 1), (2, 2), (3, 1), (4, 2), (5, 3)]


def test_what_append_returns_is_what_a_reader_reads(ledger: Ledger) -> None:
    """The events returned equal the events read back, to the last value."""
    written = ledger.append([step(1, payload={"n": 1, "pair": (1, 2), "f": 0.1, "nothing": None}), step(2, cause=None)])
    assert list(ledger.events()) == written
    assert written[0].payload["pair"] == [1, 2]


def test_anyone_can_recompute_the_hash_with_the_standard_library(ledger: Ledger) -> None:
    """The canonical bytes are plain JSON as json.dumps writes it."""
    event = ledger.append([step(1, payload={"n": 1, "b": 'q"ü\\', "a": 2}, key='k"ü\\', cause=None)])[0]
    compact: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
    text = json.dumps([GENESIS, list(event[:10])], **compact) + json.dumps(event.payload, sort_keys=True, **compact)
    assert hashlib.sha256(text.encode()).hexdigest() == event.hash


@pytest.mark.parametrize("verb", ["UPDATE events SET type = 'x'", "DELETE FROM events", "DELETE FROM checkpoints"])
def test_the_file_itself_refuses_to_change_what_was_written(closed: Path, verb: str) -> None:
    """Triggers refuse UPDATE and DELETE from any connection."""
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        sqlite3.connect(closed).execute(verb)


def test_expect_refuses_a_caller_who_has_not_seen_the_last_event(ledger: Ledger) -> None:
    """Optimistic concurrency: the last campaign_seq that the caller has seen must be the last there is."""
    ledger.append([step()], expect={"c": 0})
    with pytest.raises(Conflict, match="is at 1, the caller has seen 0"):
        ledger.append([step()], expect={"c": 0})
    assert ledger.append([step()], expect={"c": 1})[0].campaign_seq == 2


def test_the_same_key_and_content_is_answered_with_the_first_event(ledger: Ledger) -> None:
    """A retry writes nothing, also when the campaign has moved on since."""
    first = ledger.append([step(1, key="k")], expect={"c": 0})
    ledger.append([step(2)])
    assert ledger.append([step(1, key="k")], expect={"c": 0}) == first
    assert ledger.head()[0] == 2
    assert ledger.by_key("k") == first[0]


@pytest.mark.parametrize("change", [{"payload": {"n": 2}}, {"campaign": "d"}, {"actor": "operator:1"}, {"cause": 1}])
def test_the_same_key_with_other_content_is_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    """A key names one content for ever."""
    ledger.append([step(1, key="k")])
    with pytest.raises(KeyReused, match="event 1"):
        ledger.append([step(**{"n": 1, "key": "k", **change})])
    assert ledger.head()[0] == 1


def test_one_key_within_one_group_is_written_once(ledger: Ledger) -> None:
    """Two requests of a group with one key make one event; within one request it is a mistake."""
    group = ledger.append_group([ledger.prepare([step(n, key="k")]) for n in (1, 1, 2)])
    assert group[0] == group[1]
    assert isinstance(group[2], KeyReused)
    with pytest.raises(InvalidEvent, match="'p' stands twice"):
        ledger.append([step(4, key="p"), step(4, key="p")])
    assert ledger.head()[0] == 1


def test_a_request_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    """One refused draft refuses its request, and no other request of the group."""
    requests = ([step(1)], [step(2), step(4, cause=99)], [step(3)])
    outcomes = ledger.append_group([ledger.prepare(drafts) for drafts in requests])
    assert isinstance(outcomes[1], InvalidEvent)
    assert [event.payload["n"] for event in ledger.events()] == [1, 3]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"n": math.nan}, r"payload\.n: nan is not a JSON number"),
        ({"n": 0, "a": [{"b": -math.inf}]}, r"payload\.a\[0\]\.b: -inf"),
        ({"n": 1 << 64}, "64-bit"),
        ({"n": {1: 2}}, "str"),
        ({"n": b"bytes"}, "not JSON serializable"),
        ({"n": "\ud800"}, "UTF-8|surrogates"),
        ({"n": "x" * (1 << 20)}, "limit is 1048576"),
        ({}, "n: missing"),
    ],
)
def test_a_payload_that_json_cannot_hold_exactly_is_refused(
    ledger: Ledger, payload: dict[str, Any], message: str
) -> None:
    """Nothing is stored as something else than it was."""
    with pytest.raises(InvalidEvent, match=message):
        ledger.append([step(payload=payload)])
    assert ledger.head() == (0, GENESIS)


@pytest.mark.parametrize(
    "change",
    [
        {"campaign": "a\nb"},
        {"key": "\x00"},
        {"actor": "\ud800"},
        {"type": "nope"},
        {"type": 3},
        {"cause": 1},
        {"cause": True},
    ],
)
def test_a_column_that_cannot_be_hashed_unambiguously_is_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    """Control characters, broken Unicode, unknown types and causes that do not exist never get in."""
    with pytest.raises(InvalidEvent):
        ledger.append([step(**change)])


def test_secrets_are_gone_before_the_hash(tmp_path: Path, catalogue: Any) -> None:
    """redact runs first: neither the file nor the log beside it ever holds the secret."""

    def redact(payload: Any) -> Any:
        return {**payload, "token": "[redacted]"}

    with Ledger.open(tmp_path / "ledger.db", catalogue=catalogue, redact=redact) as ledger:
        ledger.claim_epoch()
        event = ledger.append([step(payload={"n": 1, "token": "hunter2-secret"})])[0]
        assert event.payload["token"] == "[redacted]"
        assert not any(b"hunter2" in file.read_bytes() for file in tmp_path.iterdir())


def test_a_deposed_daemon_can_no_longer_append(tmp_path: Path, catalogue: Any, ledger: Ledger) -> None:
    """Claiming an epoch fences every earlier claimant: append, checkpoint and snapshot."""
    ledger.append([step(1)])
    with Ledger.open(tmp_path / "ledger.db", catalogue=catalogue) as newer:
        with pytest.raises(Deposed, match="claim an epoch"):
            newer.append([step(2)])
        assert newer.claim_epoch() == 2
        newer.append([step(2)])
        with pytest.raises(Deposed, match="epoch 1 was deposed by epoch 2"):
            ledger.append([step(3)])
        with pytest.raises(Deposed):
            ledger.save_snapshot(1, b"", "m")
        assert newer.append([step(4)])[0].seq == 3


def test_many_rows_are_one_transaction(tmp_path: Path, catalogue: Any, ledger: Ledger) -> None:
    """200 drafts, more than one statement holds, are there whole; none of them from a deposed daemon."""
    many = [step(n) for n in range(200)]
    assert ledger.append(many) == list(ledger.events())
    with Ledger.open(tmp_path / "ledger.db", catalogue=catalogue) as newer:
        newer.claim_epoch()
        with pytest.raises(Deposed):
            ledger.append(many)
        assert newer.append([step(1)])[0].seq == 201


def test_a_failure_after_the_first_of_many_rows_leaves_none(ledger: Ledger) -> None:
    """When a later statement of the transaction fails, the earlier ones are undone and the next append works."""
    ledger._connect().execute(
        "CREATE TEMP TRIGGER broken BEFORE INSERT ON events WHEN new.seq > 150 BEGIN SELECT RAISE(ABORT, 'x'); END"
    )
    with pytest.raises(LedgerError):
        ledger.append([step(n) for n in range(200)])
    assert ledger.head()[0] == 0
    assert ledger.append([step(1)])[0].seq == 1


def test_two_writers_taking_turns_keep_one_chain(tmp_path: Path, catalogue: Any) -> None:
    """Each claim starts from what the other wrote."""
    path = tmp_path / "ledger.db"
    with Ledger.open(path, catalogue=catalogue) as one, Ledger.open(path, catalogue=catalogue) as two:
        for n in range(6):
            writer = (one, two)[n % 2]
            writer.claim_epoch()
            assert writer.append([step(n)])[0].campaign_seq == n + 1


def test_old_payloads_are_upcast_on_every_way_out(ledger: Ledger) -> None:
    """A stored version 1 is read in its current shape; the stored bytes stay."""
    ledger.append([step(type="old", payload={}, key="k")])
    assert next(ledger.events()).payload == {"upcast": True}
    found = ledger.by_key("k")
    assert found is not None and found.payload == {"upcast": True} and found.version == 1


def test_events_can_be_cut_by_number_campaign_and_count(ledger: Ledger) -> None:
    """after is exclusive, until inclusive."""
    ledger.append([step(n, campaign="ab"[n % 2]) for n in range(10)])
    assert [e.seq for e in ledger.events(2, 5)] == [3, 4, 5]
    assert [e.seq for e in ledger.events(campaign="b", limit=2)] == [2, 4]
