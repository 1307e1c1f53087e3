"""What a campaign still takes: before it is begun, while it runs, and in words."""

from __future__ import annotations

import pytest
from script import JSON, spec_with
from simulation import Simulation

from sotad.api import forecast
from sotad.search.expected import REFERENCE_S, REST_S, STARTUP_S, expected, of_spec
from statemachine import pace

SHAPE: JSON = {"name": "chat", "num_prompts": 40, "input_len": 100, "output_len": 101, "max_concurrency": 10}


def spec_of(gpus: int = 2, **search: object) -> JSON:
    spec = spec_with(search=search) if search else spec_with()
    spec["workload"]["scenarios"] = [SHAPE]
    spec["workload"]["warmup_requests"] = 0
    spec["hardware"]["gpu_ids"] = list(range(gpus))
    del spec["frameworks"]["third"]
    return spec


def parts(found: JSON) -> dict[str, JSON]:
    return {part["part"]: part for part in found["parts"]}


def test_before_anything_was_seen_the_file_decides() -> None:
    """Four waves at the limits of the SLA; start-ups as assumed; decisions from the first look to the last."""
    found = of_spec(spec_of())
    run = 4 * (100.0 + 100 * 9.0) / 1000
    assert parts(found)["search"]["seconds"] == [pytest.approx(3 * (run + REFERENCE_S + REST_S))] * 2
    assert parts(found)["search"]["launches"] == [3, 3]
    assert parts(found)["gap decision"]["launches"] == [8, 12]
    assert found["gpu_hours"]["left"][0] == pytest.approx(2 * found["left_s"][0] / 3600, abs=1e-3)
    assert any("just meets the SLA" in text for text in found["assumed"])
    assert found["end_ns"] is None


def test_an_engine_is_not_assumed_to_take_longer_than_it_may() -> None:
    """budget.ready_s bounds a start-up."""
    spec = spec_of()
    spec["frameworks"]["ours"]["kind"] = "vllm"
    assert any(f"starts in {min(STARTUP_S, 60):g} s" in text for text in of_spec(spec)["assumed"])


def test_early_stop_makes_a_range_of_the_search() -> None:
    """At least one run of each scenario, at most all."""
    early = {"wrong_stop": 0.01, "launch_noise_pct": 1.0, "noise_pct": None}
    found = of_spec(spec_of(runs=3, early_stop=early))
    assert parts(found)["search"]["runs"] == [3, 9]


def test_a_fixed_rate_takes_as_long_as_its_prompts() -> None:
    """40 prompts at 2 a second."""
    spec = spec_of()
    spec["workload"]["scenarios"] = [{**SHAPE, "request_rate": 2.0}]
    assert any("takes 21 s" in text for text in of_spec(spec)["assumed"])


def test_what_was_measured_replaces_what_was_assumed() -> None:
    """After the search nothing is assumed of its runs; what is done is no longer left."""
    sim = Simulation({}, spec=spec_of())
    begin = expected(sim.c)
    sim.run(until=lambda s: s.c.phase == "baseline")
    found = expected(sim.c)
    assert "search" not in parts(found) and found["done"] == {"launches": 3, "runs": 3}
    assert not any("SLA" in text for text in found["assumed"])
    assert found["left_s"][1] < begin["left_s"][1]
    low, high = found["end_ns"]
    assert low - sim.c.updated_ns == pytest.approx(found["left_s"][0] * 1e9) and high >= low


def test_blocks_that_were_measured_are_not_left() -> None:
    """In the gap decision, launch by launch."""
    sim, lefts = Simulation({}, spec=spec_of()), []
    sim.run(until=lambda s: s.c.phase == "round.gap" and "passed" in s.c.aa)
    while sim.c.phase == "round.gap" and len(lefts) < 4:
        lefts.append(parts(expected(sim.c))["gap decision"]["launches"][1])
        done = sum(e.type == "candidate.stopped" for e in sim.events)
        sim.run(until=lambda s, done=done: sum(e.type == "candidate.stopped" for e in s.events) > done)
    assert lefts[0] == 12 and lefts == sorted(lefts, reverse=True) and lefts[-1] < 12


def test_gpu_hours_count_while_gpus_are_held() -> None:
    """From lease to release, whatever was done in it, times the GPUs."""
    sim = Simulation({}, spec=spec_of(gpus=4))
    sim.run()
    held, since = 0, 0
    for event in sim.events:
        if event.type == "lease.granted":
            since = event.time_ns
        elif event.type == "lease.released":
            held += event.time_ns - since
    assert pace.gpu_seconds(sim.c) == pytest.approx(4 * held / 1e9) and held > 0
    assert expected(sim.c)["parts"] == []


def test_start_ups_from_cold_and_warm_caches_are_kept_apart() -> None:
    """Each has a mean of its own; where one stands for the other the forecast says so."""
    spec = spec_of()
    spec["caches"] = {"reuse": "fair"}
    sim = Simulation({}, spec=spec)
    sim.run(until=lambda s: s.c.phase == "baseline")
    names = {name for name in sim.c.pace if name.startswith("startup/ours")}
    assert names == {"startup/ours/cold", "startup/ours/partly"}
    assert any("warm caches as fast as with cold ones" in text for text in expected(sim.c)["assumed"])


def test_a_halted_campaign_keeps_its_forecast_but_has_no_end() -> None:
    """Nobody knows when it is resumed."""
    sim = Simulation({}, spec=spec_of())
    sim.run(until=lambda s: s.c.phase == "searching")
    sim.record("campaign.paused", {"reason": "lunch"})
    found = expected(sim.c)
    assert found["parts"] and found["end_ns"] is None


def test_the_words_fit_what_they_say() -> None:
    """Ranges, units, budget, assumptions; nothing about GPUs where there are none."""
    found = of_spec(spec_of())
    text = forecast.in_full(found)
    assert text[0].startswith("  search: 3 launches, 3 runs, ")
    assert "on 2 GPUs; " in " ".join(text) and "GPU hours to come" in " ".join(text)
    assert forecast.gpu_hours(of_spec(spec_of(gpus=0))) == ""
    assert [forecast.duration(seconds) for seconds in (59.6, 150, 7200)] == ["60 s", "2 min", "2.0 h"]
    short = spec_of()
    short["budget"]["wall_clock_s"] = 60
    assert any("budget.wall_clock_s ends it before that: 60 s" in line for line in forecast.in_full(of_spec(short)))
