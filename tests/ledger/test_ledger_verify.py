"""verify: every attack is found, and named by number and kind."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.artifacts import Artifacts
from ledger.errors import NotALedger, NotFound
from ledger.events import Draft, Event
from ledger.export import export
from ledger.keys import PublicKey, Signer
from ledger.store import Ledger
from ledger.verify import Report, verify

COLUMN_CHANGES = {
    "campaign": "'c' || campaign",
    "campaign_seq": "campaign_seq + 100",
    "time_ns": "time_ns + 1",
    "epoch": "epoch + 1",
    "type": "'old'",
    "version": "version + 1",
    "actor": "actor || '0'",
    "cause": "CASE WHEN cause IS NULL THEN 1 END",
    "key": "CASE WHEN key IS NULL THEN 'k' END",
    "payload": "replace(payload, 'load', 'Load')",
    "hash": "replace(replace(hash, 'a', 'b'), '1', '2')",
}


@pytest.fixture
def check(catalogue: Any) -> Callable[..., Report]:
    def run(path: Path, **options: Any) -> Report:
        return verify(path, catalogue=catalogue, **options)

    return run


def found(report: Report) -> list[tuple[int | None, str]]:
    return [(problem.seq, problem.kind) for problem in report.problems]


def test_a_sound_ledger_is_fine_and_anchored_to_its_last_checkpoint(closed: Path, check: Any) -> None:
    """ok, no problems, and the range that a signature covers."""
    said = check(closed).as_json()
    assert (said["ok"], said["events"], said["anchored_to"], said["problems"]) == (True, 12, 12, [])
    assert not said["notes"]


@pytest.mark.parametrize("seq", [1, 6, 11, 12])
@pytest.mark.parametrize("column", COLUMN_CHANGES)
def test_a_change_in_any_column_of_any_row_is_named(
    attacker: Any, closed: Path, check: Any, column: str, seq: int
) -> None:
    """changed, at the row, and nowhere else."""
    attacker.sql(f"UPDATE events SET {column} = {COLUMN_CHANGES[column]} WHERE seq = {seq}")
    expected = [(seq, "changed")]
    if column == "hash" and seq in (8, 12):
        expected.insert(0, (seq, "forged"))
    if column == "epoch":
        expected.insert(0, (None, "schema"))
    assert found(check(closed)) == expected


def test_every_change_of_many_is_named(attacker: Any, closed: Path, check: Any) -> None:
    """One bad row does not hide the next, not even its neighbour."""
    attacker.sql("UPDATE events SET actor = 'x' WHERE seq IN (2, 5, 6, 11)")
    assert found(check(closed)) == [(2, "changed"), (5, "changed"), (6, "changed"), (11, "changed")]


@pytest.mark.parametrize("seq", [1, 5, 11])
def test_a_deleted_row_is_named(attacker: Any, closed: Path, check: Any, seq: int) -> None:
    """deleted, at the missing number."""
    attacker.sql(f"DELETE FROM events WHERE seq = {seq}")
    assert found(check(closed)) == [(seq, "deleted")]


def test_a_deleted_range_and_a_later_change_are_both_named(attacker: Any, closed: Path, check: Any) -> None:
    """A gap is one problem; what comes after it is still checked."""
    attacker.sql("DELETE FROM events WHERE seq BETWEEN 3 AND 5", "UPDATE events SET actor = 'x' WHERE seq = 9")
    report = check(closed)
    assert found(report) == [(3, "deleted"), (9, "changed")]
    assert report.problems[0].detail == "events 3 to 5 are missing"


@pytest.mark.parametrize("count", [1, 3])
def test_a_deleted_row_is_named_although_the_rest_was_renumbered(
    attacker: Any, closed: Path, check: Any, count: int
) -> None:
    """Closing the gap does not hide it."""
    attacker.sql(
        f"DELETE FROM events WHERE seq > 4 AND seq <= {4 + count}",
        "UPDATE events SET seq = -seq WHERE seq > 4",
        f"UPDATE events SET seq = -seq - {count} WHERE seq < 0",
    )
    assert (5, "deleted") in found(check(closed))


INSERT = (
    "INSERT INTO events SELECT {at}, campaign, campaign_seq + 50, time_ns + 5, epoch, type, version, actor, cause,"
    " NULL, '{{\"n\":0}}', {hash} FROM events WHERE seq = 3"
)
MAKE_ROOM = ("UPDATE events SET seq = -seq WHERE seq >= 6", "UPDATE events SET seq = 1 - seq WHERE seq < 0")


def test_an_inserted_row_is_named(attacker: Any, closed: Path, check: Any) -> None:
    """inserted, where it stands, although everything after it was renumbered to make room."""
    attacker.sql(*MAKE_ROOM, INSERT.format(at=6, hash=f"'{'ab' * 32}'"))
    assert (6, "inserted") in found(check(closed))
    assert "changed" not in [kind for _, kind in found(check(closed))]


def test_an_added_row_is_named(attacker: Any, closed: Path, check: Any) -> None:
    """inserted, behind the last signed event."""
    attacker.sql(INSERT.format(at=13, hash=f"'{'ab' * 32}'"))
    assert found(check(closed)) == [(13, "inserted")]


@pytest.mark.parametrize(("original", "at"), [(4, 6), (5, 6), (4, 13), (12, 13)])
def test_a_duplicated_row_is_named(attacker: Any, closed: Path, check: Any, original: int, at: int) -> None:
    """duplicated, where the copy stands, also when the rest was renumbered to make room for it."""
    columns = "campaign, campaign_seq + 50, time_ns, epoch, type, version, actor, cause, NULL, payload, hash"
    copy = f"INSERT INTO events SELECT {at}, {columns} FROM events WHERE seq = {original}"
    attacker.sql(*(MAKE_ROOM if at == 6 else ()), copy)
    assert [item for item in found(check(closed)) if item[1] != "forged"] == [(at, "duplicated")]


@pytest.mark.parametrize(("one", "two"), [(4, 9), (5, 6), (1, 12), (11, 12)])
def test_swapped_rows_are_named(attacker: Any, closed: Path, check: Any, one: int, two: int) -> None:
    """reordered, both."""
    attacker.sql(
        f"UPDATE events SET seq = -1 WHERE seq = {one}",
        f"UPDATE events SET seq = {one} WHERE seq = {two}",
        f"UPDATE events SET seq = {two} WHERE seq = -1",
    )
    chain = [item for item in found(check(closed)) if item[1] != "forged"]
    assert chain == [(one, "reordered"), (two, "reordered")]


def test_a_row_moved_to_the_end_is_named(attacker: Any, closed: Path, check: Any) -> None:
    """reordered, with the number under which it was written."""
    attacker.sql("UPDATE events SET seq = 40 WHERE seq = 5")
    report = check(closed)
    assert found(report) == [(40, "reordered")]
    assert "event 5" in report.problems[0].detail


def test_a_cut_tail_is_found_by_a_checkpoint(attacker: Any, closed: Path, check: Any) -> None:
    """cut_tail, at the first missing number; the copy of the checkpoints tells even if theirs are gone."""
    attacker.sql("DELETE FROM events WHERE seq > 9")
    assert found(check(closed)) == [(10, "cut_tail")]
    attacker.sql("DELETE FROM checkpoints WHERE seq > 9")
    assert found(check(closed)) == [(10, "cut_tail")]


def test_a_cut_tail_with_all_local_traces_removed_needs_the_auditors_copy(
    attacker: Any, closed: Path, check: Any, tmp_path: Path
) -> None:
    """Without any checkpoint past the cut nothing can be seen, and the report says what is not covered."""
    kept = shutil.copy(closed.with_name("checkpoints.jsonl"), tmp_path / "elsewhere.jsonl")
    attacker.sql("DELETE FROM events WHERE seq > 9", "DELETE FROM checkpoints WHERE seq > 9")
    lines = closed.with_name("checkpoints.jsonl").read_text().splitlines(keepends=True)
    closed.with_name("checkpoints.jsonl").write_text(lines[0])
    blind = check(closed)
    assert blind.ok and blind.anchored_to == 8
    assert "no signature covers the events after 8" in blind.notes[0]
    assert found(check(closed, checkpoints=Path(kept))) == [(10, "cut_tail")]


def test_a_fully_rehashed_forgery_is_found_by_a_checkpoint(attacker: Any, closed: Path, check: Any) -> None:
    """forged: every hash is right, but a signature was made over another history."""
    attacker.sql("UPDATE events SET actor = 'operator:0' WHERE seq = 10")
    attacker.rehash(10)
    report = check(closed)
    assert found(report) == [(12, "forged")]
    assert report.anchored_to == 8


def test_a_forgery_signed_with_another_key_is_found_by_the_auditors_key(
    attacker: Any, closed: Path, check: Any, tmp_path: Path
) -> None:
    """Replacing key, checkpoints and copies as well only fools who trusts the key beside the ledger."""
    trusted = PublicKey.load(tmp_path / "ledger.pub")
    attacker.sql("UPDATE events SET actor = 'operator:0' WHERE seq = 2", "DELETE FROM checkpoints")
    attacker.rehash()
    for name in ("ledger.key", "ledger.pub", "checkpoints.jsonl"):
        (tmp_path / name).unlink()
    forger = Signer.load_or_create(tmp_path)
    last = sqlite3.connect(closed).execute("SELECT hash FROM events WHERE seq = 12").fetchone()[0]
    attacker.sql("INSERT INTO checkpoints VALUES (?,?,?,?,?)", values=tuple(forger.sign(12, last, 1)))
    assert check(closed).ok
    assert found(check(closed, public_key=trusted)) == [(12, "forged")]


@pytest.mark.parametrize("column", ["hash", "time_ns", "signature", "key_id", "seq"])
def test_a_changed_checkpoint_is_found(attacker: Any, closed: Path, check: Any, column: str) -> None:
    """A signature covers every column of its checkpoint."""
    change = {"seq": "seq - 1", "time_ns": "time_ns + 1"}.get(
        column, f"(CASE substr({column}, 1, 1) WHEN 'e' THEN 'f' ELSE 'e' END) || substr({column}, 2)"
    )
    attacker.sql(f"UPDATE checkpoints SET {column} = {change} WHERE seq = 8")
    assert {kind for _, kind in found(check(closed))} <= {"forged", "deleted"}
    assert "forged" in {kind for _, kind in found(check(closed))}


def test_a_checkpoint_removed_from_the_ledger_is_found_in_its_copy(attacker: Any, closed: Path, check: Any) -> None:
    """The copy beside the ledger knows every checkpoint."""
    attacker.sql("DELETE FROM checkpoints WHERE seq = 8")
    assert found(check(closed)) == [(8, "deleted")]


def test_artifacts_are_checked_by_content(tmp_path: Path, ledger: Ledger, check: Any) -> None:
    """artifact_missing and artifact_altered, at the event that first names the artifact, however deep."""
    store = Artifacts(tmp_path / "artifacts")
    names = [store.put_bytes(b"x" * n) for n in (10, 20, 30)]
    for name in names:
        draft = Draft(campaign="c", type="step", payload={"n": 1, "logs": [{"out": {**name, "path": "stdout"}}]})
        ledger.append([draft])
    assert check(ledger.path).ok
    paths = [tmp_path / "artifacts" / name["sha256"][:2] / name["sha256"] for name in names]
    paths[0].unlink()
    paths[1].chmod(0o600)
    paths[1].write_bytes(b"y" * 20)
    assert found(check(ledger.path)) == [(1, "artifact_missing"), (2, "artifact_altered")]
    shutil.rmtree(tmp_path / "artifacts")
    assert [kind for _, kind in found(check(ledger.path))] == ["artifact_missing"] * 3


def test_an_event_that_the_judge_refuses_is_illegal_although_every_hash_is_right(closed: Path, check: Any) -> None:
    """The judge sees every event in order and names what it refuses."""
    seen: list[int] = []

    def judge(event: Event) -> str | None:
        seen.append(event.seq)
        return "7 is not allowed" if event.payload["n"] == 7 else None

    report = check(closed, judge=judge)
    assert found(report) == [(7, "illegal")]
    assert seen == list(range(1, 13))


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ("campaign_seq = campaign_seq + 1 WHERE seq = 12", "campaign_seq 7 follows 5"),
        ("epoch = 0 WHERE seq = 12", "epoch 0 after epoch 1"),
        ("cause = 12 WHERE seq = 12", "caused by event 12"),
        ("key = 'key-3' WHERE seq = 12", "key 'key-3' was used before"),
    ],
)
def test_a_rehashed_event_that_breaks_a_rule_of_the_ledger_is_illegal(
    attacker: Any, closed: Path, check: Any, change: str, kinds: str
) -> None:
    """Numbering, fencing, causes and keys are rules of their own."""
    attacker.sql(f"UPDATE events SET {change}", "DELETE FROM checkpoints WHERE seq = 12")
    attacker.rehash(12)
    illegal = [problem for problem in check(closed).problems if problem.kind == "illegal"]
    assert [problem.seq for problem in illegal] == [12]
    assert kinds in illegal[0].detail


@pytest.mark.parametrize(
    "statement", ["DROP TRIGGER events_no_update", "DROP INDEX events_by_key", "CREATE TABLE x (y)"]
)
def test_a_ledger_without_its_guards_is_named(closed: Path, check: Any, statement: str) -> None:
    """schema: tables, indexes and triggers are what this layout says, no more and no less."""
    connection = sqlite3.connect(closed)
    connection.execute(statement)
    connection.close()
    assert found(check(closed)) == [(None, "schema")]


def test_verify_works_beside_a_daemon_that_writes(ledger: Ledger, check: Any) -> None:
    """Reading is consistent and takes nothing from the writer."""
    for n in range(5):
        ledger.append([Draft(campaign="c", type="step", payload={"n": n})])
        assert check(ledger.path).events == n + 1


def test_the_report_says_under_which_rules_a_range_was_written(ledger: Ledger, check: Any) -> None:
    """daemon.started carries the code version and the digest of the machine's declaration."""
    ledger.append([Draft(campaign="", type="daemon.started", payload={"version": "1.2", "machine_digest": "d"})])
    assert check(ledger.path).written_under == [{"from": 1, "epoch": 1, "version": "1.2", "machine_digest": "d"}]


def test_what_is_not_a_ledger_is_refused(tmp_path: Path, check: Any) -> None:
    """No file, and a file of something else."""
    with pytest.raises(NotFound):
        check(tmp_path / "nothing.db")
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(NotALedger):
        check(tmp_path / "notes.txt")


# --- exports ---------------------------------------------------------------------------------------------


@pytest.fixture
def lines(closed: Path, tmp_path: Path) -> list[bytes]:
    with (tmp_path / "all.jsonl").open("wb") as target:
        assert export(closed, target) == 12
    return (tmp_path / "all.jsonl").read_bytes().splitlines()


@pytest.fixture
def check_lines(tmp_path: Path, check: Any) -> Callable[[list[bytes]], Report]:
    def run(lines: list[bytes]) -> Report:
        (tmp_path / "some.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        return check(tmp_path / "some.jsonl")  # type: ignore[no-any-return]

    return run


def test_an_export_is_json_lines_and_verifies_like_its_ledger(lines: list[bytes], check_lines: Any) -> None:
    """A header, twelve events with every column, two checkpoints."""
    said = [json.loads(line) for line in lines]
    assert len(said) == 15 and said[3]["seq"] == 3 and said[3]["payload"]["n"] == 3 and "checkpoint" in said[14]
    report = check_lines(lines)
    assert (report.ok, report.events, report.anchored_to) == (True, 12, 12)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda x: x[:5] + x[6:], [(5, "deleted")]),
        (lambda x: [*x[:5], x[6], x[5], *x[7:]], [(5, "reordered")]),
        (lambda x: [*x[:3], x[10], *x[3:10], *x[11:]], [(10, "reordered")]),
        (lambda x: [*x[:7], x[4], *x[7:]], [(4, "duplicated")]),
        (lambda x: [*x[:7], x[6], *x[7:]], [(6, "duplicated")]),
        (lambda x: [*x[:7], x[6], x[6], *x[7:]], [(6, "duplicated"), (6, "duplicated")]),
        (lambda x: [*x[:4], x[4].replace(b"y load", b"y Load"), *x[5:]], [(4, "changed")]),
        (lambda x: [*x[:4], x[4].replace(b"y load", b"y Load"), *x[4:]], [(4, "duplicated"), (4, "changed")]),
        (lambda x: x[:10] + x[13:], [(10, "cut_tail")]),
        (lambda x: [*x[:4], x[4].replace(b'"seq":4', b'"seq": 4'), *x[5:]], [(None, "unreadable"), (4, "deleted")]),
        (lambda x: [*x[:4], x[4].replace(b'"seq":4', b'"seq":"4"'), *x[5:]], [(None, "unreadable"), (4, "deleted")]),
        (
            lambda x: [*x[:4], x[4].replace(b'"seq":4', b'"seq":9,"seq":4'), *x[5:]],
            [(None, "unreadable"), (4, "deleted")],
        ),
    ],
)
def test_an_edited_export_is_named(lines: list[bytes], check_lines: Any, edit: Any, expected: Any) -> None:
    """The same kinds as in a database, and nothing can hide in a line's notation."""
    assert found(check_lines(edit(lines))) == expected
