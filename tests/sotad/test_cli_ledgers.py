"""``sotactl ledger`` and ``report``: files only, no daemon."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from ledger.artifacts import Artifacts
from ledger.events import Draft
from ledger.keys import Signer
from ledger.reader import Reader
from sotad.api.past import world_at
from sotad.paths import StateDir
from statemachine.state import to_json


async def test_a_sound_ledger_verifies(service: Any, here: StateDir, run: Any) -> None:
    """ok, counted, and anchored to the last signature; directory and file are the same thing."""
    service.create()
    here.keys.mkdir()
    service.ledger.checkpoint(Signer.load_or_create(here.keys))
    service.record("", "note.recorded", {"text": "after the signature"})
    for path in (str(here.root), str(here.ledger)):
        found = await run("ledger", "verify", path, "--json")
        report = json.loads(found.out)
        assert (found.status, report["ok"], report["events"], report["anchored_to"]) == (0, True, 3, 2)
        assert report["problems"] == []
    assert "sound, 3 events, signed up to event 2" in (await run("ledger", "verify", str(here.root))).out


async def test_a_changed_event_is_found(service: Any, here: StateDir, run: Any) -> None:
    """Status 1, the event and the kind of tampering."""
    service.create()
    service.record("", "note.recorded", {"text": "cheap"})
    service.ledger.close()
    with sqlite3.connect(here.ledger) as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute('UPDATE events SET payload = \'{"text":"dear"}\' WHERE seq = 3')
    connection.close()
    found = await run("ledger", "verify", str(here.root), "--json")
    report = json.loads(found.out)
    assert (found.status, report["ok"]) == (1, False)
    assert (3, "changed") in [(problem["seq"], problem["kind"]) for problem in report["problems"]]
    assert "NOT SOUND" in (await run("ledger", "verify", str(here.root))).out
    assert (await run("ledger", "replay", str(here.root))).status == 1


async def test_a_skipped_gate_is_found_although_every_hash_is_right(service: Any, here: StateDir, run: Any) -> None:
    """Verify runs the machine: an event that it would have refused is a problem, and so is no other."""
    name = service.create()
    closed = {"terminal": "success_ahead", "reason": "trust me", "evidence": []}
    service.ledger.append([Draft(campaign=name, type="campaign.closed", payload=closed)])
    service.ledger.append([Draft(campaign=name, type="note.recorded", payload={"text": "fine"})])
    found = await run("ledger", "verify", str(here.root), "--json")
    assert found.status == 1
    (problem,) = json.loads(found.out)["problems"]
    assert (problem["seq"], problem["kind"]) == (3, "illegal")
    assert "campaign.closed is illegal" in problem["detail"]
    for argv in (["status"], ["ledger", "replay"], ["why", "4"]):
        refused = await run(*argv)
        assert (refused.status, "event 3 breaks this release's rules" in refused.err) == (1, True)
    assert len((await run("events")).out.splitlines()) == 4


async def test_replay_is_the_state_as_it_was(service: Any, here: StateDir, run: Any, tmp_path: Path) -> None:
    """Byte for byte the folded state, up to a seq or a time, from the file or from its export."""
    name = service.create()
    service.record(name, "campaign.paused", {"reason": "lunch"})
    service.record(name, "campaign.resumed", {"checks": []})
    assert (await run("ledger", "replay", str(here.root))).out == to_json(service.world) + "\n"
    then = await run("ledger", "replay", str(here.root), "--until", "3")
    assert then.out == to_json(world_at(here.ledger, lambda event: event.seq <= 3)) + "\n"
    assert json.loads(then.out)["campaigns"][name]["phase"] == "paused"
    export = tmp_path / "export.jsonl"
    assert (await run("ledger", "export", str(here.root), "--out", str(export))).status == 0
    assert (await run("ledger", "replay", str(export), "--until", "3")).out == then.out
    only = json.loads((await run("ledger", "replay", str(here.root), "--campaign", name)).out)
    assert list(only["campaigns"]) == [name]
    assert (await run("ledger", "replay", str(here.root), "--campaign", "nobody")).status == 2


async def test_replay_until_a_time_in_any_zone(service: Any, here: StateDir, run: Any) -> None:
    """A time without a zone is UTC, on every machine; one in words is refused."""
    import datetime

    service.create()
    service.record("", "note.recorded", {"text": "later"})
    with Reader(here.ledger) as reader:
        event = reader.event(2)
    assert event is not None
    time = datetime.datetime.fromtimestamp((event.time_ns + 999) // 1000 / 1e6, datetime.UTC)
    time += datetime.timedelta(microseconds=1)
    third = service.events(2, None, 1)[0]
    assert third.time_ns > event.time_ns + 3000
    elsewhere = time.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    for text in (time.isoformat(), time.replace(tzinfo=None).isoformat(), elsewhere.isoformat()):
        assert json.loads((await run("ledger", "replay", "--until", text)).out)["seq"] == 2
    early = await run("ledger", "replay", "--until", "2001-01-01")
    assert json.loads(early.out)["seq"] == 0
    assert (await run("ledger", "replay", "--until", "teatime")).status == 2


async def test_an_altered_export_does_not_replay(service: Any, here: StateDir, run: Any, tmp_path: Path) -> None:
    """The chain is checked in the file that is given."""
    service.record("", "note.recorded", {"text": "cheap"})
    text = (await run("ledger", "export", str(here.root))).out
    export = tmp_path / "export.jsonl"
    export.write_text(text.replace("cheap", "dear!"))
    found = await run("ledger", "replay", str(export))
    assert (found.status, "the chain breaks at event 2" in found.err) == (1, True)
    export.write_text(text.replace('{"seq":2', '{"seq":2,,'))
    assert (await run("ledger", "replay", str(export))).status == 1


async def test_export_overwrites_nothing(service: Any, here: StateDir, run: Any, tmp_path: Path) -> None:
    """A second export to the same file is refused."""
    target = tmp_path / "x.jsonl"
    target.write_text("precious")
    assert (await run("ledger", "export", str(here.root), "--out", str(target))).status == 2
    assert target.read_text() == "precious"


async def test_show_says_what_is_in_it(service: Any, here: StateDir, run: Any) -> None:
    """Campaigns, types and the head."""
    name = service.create()
    found = json.loads((await run("ledger", "show", str(here.root), "--json")).out)
    assert (found["events"], found["types"]["campaign.created"]) == (2, 1)
    assert found["campaigns"][name]["events"] == 1
    assert len(found["head"]) == 64
    assert name in (await run("ledger", "show", str(here.root))).out


async def test_show_schema_lists_tables_and_triggers(service: Any, here: StateDir, run: Any) -> None:
    """An auditor sees what guards the rows, and how many there are."""
    service.create()
    found = json.loads((await run("ledger", "show", str(here.root), "--schema", "--json")).out)
    assert found["tables"]["events"] == 2 and "CREATE TRIGGER" in found["schema"]
    assert "events" in (await run("ledger", "show", str(here.root), "--schema")).out


async def test_bad_keys_and_missing_copies_are_bad_input(
    service: Any, here: StateDir, run: Any, tmp_path: Path
) -> None:
    """An auditor's typo is not a verdict about the ledger."""
    key = tmp_path / "key"
    key.write_text("hello")
    for argv in (
        ["--key", str(key)],
        ["--key", "/nope"],
        ["--checkpoints", "/nope"],
        ["--artifacts", "/nope"],
    ):
        assert (await run("ledger", "verify", str(here.root), *argv)).status == 2, argv


async def test_a_report_comes_from_ledger_and_artifacts(service: Any, here: StateDir, run: Any, tmp_path: Path) -> None:
    """No daemon; the files are checked against their digests; before there is one, the answer is no."""
    name = service.create()
    early = await run("report", name)
    assert (early.status, early.out) == (1, "")
    store = Artifacts(here.artifacts)
    files = [
        {**store.put_bytes(b"# It is done\n"), "path": "reports/final_report.md"},
        {**store.put_bytes(b"a,b\n"), "path": "reports/data/rows.csv"},
    ]
    service.record(name, "report.published", {"files": files})
    assert (await run("report", name)).out == "# It is done\n"
    written = await run("report", name, "--out", str(tmp_path / "out"))
    assert written.status == 0
    assert (tmp_path / "out" / "data" / "rows.csv").read_text() == "a,b\n"
    found = json.loads((await run("report", name, "--json")).out)
    assert {"campaign", "verdict", "reason", "ledger"} <= found.keys()
    assert found["ledger"] == str(here.ledger)
    (here.artifacts / files[0]["sha256"][:2] / files[0]["sha256"]).chmod(0o600)
    (here.artifacts / files[0]["sha256"][:2] / files[0]["sha256"]).write_text("# It is great")
    altered = await run("report", name)
    assert (altered.status, "altered" in altered.err) == (1, True)


async def test_a_report_stays_in_its_folder(service: Any, here: StateDir, run: Any, tmp_path: Path) -> None:
    """A path that leads out of --out is refused, not followed."""
    name = service.create()
    file = {**Artifacts(here.artifacts).put_bytes(b"evil"), "path": "reports/../../evil"}
    service.record(name, "report.published", {"files": [file]})
    assert (await run("report", name, "--out", str(tmp_path / "a" / "b"))).status == 1
    assert not (tmp_path / "evil").exists()
