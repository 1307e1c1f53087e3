"""Every ending and every block can be reached, by the road that it is meant for; and roads that once were wrong."""

from __future__ import annotations

import pytest
from invariants import Invariants
from script import JSON, SPEEDS, Script, artifact, spec_with
from simulation import Simulation

from ledger.events import Event
from statemachine.decide import Do, Record, decide
from statemachine.machine import IllegalEvent, admit
from statemachine.table import TERMINALS

LEVEL, FAST = {**SPEEDS, "rival": 10.15}, {**SPEEDS, "rival": 9.0}


def played(script: Script | None = None, **changes: object) -> Simulation:
    return Simulation(script, watch=Invariants(), **changes).run()


def types(sim: Simulation, after: int = 0) -> list[str]:
    return [event.type for event in sim.events[after:]]


def comparing(**changes: JSON) -> JSON:
    """A spec that only compares."""
    return spec_with(**changes) | {"goal": "compare"}


ENDINGS: dict[str, tuple[Script, dict[str, object]]] = {
    "success_ahead": ({}, {}),
    "success_tied": ({}, {"speeds": LEVEL}),
    "no_patch": ({"propose": "declines"}, {}),
    "budget_exhausted": ({"operator": {250: "overdue"}}, {}),
    "compared": ({}, {"spec": comparing()}),
    "max_rounds": ({"patch": "same"}, {"spec": spec_with(budget={"rounds": 1})}),
    "stalled": ({"patch": "same", "review": "stalled"}, {}),
    "cancelled": ({"operator": {250: "cancel"}}, {}),
}


@pytest.mark.parametrize("terminal", ENDINGS)
def test_terminal_is_reached(terminal: str) -> None:
    """A campaign closes with it, and the event that established it is its evidence."""
    script, changes = ENDINGS[terminal]
    sim = played(script, **changes)
    assert (sim.c.phase, sim.c.stop["condition"]) == ("closed", terminal)
    closed = sim.events[-1]
    assert (closed.type, closed.payload["terminal"]) == ("campaign.closed", terminal)
    assert closed.payload["evidence"] == [sim.c.stop["seq"]]


def test_a_stage_near_the_roofline_stops_the_campaign() -> None:
    """What a patch could gain is smaller than a tenth: the campaign closes at its limit, on the report's figures."""
    sim = played({"propose": "declines", "explain": "at_limit"})
    assert (sim.c.phase, sim.c.stop["condition"]) == ("closed", "at_limit")


def test_at_limit_needs_its_evidence() -> None:
    """Without a limit in the report of this round, the condition is refused, whoever proposes it."""
    sim = Simulation({"propose": "declines"}, watch=Invariants())
    sim.run(until=lambda s: s.c.phase == "round.selecting" and s.c.rejected_rows and isinstance(decide(s.c)[0], Record))
    (usual,) = decide(sim.c)
    assert isinstance(usual, Record)
    with pytest.raises(IllegalEvent, match="near_the_limit"):
        sim.record("stop.proposed", {**usual.payload, "condition": "at_limit"})


@pytest.mark.parametrize("condition", ["external_gap"])
def test_terminal_is_reached_by_a_proposal(condition: str) -> None:
    """With every cited row dealt with, a stop may be proposed for another condition than no_patch."""
    sim = Simulation({"propose": "declines"}, watch=Invariants())
    sim.run(until=lambda s: s.c.phase == "round.selecting" and s.c.rejected_rows and isinstance(decide(s.c)[0], Record))
    (usual,) = decide(sim.c)
    assert isinstance(usual, Record)
    sim.record("stop.proposed", {**usual.payload, "condition": condition})
    sim.run()
    assert (sim.c.phase, sim.c.stop["condition"]) == ("closed", condition)


def test_every_terminal_has_its_test() -> None:
    """None of the declared terminals is left out above."""
    assert {*ENDINGS, "at_limit", "external_gap"} == set(TERMINALS)


BLOCKS: dict[str, tuple[str, Script, dict[str, object]]] = {
    "the host is in use": ("resources", {"lease": "kept"}, {}),
    "no lease can be had": ("resources", {"lease": "fails"}, {}),
    "a dirty checkout": ("workspace", {"workspace": "dirty"}, {}),
    "no competitor starts": ("workspace", {"probe": "unsupported"}, {}),
    "a person stops it": ("human", {"operator": {56: "human"}, "person": "leave"}, {}),
    "a question of the implementer": ("human", {"propose": "asks", "person": "leave"}, {}),
    "a gain too good to be true": ("human", {"patch": "wonder", "person": "leave"}, {}),
    "a gain that is gone on other requests": ("human", {"heldout": "gone", "patch": "leap", "person": "leave"}, {}),
    "nobody passes the SLA": ("evidence", {"launch": "misses_sla"}, {}),
    "noise, and no call": ("evidence", {}, {"noise": 0.2}),
    "a row without a number": ("evidence", {"launch": "broken_row"}, {}),
    "a profile that fails": ("evidence", {"profile": "rejected"}, {}),
    "rows of another stage": ("evidence", {"explain": "other_stage"}, {}),
    "no proposal": ("evidence", {"propose": "garbage"}, {}),
    "no verdict": ("evidence", {"review": "unusable"}, {}),
    "an unfair comparison": ("evidence", {}, {"spec": spec_with()}),
}
BLOCKS["an unfair comparison"][2]["spec"]["frameworks"]["rival"]["options"] = {"quantization": "fp8"}  # type: ignore


@pytest.mark.parametrize("cause", BLOCKS)
def test_block_is_reached_and_says_what_to_do(cause: str) -> None:
    """What a person must mend blocks the campaign with the kind of it, a reason and the next move."""
    kind, script, changes = BLOCKS[cause]
    sim = played(script, **changes)
    assert (sim.c.phase, sim.c.blocked["kind"]) == ("blocked", kind)
    assert "sotactl resume" in sim.c.blocked["next"] or kind == "human"
    assert not sim.c.lease, "a halted campaign lets go of the host"


def test_a_blocked_campaign_goes_on_where_it_was_when_the_cause_is_gone() -> None:
    """After as many failures as block it, one resume is enough."""
    for script in ({"lease": dict.fromkeys(range(3), "fails")}, {"profile": dict.fromkeys(range(3), "rejected")}):
        sim = played(script)
        assert sim.c.phase == "closed"
        assert types(sim).count("campaign.blocked") == types(sim).count("campaign.resumed") == 1


@pytest.mark.parametrize("point", ["clean_up", "report"])
def test_a_campaign_that_cannot_finish_blocks_and_returns_to_its_ending(point: str) -> None:
    """Clean-up or report failing for good blocks the campaign; resumed, it closes with the ending it had."""
    outcome = dict.fromkeys(range(3), "fails")
    sim = played({point: outcome})
    assert (sim.c.phase, sim.c.stop["condition"]) == ("closed", "success_ahead")
    assert types(sim).count("campaign.blocked") == 1


def test_an_unfair_comparison_is_measured_again_once() -> None:
    """The first finding sends the campaign back to the search, the second asks a person."""
    spec = BLOCKS["an unfair comparison"][2]["spec"]
    sim = played(spec=spec)
    assert types(sim).count("fairness.violated") == 1
    assert "fixed options" in sim.c.blocked["reason"]


def test_another_world_starts_over_at_intake() -> None:
    """A mismatch at resume voids every measurement; the campaign probes, searches and freezes anew, and ends."""
    sim = Simulation({"operator": {300: "pause"}, "person": {0: "mismatch"}}, watch=Invariants())
    sim.run(until=lambda s: s.events[-1].type == "campaign.resumed")
    assert sim.c.phase == "intake"
    assert not any(launch.rows for launch in sim.c.launches.values())
    at = len(sim.events)
    sim.run()
    assert sim.c.phase == "closed"
    assert types(sim, at).count("baseline.frozen") == types(sim, at).count("loop.started") == 1
    commits = {e.payload["commit"] for e in sim.events[at:] if e.type == "candidate.launched"}
    assert "ours-0" not in commits and "ours-1" in commits


def test_a_launch_under_way_when_the_world_changed_counts_nothing() -> None:
    """What an old server still measures after the start over is on record, and in no row."""
    sim = Simulation(watch=Invariants())
    sim.run(until=lambda s: s.c.phase == "round.gap" and s.events[-1].type == "candidate.ready")
    old = sim.events[-1].payload["launch"]
    sim.record("campaign.paused", {"reason": "x"})
    sim.record("resume.mismatch", {"what": "checkout ours", "expected": "a", "found": "b"})
    sim.record("campaign.resumed", {"checks": []})
    at = len(sim.events)
    sim.run(until=lambda s: "lease.granted" in types(s, at) or s.events[-1].type == "workspace.checked")
    assert "benchmark.finished" in types(sim, at)
    assert (sim.c.launches[old].status, sim.c.launches[old].rows) == ("lost", [])


def test_a_launch_that_ended_stays_ended() -> None:
    """Late facts about it are recordable and change no evidence."""
    sim = Simulation({"launch": {1: "oom"}}, watch=Invariants())
    sim.run(until=lambda s: s.c.phase == "baseline")
    for launch in list(sim.c.launches.values()):
        before = (launch.status, list(launch.rows))
        who = {"launch": launch.launch, "attempt": launch.attempt}
        sim.record("candidate.ready", {**who, "startup_s": 1.0})
        sim.record("candidate.stopped", who)
        sim.record("candidate.lost", {**who, "reason": "late"})
        assert (launch.status, list(launch.rows)) == before
    sim.run()
    assert sim.c.stop["condition"] == "success_ahead"


@pytest.mark.parametrize(("point", "gate"), [("tests", "tests"), ("outputs", "output_equivalence")])
def test_a_failed_check_refuses_the_patch_even_without_its_gate_event(point: str, gate: str) -> None:
    """An activity that died between its finding and the gate event cannot leave a failed patch undecided."""
    sim = played({point: {0: "half"}})
    attempt = sim.c.attempts["a1"]
    assert (attempt.status, attempt.refused_by) == ("reverted", gate)
    assert sim.c.phase == "closed"


def test_an_aa_check_needs_a_call() -> None:
    """Blocks that are set aside are replaced before the target's command is said to agree with itself."""
    sim = Simulation({"launch": {6: "stalls"}}, watch=Invariants())
    sim.run(until=lambda s: "aa.checked" in types(s)[-1:])
    payload = sim.events[-1].payload
    assert [found["verdict"] for found in payload["decisions"].values()] == ["same"]
    assert payload["decisions"]["chat"]["set_aside"] and payload["decisions"]["chat"]["n"] == 4


def test_findings_lead_to_a_fix_and_a_fix_to_another_review() -> None:
    """Blocking findings on an accepted patch reopen patching on top of it, in the same round."""
    sim = played({"review": {0: "blocking"}})
    assert sim.c.attempts["a1-fix1"].base == sim.c.attempts["a1"].commit
    assert sim.c.attempts["a1-fix1"].round == sim.c.attempts["a1"].round
    assert sim.c.phase == "closed"


def test_a_report_of_another_ending_is_not_published() -> None:
    """Cancelled, and confirmed, after the report of a success was written: it is written again."""
    sim = Simulation(speeds=FAST, watch=Invariants())
    sim.run(until=lambda s: s.events[-1].type == "report.published")
    sim.record("campaign.cancel_requested", {"by": "operator", "confirmed": True})
    sim.run()
    assert sim.c.stop["condition"] == "cancelled"
    assert types(sim).count("report.published") == 2


def test_cancelling_ends_what_runs_before_it_cleans_up() -> None:
    """The running job is lost, then clean-up begins; late facts of it are still recordable afterwards."""
    sim = Simulation(watch=Invariants())
    sim.run(until=lambda s: s.events[-1].type == "candidate.ready")
    launch = sim.events[-1].payload
    sim.record("campaign.cancel_requested", {"by": "operator"})
    sim.run()
    after = types(sim, after=launch_end(sim.events, "campaign.cancel_requested"))
    assert after[:2] == ["job.lost", "job.dispatched"]
    sim.record("candidate.stopped", {"launch": launch["launch"], "attempt": launch["attempt"]})
    assert sim.c.phase == "closed"


def launch_end(events: list[Event], type_: str) -> int:
    return next(number for number, event in enumerate(events) if event.type == type_) + 1


def test_two_campaigns_share_a_host_one_at_a_time() -> None:
    """The second is told who holds the host; it gets it when the first lets go."""
    first = Simulation()
    first.run(until=lambda s: bool(s.c.lease))
    second = Simulation(name="second", world=first.world, events=first.events)
    second.run(until=lambda s: isinstance(decide(s.c)[0], Do) and "lease/0" in s.c.jobs)
    with pytest.raises(IllegalEvent, match=r"lease\.released by campaign demo"):
        admit(second.world, "second", "lease.granted", {"host": "local", "gpu_ids": []}, second.now_ns)
    first.run()
    second.run()
    assert {c.phase for c in first.world.campaigns.values()} == {"closed"}


def test_a_comparison_ends_with_its_decision() -> None:
    """Nothing is profiled, planned or patched; who leads is said, and par is par."""
    sim = played(spec=comparing())
    assert "profile.captured" not in types(sim) and sim.c.stop["reason"] == "the target is behind rival"
    assert played(spec=comparing(), speeds=LEVEL).c.stop["condition"] == "success_tied"


QPS = {"lower": 2.0, "upper": 32.0, "tolerance": 0.1, "max_rounds": 5}


def test_goodput_is_searched_for_every_winner_before_the_baseline_is_frozen() -> None:
    """The rate found lies below the capacity and within the bracket; the tests are on record."""
    sim = played(spec=comparing(search={"qps": QPS}), noise=0.0)
    found = {e.payload["framework"]: e.payload for e in sim.events if e.type == "goodput.found"}
    order = types(sim)
    assert set(found) == set(SPEEDS)
    assert max(i for i, type_ in enumerate(order) if type_ == "goodput.found") < order.index("baseline.frozen")
    for framework, capacity in SPEEDS.items():
        passing, failing = found[framework]["rate"], [t["rate"] for t in found[framework]["tests"] if not t["passed"]]
        assert passing <= capacity < min(failing) and min(failing) - passing <= 0.1 * passing + 1.0
        assert sim.c.winners[f"{framework}/chat"]["goodput"]["rate"] == passing


def test_goodput_of_a_server_that_dies_is_unknown() -> None:
    """The failure is the result, and the campaign goes on."""
    sim = played({"launch": {4: "failed"}}, spec=comparing(search={"qps": QPS}))
    bounds = [e.payload["bound"] for e in sim.events if e.type == "goodput.found"]
    assert bounds.count("unknown") == 1 and sim.c.phase == "closed"


def test_another_rate_than_the_search_asks_for_is_refused() -> None:
    """A daemon cannot measure the rates that suit it."""
    sim = Simulation(spec=comparing(search={"qps": QPS}))
    sim.run(until=lambda s: any(launch.purpose == "rate" for launch in s.c.launches.values()))
    launch = next(launch for launch in sim.c.launches.values() if launch.purpose == "rate")
    seed = sim.c.jobs[launch.launch].params["seeds"]["chat"][0]
    row = sim.row(9.0, 40.0) | {"workload": {"request_rate": 1.0}}
    about = {"launch": launch.launch, "attempt": 1, "scenario": "chat", "run": 0, "seed": seed}
    with pytest.raises(IllegalEvent, match=r"2\.0 requests/s"):
        sim.record("benchmark.finished", {**about, "row": row, "raw": artifact("")})


def test_a_hopeless_framework_is_not_tried_to_the_end() -> None:
    """Three candidates in a row fail alike: the rest is skipped with the reason, and counted as skipped."""
    spec = comparing(search={"max_failures_in_a_row": 3})
    spec["frameworks"]["third"]["candidates"] = [{"id": f"c{n}", "flags": {"n": n}} for n in range(6)]
    order = [e.payload["framework"] for e in played(spec=spec).events if e.type == "candidate.launched"]
    of_third = [number for number, framework in enumerate(order) if framework == "third"]
    sim = played({"launch": dict.fromkeys(of_third[:3], "oom")}, spec=spec)
    skipped = [e.payload for e in sim.events if e.type == "candidate.skipped"]
    assert [p["candidate"] for p in skipped] == ["c3", "c4", "c5"] and "oom" in skipped[0]["reason"]
    exhausted = next(
        e.payload for e in sim.events if e.type == "search.exhausted" and e.payload["framework"] == "third"
    )
    assert (exhausted["failed"], exhausted["skipped"]) == (3, 3)


def test_frameworks_of_different_kinds_are_compared_by_what_their_flags_mean() -> None:
    """Other flags are fine; another KV cache type is not; what nobody knows hinders nobody."""
    spec = comparing()
    for name, kind in (("ours", "sglang"), ("rival", "vllm"), ("third", "vllm")):
        spec["frameworks"][name] |= {"kind": kind, "options": {"flags-of": kind}}
    served = {"ours": "auto", "rival": "fp8", "third": "auto"}
    unfair = played(spec=spec, kv_dtypes=served)
    assert unfair.c.phase == "blocked" and "kv_cache_dtype differs" in unfair.c.blocked["reason"]
    assert played(spec=spec, kv_dtypes={**served, "rival": "auto"}).c.phase == "closed"
    assert played(spec=spec, kv_dtypes={**served, "rival": None}).c.phase == "closed"
