"""Ledgers of real campaigns that docs/validation publishes: they verify, and the rules of today replay them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
