"""What must be equal between the compared commands, taken from what their servers were and did."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from script import JSON, SPEC, artifact
from simulation import Simulation

from statemachine.evidence import digest, gap_contest
from statemachine.fairness import VERSION, fairness_items
from statemachine.machine import IllegalEvent, admit
from statemachine.plan_template import baseline
from statemachine.state import Campaign


@pytest.fixture(scope="module")
def compared() -> Campaign:
    """A campaign at its gap decision, checked by the whole list."""
    sim = Simulation(spec={**SPEC, "fairness": VERSION})
    sim.run(until=lambda s: s.events[-1].type == "fairness.checked")
    return sim.c


def told(c: Campaign, part: str, key: str, **values: Any) -> dict[str, Any]:
    """The verdicts after each framework's rows say so; a framework that is not named says nothing."""
    changed = deepcopy(c)
    for launch in changed.launches.values():
        for row in launch.rows:
            row[part] = {**(row.get(part) or {}), key: values.get(launch.framework)}
    return {item["condition"]: item["verdict"] for item in fairness_items(changed)}


def test_the_whole_list_is_on_record(compared: Campaign) -> None:
    """Every condition is named with the value of each side; the short list of older specs has none of the new."""
    items = fairness_items(compared)
    names = [item["condition"] for item in items]
    assert {"GPU ids", "sampling", "tokenizer", "cpu_offload", "prefix cache hit rate", "accept length"} <= set(names)
    assert all(len(item["values"]) == 2 and item["match"] for item in items)
    older = deepcopy(compared)
    del older.spec["fairness"]
    assert len(fairness_items(older)) < len(items) and "verdict" not in fairness_items(older)[0]


@pytest.mark.parametrize(
    ("part", "key", "condition", "ours", "theirs", "verdict"),
    [
        ("cache", "prefix_cache_hit_rate", "prefix cache hit rate", 0.5, 0.54, "match"),
        ("cache", "prefix_cache_hit_rate", "prefix cache hit rate", 0.0, 0.3, "differs"),
        ("cache", "prefix_cache_hit_rate", "prefix cache hit rate", 0.3, None, "match"),
        ("spec_decode", "mean_accept_length", "accept length", 3.0, 3.1, "match"),
        ("spec_decode", "mean_accept_length", "accept length", 1.0, 3.1, "differs"),
        ("conditions", "cpu_offload", "cpu_offload", 0, 8, "differs"),
        ("conditions", "tokenizer", "tokenizer", "a", "b", "differs"),
        ("conditions", "memory_fraction", "memory_fraction", 0.85, 0.9, "noted"),
        ("cache", "kv_cache_tokens", "KV cache tokens", 1000, 2000, "noted"),
    ],
)
def test_what_servers_told_decides(
    compared: Campaign, part: str, key: str, condition: str, ours: Any, theirs: Any, verdict: str
) -> None:
    """Differences beyond the tolerance refuse the comparison; what each framework tunes is only shown."""
    target, rival = (side.framework for side in _sides(compared))
    assert told(compared, part, key, **{target: ours, rival: theirs})[condition] == verdict


@pytest.mark.parametrize(("rival", "fair"), [(0.52, True), (0.9, False)])
def test_what_servers_told_is_taken_from_the_recorded_rows(rival: float, fair: bool) -> None:
    """Who was served from a warmer cache is not compared; close by is fair."""
    rates = {"ours": 0.5, "rival": rival, "third": 0.5}
    sim = Simulation(spec={**SPEC, "fairness": VERSION}, hit_rates=rates)
    sim.run(until=lambda s: s.events[-1].type == "fairness.checked")
    checked = sim.events[-1].payload
    (item,) = (item for item in checked["items"] if item["condition"] == "prefix cache hit rate")
    assert checked["passed"] == fair and item["match"] == fair
    assert {name: list(value.values()) for name, value in item["values"].items()} == {"ours": [0.5], "rival": [rival]}


def test_the_whole_list_refuses_too() -> None:
    """Sides served under other conditions: back to the search once, then a person is asked."""
    frameworks = deepcopy(SPEC["frameworks"])
    frameworks["rival"]["options"] = {"threads": 2}
    sim = Simulation(spec={**SPEC, "fairness": VERSION, "frameworks": frameworks}).run()
    assert [event.type for event in sim.events].count("fairness.violated") == 1
    assert sim.c.phase == "blocked" and "fixed options" in sim.c.blocked["reason"]


@pytest.mark.parametrize(
    "change", [{"goal": "another"}, {"baseline": {"digest": "d", "winners": {}}}, {"rounds": 9}, {"criteria": []}]
)
def test_a_plan_follows_a_baseline_that_was_frozen_anew_and_changes_in_nothing_else(change: JSON) -> None:
    """After fairness.violated it is recorded once more, with the new rows; whatever else it would change is refused."""
    frameworks = deepcopy(SPEC["frameworks"])
    frameworks["rival"]["options"] = {"threads": 2}
    sim = Simulation(spec={**SPEC, "fairness": VERSION, "frameworks": frameworks})
    sim.run(until=lambda s: [e.type for e in s.events].count("baseline.frozen") == 2)
    old, fresh = sim.c.plan, {**sim.c.plan["plan"], "baseline": baseline(sim.c)}
    assert fresh != old["plan"]
    again = {"version": 2, "source": "template", "document": artifact("plan")}

    def asked(plan: JSON, **more: Any) -> None:
        admit(sim.world, sim.name, "plan.recorded", {**again, "plan": plan, "digest": digest(plan), **more}, sim.now_ns)

    asked(fresh)
    for plan, more in (({**fresh, **change}, {}), (old["plan"], {}), (fresh, {"version": 1})):
        with pytest.raises(IllegalEvent, match="plan_valid"):
            asked(plan, **more)
    sim.run(until=lambda s: s.events[-1].type == "loop.started")
    assert (sim.c.plan["version"], sim.c.plan["plan"], sim.c.plan_digest) == (2, fresh, digest(fresh))


def _sides(c: Campaign) -> Any:
    return next(iter(gap_contest(c).pairs.values()))
