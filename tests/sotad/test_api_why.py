"""``why``: every event of a whole campaign is explained, its guards asked again, its numbers shown."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from ledger.events import Event
from sotad.api.why import why
from statemachine.fold import advance
from statemachine.state import World
from statemachine.table import FACTS

JSON = dict[str, Any]


def whole_campaign(equal: bool) -> list[Event]:
    """The campaign that the report's tests tell: the machine's own conclusions on made-up measurements."""
    path = Path(__file__).with_name("test_report.py")
    spec = importlib.util.spec_from_file_location("told_for_why", path)
    assert spec and spec.loader
    told = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(told)
    events: list[Event] = told.Story(equal).tell().events
    return events


@pytest.fixture(scope="module", params=[False, True], ids=["behind", "equal"])
def explained(request: pytest.FixtureRequest) -> list[JSON]:
    """Every event of it with its reasons."""
    world, found = World(), []
    for event in whole_campaign(request.param):
        found.append(why(event, copy.deepcopy(world)))
        advance(world, event)
    return found


def of_type(explained: list[JSON], type_: str) -> list[JSON]:
    return [found for found in explained if found["event"]["type"] == type_]


def test_every_event_has_a_rule_whose_guards_hold(explained: list[JSON]) -> None:
    """Of a legal ledger, each event's last row was taken and every guard in it held."""
    for found in explained:
        taken = found["rows"][-1]
        assert taken["taken"], found["text"]
        assert all(guard["missing"] is None for guard in taken["guards"])
        assert found["kind"] == ("fact" if found["event"]["type"] in FACTS else "step")


def test_every_decision_has_reasons(explained: list[JSON]) -> None:
    """And all of it is JSON."""
    assert all(found["reasons"] for found in explained if found["event"]["payload"])
    json.dumps(explained)


def test_a_gap_decision_shows_its_numbers_and_what_would_have_changed_it(explained: list[JSON]) -> None:
    """Estimate, interval and blocks of each scenario, the rule, and the nearest other call."""
    for found in of_type(explained, "gap.decided"):
        decision = found["event"]["payload"]["decisions"]["chat"]
        assert f"g_pct {decision['g_pct']:.4g}" in found["text"]
        assert "tau_pct 1.0" in found["text"]
        assert any(line.startswith("chat: ") for line in found["would_change"])


def test_rows_that_were_passed_over_say_what_they_missed(explained: list[JSON]) -> None:
    """The way not taken is part of the reasons."""
    passed_over = [row for found in explained for row in found["rows"][:-1]]
    assert passed_over
    assert all(row["guards"][-1]["missing"] for row in passed_over)


def test_a_winner_is_explained_by_the_ranking(explained: list[JSON]) -> None:
    """Every measured row in order, the winner first."""
    for found in of_type(explained, "winner.selected"):
        winner = found["event"]["payload"]["candidate"]
        assert any(line.startswith(f"1. {winner} ") for line in found["reasons"])


def test_a_forged_step_has_no_row(explained: list[JSON]) -> None:
    """An event that the machine would have refused is called that."""
    world = World()
    events = whole_campaign(False)
    advance(world, events[0])
    forged = next(event for event in events if event.type == "campaign.closed")
    found = why(forged, world)
    assert not found["rows"]
    assert "the ledger should not hold it" in found["rule"]
