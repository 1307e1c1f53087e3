"""``why``: every event of a whole campaign is explained, its guards asked again, its numbers shown."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger.events import Event
from sotad.api.reasons_loop import LOOP
from sotad.api.why import why
from statemachine.fold import advance
from statemachine.state import World, to_json
from statemachine.table import FACTS

sys.path.insert(0, str(Path(__file__).parent.parent / "statemachine"))
from script import spec_with
from simulation import Simulation

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


# --- the loop with agents and people ----------------------------------------------------------------------------

LOOPS: dict[str, tuple[JSON, JSON]] = {
    "eventful": ({"outputs": {0: "differ"}, "review": {1: "blocking"}, "usage": {1: "unknown"}}, {}),
    "people": ({"propose": {0: "asks"}, "patch": {0: "wonder"}, "operator": {100: "amend"}}, {}),
    "stopped": ({"review": "stop"}, {}),
    "stalled": ({"review": "stalled"}, {}),
    "silent": ({"review": {0: "unusable"}}, {}),
    "spent": ({}, {"budget": {"tokens": 200}}),
}


@pytest.fixture(scope="module", params=LOOPS)
def of_loop(request: pytest.FixtureRequest) -> list[JSON]:
    """The events of a loop that have reasons of their own, explained; the state is left as it was."""
    script, spec = LOOPS[request.param]
    world, found = World(), []
    for event in Simulation(script, spec=spec_with(**spec)).run().events:
        if event.type in LOOP or event.type == "budget.exhausted":
            before = to_json(world)
            found.append(why(event, world))
            assert to_json(world) == before
        advance(world, event)
    return found


def test_the_loops_own_events_are_explained(of_loop: list[JSON]) -> None:
    """Each has reasons, its guards hold when they are asked again with the same actor, and all of it is JSON."""
    assert of_loop
    for found in of_loop:
        assert found["reasons"], found["text"]
        assert found["rows"][-1]["taken"], found["text"]
    json.dumps(of_loop)


def test_every_kind_of_the_loops_events_is_explained_somewhere() -> None:
    """No reason is written for an event that no loop has."""
    played = [Simulation(script, spec=spec_with(**spec)).run().events for script, spec in LOOPS.values()]
    seen = {event.type for events in played for event in events}
    assert LOOP.keys() <= seen


def explained_loop(name: str, type_: str) -> JSON:
    """The first event of that type in a loop, explained."""
    script, spec = LOOPS[name]
    world = World()
    for event in Simulation(script, spec=spec_with(**spec)).run().events:
        if event.type == type_:
            return why(event, world)
        advance(world, event)
    raise AssertionError(f"no {type_} in {name}")


def test_a_quarantine_shows_both_numbers_and_whom_to_ask() -> None:
    """The gain, what is believed, and the command of the person who looks."""
    found = explained_loop("people", "patch.quarantined")
    payload = found["event"]["payload"]
    assert f"{payload['gain_pct']:.4g}%" in found["text"]
    assert "approve CAMPAIGN attempt:a1" in found["text"]


def test_an_answer_says_what_was_asked_and_what_still_waits() -> None:
    """The question, with its event, and the reply."""
    assert any("which backend?" in line for line in explained_loop("people", "human.answered")["reasons"])


def test_a_held_out_check_shows_its_samples() -> None:
    """Estimate and interval of each scenario, and what would have turned it."""
    found = explained_loop("eventful", "heldout.checked")
    decision = found["event"]["payload"]["decisions"]["chat"]
    assert f"g_pct {decision['g_pct']:.4g}" in found["text"]
    assert "slower" in found["would_change"][0]


def test_an_agent_that_reported_nothing_is_not_said_to_have_used_nothing() -> None:
    """Unknown is a word, not a number."""
    script, spec = LOOPS["eventful"]
    world, said = World(), []
    for event in Simulation(script, spec=spec_with(**spec)).run().events:
        if event.type == "agent.finished":
            said.append((event.payload.get("usage"), why(event, world)["text"]))
        advance(world, event)
    assert {usage is None for usage, _ in said} == {True, False}
    assert all(("unknown, not nothing" in text) == (usage is None) for usage, text in said)


def test_a_budget_of_tokens_is_explained_in_tokens() -> None:
    """Used, limit, and how much more would have been enough."""
    found = explained_loop("spent", "budget.exhausted")
    payload = found["event"]["payload"]
    assert payload["kind"] == "tokens"
    assert found["reasons"][0] == f"tokens: {payload['used']:.0f} of 200 used"


def test_a_review_step_shows_the_verdicts_of_the_round_and_its_open_issues() -> None:
    """Each kind of review that was held, and the issue that it left open."""
    found = explained_loop("eventful", "review.findings")
    assert any("summary review" in line for line in found["reasons"])
    assert any(line.startswith("open issue i1") for line in found["reasons"])
