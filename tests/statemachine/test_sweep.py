"""The search as a sweep: the order of launches, what is stopped early, and how often that would be wrong."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script import JSON, spec_with
from simulation import Simulation
from sweep_noise import missed, residuals, search

from ledger.events import Event
from statemachine.hopeless import Noise, StopRule, noise_of, out_of_reach, percent, slower
from statemachine.machine import IllegalEvent

EARLY: JSON = {"wrong_stop": 0.01, "launch_noise_pct": 1.0, "noise_pct": None}


def rule(**changes: object) -> StopRule:
    shared = {"runs": 3, "candidates": 6, "scenarios": 2, "frameworks": 2, "limits": 2}
    return StopRule(**{**EARLY, **shared, **changes})  # type: ignore[arg-type]


def spec_of(early: JSON | None = EARLY, runs: int = 3, count: int = 6, scenarios: int = 2) -> JSON:
    """A search of candidates c0, c1, ... with a slow one last on each side."""
    spec = spec_with(scenarios=scenarios, search={"runs": runs, "early_stop": early})
    del spec["frameworks"]["third"]
    for framework in spec["frameworks"].values():
        names = [*(f"c{number}" for number in range(count - 1)), "slow"]
        framework["candidates"] = [{"id": name, "flags": {"name": name}} for name in names]
    return spec


def searched(spec: JSON, script: JSON | None = None) -> Simulation:
    """A campaign up to the end of its search."""
    sim = Simulation(script or {}, spec=spec)
    sim.run(until=lambda s: s.c.phase not in ("draft", "intake", "knowledge", "searching"))
    return sim


def launched(sim: Simulation) -> list[str]:
    return [event.payload["framework"] for event in sim.events if event.type == "candidate.launched"]


def curtailed(sim: Simulation) -> list[Event]:
    return [event for event in sim.events if event.type == "candidate.curtailed"]


# --- the order ---------------------------------------------------------------------------------------------


def test_sides_of_equal_size_turn_round_every_time() -> None:
    """A B B A: a host that slowly changes favours neither side."""
    sim = searched(spec_of(count=4))
    assert launched(sim) == ["ours", "rival", "rival", "ours", "ours", "rival", "rival", "ours"]


@given(st.integers(1, 7), st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_a_short_side_is_spread_over_the_whole_search(ours: int, theirs: int) -> None:
    """After any launch no side is more than one launch ahead of its share."""
    spec = spec_of(None, runs=1, scenarios=1)
    for name, count in (("ours", ours), ("rival", theirs)):
        spec["frameworks"][name]["candidates"] = [{"id": f"c{n}", "flags": {"n": n}} for n in range(count)]
    order = launched(searched(spec))
    assert len(order) == ours + theirs
    for number in range(1, len(order) + 1):
        share = number * ours / len(order)
        assert abs(order[:number].count("ours") - share) <= 1


def test_one_run_of_every_scenario_comes_before_the_next_of_any() -> None:
    """What decides about a candidate is known as early as can be."""
    sim = searched(spec_of())
    runs = [(e.payload["scenario"], e.payload["run"]) for e in sim.events if e.type == "benchmark.started"]
    assert runs[:6] == [("s0", 0), ("s1", 0), ("s0", 1), ("s1", 1), ("s0", 2), ("s1", 2)]


# --- early stop --------------------------------------------------------------------------------------------


def test_a_hopeless_candidate_is_measured_once_on_each_scenario() -> None:
    """The slow one of each side, and no other, is given up after one run, by its own side's best."""
    sim = searched(spec_of())
    found = {(e.payload["framework"], e.payload["candidate"], e.payload["scenario"]) for e in curtailed(sim)}
    assert found == {(framework, "slow", scenario) for framework in ("ours", "rival") for scenario in ("s0", "s1")}
    assert all(len(sim.c.launches[f"search/{side}/slow"].rows) == 2 for side in ("ours", "rival"))
    payload = curtailed(sim)[0].payload
    assert payload["behind_pct"] == pytest.approx(69, abs=2) and payload["chance"] < payload["bound"]
    assert payload["runs_left"] == 2 and payload["reason"].startswith("after 1 of 3 runs")


def test_early_stop_can_be_turned_off() -> None:
    """Then every run is made, by the same order."""
    sim = searched(spec_of(None))
    assert not curtailed(sim)
    assert all(len(launch.rows) == 6 for launch in sim.c.launches.values())


def test_a_candidate_far_over_the_limit_is_given_up() -> None:
    """TTFT at 250 ms of 100: no further run is made to learn that again."""
    sim = searched(spec_of(), {"launch": {6: "misses_sla"}})
    found = [event.payload for event in curtailed(sim) if event.payload["rule"] == "sla"]
    said = [(p["framework"], p["candidate"], p["against"], p["observed"], p["wanted"]) for p in found]
    assert said == [("rival", "c3", "max_p50_ttft_ms", 250.0, 100.0)] * 2
    assert len(sim.c.launches["search/rival/c3"].rows) == 2


def test_a_curtailment_must_follow_from_the_runs() -> None:
    """Of another candidate, with other numbers, or too early: refused."""
    sim = Simulation({}, spec=spec_of())
    sim.run(until=lambda s: bool(curtailed(s)))
    honest = dict(curtailed(sim)[0].payload)
    fresh = Simulation({}, spec=spec_of())
    before = next(n for n, event in enumerate(sim.events) if event.type == "candidate.curtailed")
    fresh.run(until=lambda s: len(s.events) == before)
    for change in ({"candidate": "c1"}, {"chance": 0.0}, {"scenario": "s1"}, {"observed": 1.0}):
        with pytest.raises(IllegalEvent, match="cannot win this scenario") as refused:
            fresh.record("candidate.curtailed", {**honest, **change})
        assert refused.value.guard == "curtailment_adds_up"


def test_a_run_that_was_given_up_is_not_made() -> None:
    """What a curtailed scenario lacks stays lacking: nobody measures it once more for luck."""
    sim = Simulation({}, spec=spec_of())
    sim.run(until=lambda s: bool(curtailed(s)))
    p = curtailed(sim)[0].payload
    seed = sim.c.jobs[p["launch"]].params["seeds"][p["scenario"]][1]
    about = {"launch": p["launch"], "attempt": p["attempt"], "scenario": p["scenario"], "run": 1, "seed": seed}
    with pytest.raises(IllegalEvent) as refused:
        sim.record("benchmark.started", about)
    assert refused.value.guard == "run_is_wanted"


def test_a_search_that_left_runs_out_is_not_exhausted() -> None:
    """A missing run needs an event that says why."""
    sim = searched(spec_of())
    fresh = Simulation({}, spec=spec_of())
    last = next(n for n, event in enumerate(sim.events) if event.type == "search.exhausted")
    fresh.run(until=lambda s: len(s.events) == last)
    fresh.c.launches[f"search/{sim.events[last].payload['framework']}/slow"].curtailed.clear()
    with pytest.raises(IllegalEvent, match=r"slow on s0, slow on s1"):
        fresh.record("search.exhausted", dict(sim.events[last].payload))


# --- the statistics ------------------------------------------------------------------------------------------


def test_the_truly_best_candidate_is_hardly_ever_stopped() -> None:
    """Equal candidates, real noise: less than 1% of campaigns stop the best of a side on some scenario."""
    rng, real, r = Random(11), residuals("request_throughput"), rule()
    wrong = 0
    for _ in range(1000):
        chosen = [search(rng, real, [0.0] * r.candidates, r) for _ in range(r.scenarios * r.frameworks)]
        wrong += any(rng.randrange(r.candidates) in found.stopped_at for found in chosen)
    assert wrong / 1000 <= r.wrong_stop


def test_the_simulation_can_see_wrong_stops() -> None:
    """A careless rule fails it: no launch noise assumed, all of the error for one comparison."""
    rng, real = Random(11), residuals("request_throughput")
    careless = rule(wrong_stop=0.4, launch_noise_pct=0.0, candidates=2, scenarios=1, frameworks=1)
    stopped = sum(len(search(rng, real, [0.0] * 6, careless).stopped_at) for _ in range(100))
    assert stopped > 10


@pytest.mark.parametrize(("behind", "most"), [(30.0, 0.85), (50.0, 0.80)])
def test_what_is_far_behind_is_stopped(behind: float, most: float) -> None:
    """Of six candidates five are slower: a share of the runs is saved, and the best one is measured whole."""
    rng, real, made = Random(5), residuals("request_throughput"), 0
    for _ in range(60):
        truth = [0.0, *[-behind] * 5]
        rng.shuffle(truth)
        found = search(rng, real, truth, rule())
        made += found.made
        assert truth.index(0.0) not in found.stopped_at
    assert made / (60 * 18) < most


def test_a_latency_near_its_limit_is_measured_to_the_end() -> None:
    """Only what lies far above a limit is out of reach; TTFT's real noise is several percent."""
    rng, real = Random(3), residuals("p50_ttft_ms")
    stops = [missed(rng, real, [-20.0, -20.0, -20.0, above], rule()) for above in (0.0, 5.0) for _ in range(100)]
    assert sum(any(stop) for stop in stops) <= 2
    assert all(missed(rng, real, [-20.0, -20.0, -20.0, 120.0], rule())[3] for _ in range(20))


@given(st.lists(st.floats(1.0, 100.0), min_size=1, max_size=4), st.floats(0.1, 5.0), st.floats(0.0, 30.0))
@settings(max_examples=60, deadline=None)
def test_more_behind_is_never_a_better_chance(rates: list[float], sd: float, further: float) -> None:
    """The chance falls with the distance, and nobody who leads is hopeless."""
    best, noise, r = [percent(rate) for rate in rates], Noise(sd, 8), rule()
    near = slower([value - 1.0 for value in best], best, noise, r)
    far = slower([value - 1.0 - further for value in best], best, noise, r)
    assert far.chance <= near.chance
    assert not slower(best, best, noise, r).hopeless


def test_noise_needs_runs_to_be_seen() -> None:
    """Two launches of two runs say nothing yet; a figure from the campaign file is taken as it is."""
    assert noise_of([[1.0, 2.0], [3.0, 4.0]], rule()) is None
    assert noise_of([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]], rule()) == Noise(1.0, 4)
    assert noise_of([], rule(noise_pct=2.0)) == Noise(2.0, None)


def test_the_bounds_share_the_error_over_every_comparison() -> None:
    """Two looks, two scenarios, two frameworks, five rivals; half for the limits."""
    assert rule().slower_bound == pytest.approx(0.005 / (2 * 2 * 2 * 5))
    assert rule().sla_bound == pytest.approx(0.005 / (2 * 2 * 2 * 2))


def test_the_further_runs_are_counted() -> None:
    """A limit is out of reach when none of the runs that are left will meet it, not only the next."""
    noise = Noise(2.0, 10)
    two_left = out_of_reach([percent(110.0)], 100.0, noise, rule())
    one_left = out_of_reach([percent(110.0)], 100.0, noise, rule(runs=2))
    assert two_left.chance == pytest.approx(2 * one_left.chance, rel=0.01)
