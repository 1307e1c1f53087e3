"""Compiled code: which launches share it, what is recorded of it, and what the machine refuses."""

from __future__ import annotations

from collections import defaultdict

import pytest
from script import JSON, spec_with
from simulation import Simulation

from statemachine import caches
from statemachine.machine import IllegalEvent


def played(reuse: str, script: JSON | None = None) -> Simulation:
    spec = spec_with()
    spec["caches"] = {"reuse": reuse, "folder": None}
    sim = Simulation(script or {}, spec=spec)
    sim.run()
    return sim


def told(sim: Simulation) -> list[tuple[str, str, str, str]]:
    """Purpose, commit, state and folder of every launch."""
    found = [event.payload for event in sim.events if event.type == "candidate.launched"]
    return [(p["purpose"], p["commit"], p["caches"]["state"], p["caches"]["folder"]) for p in found]


def test_no_folder_ever_holds_the_code_of_two_commits() -> None:
    """Whatever is reused: a patched commit never starts from another commit's code."""
    for reuse in ("fair", "all", "off"):
        commits = defaultdict(set)
        for _, commit, _, folder in told(played(reuse)):
            commits[folder].add(commit)
        assert commits and all(len(found) == 1 for found in commits.values())


def test_launches_that_judge_a_patch_start_cold_on_both_sides() -> None:
    """One choice that a compiler made by luck must not count in every block."""
    found = told(played("fair"))
    judged = {state for purpose, _, state, _ in found if purpose in ("revalidate", "heldout")}
    assert judged == {"cold"}
    assert {state for purpose, _, state, _ in found if purpose == "gap"} >= {"warm"}


def test_a_search_goes_from_cold_to_partly_to_warm() -> None:
    """The first candidate of a commit finds nothing, the next one what others left, the A/A check its own."""
    states = [(purpose, state) for purpose, commit, state, _ in told(played("fair")) if commit == "ours-0"]
    assert states[:3] == [("search", "cold"), ("search", "partly"), ("aa", "warm")]


def test_off_never_reuses_anything() -> None:
    """Every launch has a folder of its own."""
    found = told(played("off"))
    assert {state for _, _, state, _ in found} == {"cold"}
    assert len({folder for *_, folder in found}) == len(found)


def test_a_launch_that_did_not_come_up_leaves_a_folder_that_is_not_cold() -> None:
    """It may have compiled half of it."""
    sim = played("fair", {"launch": {0: "oom"}})
    assert [state for _, commit, state, _ in told(sim) if commit == "ours-0"][:2] == ["cold", "partly"]


@pytest.mark.parametrize(
    ("change", "missing"),
    [({"state": "warm"}, "caches that are partly"), ({"folder": "/caches/rival-rival-0"}, "a cache folder of its own")],
)
def test_what_is_told_of_caches_must_be_so(change: JSON, missing: str) -> None:
    """A state that the launches before contradict, or a folder of another's code: refused."""
    spec = spec_with()
    spec["caches"] = {"reuse": "fair"}
    del spec["frameworks"]["third"]
    sim = Simulation({}, spec=spec)
    sim.run(until=lambda s: sum(e.type == "candidate.launched" for e in s.events) == 3)
    honest = sim.events[-1].payload
    assert (honest["framework"], honest["candidate"]) == ("ours", "wide")
    fresh = Simulation({}, spec=spec)
    fresh.run(until=lambda s: len(s.events) == len(sim.events) - 1)
    with pytest.raises(IllegalEvent, match=missing) as refused:
        fresh.record("candidate.launched", {**honest, "caches": {**honest["caches"], **change}})
    assert refused.value.guard == "caches_as_used"


def test_a_judged_launch_may_not_take_a_used_folder() -> None:
    """Where each launch compiles anew, a folder that another used is refused."""
    sim = played("fair")
    used = next(iter(sim.c.caches))
    owner = sim.c.caches[used]
    launched = {
        "framework": owner["framework"],
        "commit": owner["commit"],
        "purpose": "revalidate",
        "candidate": "base",
    }
    assert "a fresh cache folder" in caches.mistake(sim.c, {**launched, "caches": {"state": "warm", "folder": used}})
