"""Random legal campaigns: whatever happens in the world, the state stays sound and the campaign comes to an end."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invariants import Invariants
from script import POINTS, SPEEDS, Script, spec_with
from simulation import Simulation

from statemachine.decide import decide
from statemachine.fold import advance, fold
from statemachine.judge import Judge
from statemachine.state import World, from_json, to_json

OFTEN = {"operator": 700, "late": 700, "interrupt": 600, "launch": 80}  # how often a campaign passes there
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


def scripts() -> st.SearchStrategy[Script]:
    """A few things that go another way than usual, anywhere in a campaign."""
    points = {
        point: st.dictionaries(st.integers(0, OFTEN.get(point, 5)), st.sampled_from(outcomes[1:]), max_size=3)
        for point, outcomes in POINTS.items()
    }
    return st.fixed_dictionaries({}, optional=points)


CAMPAIGNS = st.fixed_dictionaries(
    {
        "script": scripts(),
        "seed": st.integers(0, 99),
        "noise": st.sampled_from([0.002, 0.002, 0.02, 0.2]),
        "speeds": st.sampled_from([SPEEDS, {**SPEEDS, "rival": 10.15}, {**SPEEDS, "rival": 9.5}]),
        "scenarios": st.sampled_from([1, 1, 2]),
        "rounds": st.integers(1, 4),
    }
)


def play(script: Script, seed: int, noise: float, speeds: dict[str, float], scenarios: int, rounds: int) -> Simulation:
    spec = spec_with(scenarios=scenarios, budget={"rounds": rounds})
    return Simulation(script, seed=seed, noise=noise, speeds=speeds, spec=spec, watch=Invariants()).run()


def check_end(sim: Simulation) -> None:
    """It ended where a campaign may end, and a person's part is all that can be missing."""
    assert sim.c.phase in ("closed", "blocked")
    if sim.c.phase == "closed":
        assert decide(sim.c) == []


def check_replay(sim: Simulation) -> None:
    """The state is nothing but the fold of the events, however it is folded, kept or copied."""
    state = to_json(sim.world)
    assert to_json(fold(World(), sim.events)) == state == to_json(fold(World(), sim.events))
    assert to_json(from_json(state)) == state
    middle = len(sim.events) // 2
    half = fold(World(), sim.events[:middle])
    before = to_json(half)
    assert to_json(fold(from_json(before), sim.events[middle:])) == state
    assert to_json(fold(half, sim.events[middle:])) == state
    assert to_json(half) == before, "fold changed what it was given"


@given(CAMPAIGNS)
@QUICK
def test_every_campaign_stays_sound_and_ends(campaign: dict[str, object]) -> None:
    """Invariants hold after every event, it ends within a bound, replays to the same bytes, and the judge agrees."""
    sim = play(**campaign)
    check_end(sim)
    check_replay(sim)
    judge = Judge()
    assert [text for event in sim.events if (text := judge(event))] == []
    assert to_json(judge.world) == to_json(sim.world)


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(CAMPAIGNS)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_thousands_of_campaigns_stay_sound_and_end(campaign: dict[str, object]) -> None:
    """The same, searched far wider."""
    sim = play(**campaign)
    check_end(sim)
    check_replay(sim)


def test_deciding_changes_nothing_and_repeats_itself() -> None:
    """Asked twice in the same state, decide says the same and leaves the state as it was."""

    def watch(sim: Simulation, event: object) -> None:
        if sim.world.seq % 10 == 0:
            before = to_json(sim.world)
            assert decide(sim.c) == decide(copy.deepcopy(sim.c))
            assert to_json(sim.world) == before

    Simulation({"outputs": {0: "differ"}, "review": {1: "blocking"}}, watch=watch).run()


def test_a_state_kept_anywhere_goes_on_as_if_it_had_not_been_kept() -> None:
    """Snapshots never change a result: rebuilt after every event, the state still folds to the same bytes."""
    events = Simulation({"operator": {40: "pause", 200: "human"}}).run().events
    kept, straight = World(), World()
    for event in events:
        kept = from_json(to_json(kept))
        advance(kept, event)
        advance(straight, event)
        assert kept == straight


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"campaigns": {"x": {}}}', '{"campaigns": {}, "other": 1}'])
def test_a_foreign_snapshot_is_a_plain_error(text: str) -> None:
    """What to_json did not write is refused as a ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r".+"):
        from_json(text)


def test_the_same_script_gives_the_same_campaign() -> None:
    """The tests here repeat: script and seed decide every event."""
    first, second = (Simulation({"launch": {5: "oom"}}, seed=3).run() for _ in range(2))
    assert [event.payload for event in first.events] == [event.payload for event in second.events]
    assert json.loads(to_json(first.world)) == json.loads(to_json(second.world))
