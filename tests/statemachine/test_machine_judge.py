"""The judge of a ledger over whole campaigns: it admits what was legal and finds what was not, where it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest
from script import SPEEDS
from simulation import Simulation

from ledger.events import Event
from statemachine.judge import Judge
from statemachine.state import to_json
from statemachine.table import FACTS


@lru_cache(maxsize=1)
def history() -> tuple[Event, ...]:
    """A campaign with a refused patch, an accepted one, a fix, a pause and a block."""
    script = {"outputs": {0: "differ"}, "review": {1: "blocking"}, "operator": {90: "pause", 200: "human"}}
    sim = Simulation(script).run()
    assert sim.c.phase == "closed"
    return tuple(sim.events)


def judged(events: list[Event]) -> dict[int, str]:
    """What the judge says, by seq."""
    judge = Judge()
    return {event.seq: text for event in events if (text := judge(event))}


def at(type_: str, nth: int = 0) -> int:
    return [i for i, event in enumerate(history()) if event.type == type_][nth]


def test_a_legal_history_has_no_finding() -> None:
    """Every event of the campaign is admitted, and the judge ends in the state of the daemon."""
    judge = Judge()
    assert [text for event in history() if (text := judge(event))] == []
    assert judge.world.campaigns["demo"].phase == "closed"


STEPS = sorted({event.type for event in history()} - set(FACTS) - {"campaign.closed"})  # after which nothing comes


@pytest.mark.parametrize("type_", STEPS)
def test_a_step_that_is_missing_is_noticed(type_: str) -> None:
    """Without it something after it is no longer legal, and nothing before it is blamed."""
    gone = at(type_)
    found = judged([*history()[:gone], *history()[gone + 1 :]])
    assert found
    assert min(found) > history()[gone].seq


def changed(**changes: object) -> Callable[[Event], Event]:
    return lambda event: event._replace(payload={**event.payload, **changes})


def slower(event: Event) -> Event:
    row = event.payload["row"]
    row = {**row, "metrics": {**row["metrics"], "request_throughput": 1.0}}
    return event._replace(payload={**event.payload, "row": row})


FORGERIES: dict[str, tuple[str, int, Callable[[Event], Event]]] = {
    "verdict": ("gap.decided", 0, changed(verdict="ahead")),
    "winner": ("winner.selected", 0, changed(candidate="base")),
    "digest": ("baseline.frozen", 0, changed(digest="0" * 64)),
    "commit": ("patch.accepted", 0, changed(commit="another")),
    "citation": ("patch.proposed", 0, changed(citations=["decode/nothing"])),
    "terminal": ("campaign.closed", 0, changed(terminal="success_tied")),
    "missing key": ("gap.decided", 0, lambda event: event._replace(payload={})),
    "another campaign": ("gap.decided", 0, lambda event: event._replace(campaign="other")),
    "another step": ("checkpoint.written", 0, lambda event: event._replace(type="review.passed")),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_step_is_found_where_it_is(what: str) -> None:
    """The first finding is the forged event itself."""
    type_, nth, forge = FORGERIES[what]
    place = at(type_, nth)
    events = [*history()[:place], forge(history()[place]), *history()[place + 1 :]]
    found = judged(events)
    assert min(found) == history()[place].seq


def test_a_forged_measurement_is_found_at_the_decision_that_it_contradicts() -> None:
    """A changed row fits nowhere by itself: the decision that was made from it no longer adds up."""
    place = max(i for i, e in enumerate(history()[: at("gap.decided")]) if e.type == "benchmark.finished")
    found = judged([*history()[:place], slower(history()[place]), *history()[place + 1 :]])
    assert "gap.decided" in found[min(found)]


def test_an_inserted_success_is_found_and_changes_nothing() -> None:
    """A decision of a campaign that was ahead, put into one that was behind; the rest is judged as if without it."""
    ahead = Simulation(speeds={**SPEEDS, "rival": 9.0}).run().events
    planted = next(event for event in ahead if event.type == "gap.decided")
    place = at("gap.decided")
    planted = planted._replace(seq=history()[place].seq, time_ns=history()[place].time_ns)
    judge, findings = Judge(), []
    for event in (*history()[:place], planted, *history()[place:]):
        findings += [text] if (text := judge(event)) else []
    assert len(findings) == 1
    assert "gap_adds_up" in findings[0]
    straight = Judge()
    for event in history():
        straight(event)
    assert to_json(judge.world) == to_json(straight.world)
