"""Ledgers of real campaigns that docs/validation publishes: they verify, and the rules of today replay them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ledger.events import Event
from statemachine import evidence
from statemachine.fold import fold
from statemachine.state import World

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "validation" / "README.md"
LEDGERS = sorted(PAGE.parent.glob("*/ledger.jsonl"))


@pytest.mark.parametrize("path", LEDGERS, ids=lambda path: path.parent.name)
async def test_a_published_ledger_is_sound(path: Path, run: Any) -> None:
    """Chain, signatures and every guard: nothing was altered, no gate of today would have refused it, and the page
    says how much of it is signed."""
    found = await run("ledger", "verify", str(path), "--key", str(path.with_name("ledger.pub")), "--json")
    report = json.loads(found.out)
    assert (found.status, report["ok"], report["problems"]) == (0, True, [])
    assert report["anchored_to"] > 0
    said = f"{path.relative_to(ROOT)}: sound, {report['events']} events, signed up to event {report['anchored_to']}"
    assert said in map(str.strip, PAGE.read_text().splitlines())


def test_there_is_one() -> None:
    """An empty list would pass for a clean one."""
    assert LEDGERS


@pytest.mark.parametrize("name", ["h200", "no-patch"])
def test_the_slow_stage_is_what_requests_waited_for(name: str) -> None:
    """Decode, whatever one prompt alone costs in a capture; what one capture shows of a workload counts as it is."""
    lines = map(json.loads, (PAGE.parent / name / "ledger.jsonl").read_text().splitlines())
    events = [Event(*(line[field] for field in Event._fields)) for line in lines if "payload" in line]
    before = [event.type for event in events].index("rootcause.written")
    (c,) = fold(World(), events[:before]).campaigns.values()
    waited = evidence.waits(c)
    assert waited["decode"] > 50 > waited["prefill"] > 0
    steps = {row["stage"]: row for row in c.tables["rows"] if row["name"] == "step"}
    steps["prefill"]["extra_ms"] = steps["decode"]["extra_ms"] + 1
    assert evidence.slowest_stage(c) == "decode"
    c.profiles["target"].pop("traces")
    assert (evidence.waits(c), evidence.slowest_stage(c)) == ({}, "prefill")
