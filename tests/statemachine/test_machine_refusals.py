"""What the machine must refuse: steps out of their phase, decisions that the evidence does not make, forged facts."""

from __future__ import annotations

import pytest
from attacks import ATTACKS, EXTRA, Attack, before
from attacks_loop import LOOP_ATTACKS
from script import JSON, Script
from simulation import Simulation

from ledger.catalogue import MODELS, validate
from ledger.errors import InvalidEvent
from ledger.events import Event
from statemachine.guards import Ask
from statemachine.machine import IllegalEvent, admit
from statemachine.shell import CampaignMachine
from statemachine.state import Campaign, World, to_json
from statemachine.table import DAEMON_FACTS, FACTS

LIVE = {
    *("intake", "knowledge", "searching", "baseline", "planning"),
    *("round.gap", "round.finalizing", "round.profiling", "round.selecting", "round.patching", "round.revalidating"),
    *("round.recording", "round.reviewing"),
}
WHERE: dict[str, set[str]] = {
    "plan.recorded": {"planning"},
    "heldout.checked": {"round.gap"},
    "finalize.opened": {"round.finalizing"},
    "finalize.unchanged": {"round.patching"},
    "patch.quarantined": {"round.revalidating"},
    "review.stopped": {"round.reviewing"},
    "campaign.created": {"draft"},
    "preflight.passed": {"intake"},
    "preflight.failed": {"intake"},
    "workload.frozen": {"knowledge"},
    "search.exhausted": {"searching"},
    "winner.selected": {"baseline"},
    "goodput.found": {"baseline"},
    "baseline.frozen": {"baseline"},
    "loop.started": {"planning"},
    "fairness.checked": {"round.gap"},
    "fairness.violated": {"round.gap"},
    "aa.checked": {"round.gap"},
    "gap.decided": {"round.gap"},
    "profile.captured": {"round.profiling"},
    "tables.produced": {"round.profiling"},
    "pipeline.written": {"round.profiling"},
    "rootcause.written": {"round.profiling"},
    "idea.rejected": {"round.selecting"},
    "patch.refused": {"round.selecting"},
    "patch.proposed": {"round.selecting"},
    "stop.proposed": {"round.selecting"},
    "patch.applied": {"round.patching"},
    "patch.reverted": {"round.patching", "round.revalidating"},
    "patch.accepted": {"round.revalidating"},
    "checkpoint.written": {"round.recording"},
    "review.passed": {"round.reviewing"},
    "review.findings": {"round.reviewing"},
    "review.stalled": {"round.reviewing"},
    "review.failed": {"round.reviewing"},
    "resource.wait_expired": LIVE,
    "budget.exhausted": LIVE,
    "campaign.paused": LIVE,
    "campaign.blocked": {*LIVE, "stopping"},
    "campaign.resumed": {"paused", "blocked"},
    "campaign.cancel_requested": {*LIVE, "paused", "blocked", "stopping"},
    "stop.rejected": {"stopping"},
    "campaign.closed": {"stopping"},
}
"""In which phases a step may happen at all, written down apart from the table."""

RICH: Script = {
    "outputs": {0: "differ"},
    "review": {1: "blocking", 3: "stalled"},
    "propose": {0: "declines_one"},
    "operator": {30: "pause", 350: "human"},
    "launch": {2: "misses_sla", 3: "oom", 9: "vanishes"},
    "gates": {2: "fail"},
}


def refusal(world: World, campaign: str, type_: str, payload: JSON, now_ns: int) -> IllegalEvent | None:
    """What `admit` says against an event; nothing else may come out of it, and the text must be of use."""
    try:
        admit(world, campaign, type_, payload, now_ns)
    except IllegalEvent as refused:
        phase = world.campaigns[campaign].phase if campaign in world.campaigns else "draft"
        assert (refused.campaign, refused.phase, refused.event) == (campaign, phase, type_)
        assert refused.guard and refused.missing
        for part in (campaign, phase, type_, refused.guard, refused.missing):
            assert part in str(refused)
        return refused
    return None


def payloads() -> dict[str, list[JSON]]:
    """For each type what a rich campaign recorded first and last, or what could have been recorded."""
    pool = {type_: [payload] for type_, payload in EXTRA.items()}
    for event in Simulation(RICH).run().events:
        pool[event.type] = [*pool.get(event.type, [])[:1], event.payload]
    return pool


def test_no_step_is_possible_outside_its_phase() -> None:
    """Along a rich campaign, every type of the catalogue is tried at every turn with payloads that were once legal."""
    pool, steps, tried = payloads(), 0, set()

    def watch(sim: Simulation, event: Event) -> None:
        nonlocal steps
        if sim.world.seq % 5 and event.type in ("job.dispatched", "job.finished", "benchmark.started"):
            return
        state = to_json(sim.world)
        for type_, examples in pool.items():
            for payload in examples:
                refused = refusal(sim.world, sim.name, type_, payload, sim.now_ns)
                if type_ not in FACTS and sim.c.phase not in WHERE[type_]:
                    assert refused is not None and refused.guard == "phase", (type_, sim.c.phase)
                    steps += 1
                tried.add((sim.c.phase, type_, refused is None))
        assert to_json(sim.world) == state, "asking changed the state"

    Simulation(RICH, watch=watch).run()
    assert steps > 1000
    assert {phase for phase, _, _ in tried} >= LIVE - {"planning"} | {"paused", "blocked", "stopping", "closed"}
    assert set(pool) | set(DAEMON_FACTS) >= set(MODELS), set(MODELS) - set(pool)


def test_only_the_daemon_speaks_of_itself() -> None:
    """A type of the daemon needs no campaign, every other one needs one, and nothing else is known."""
    for type_ in MODELS:
        if type_ in DAEMON_FACTS:
            assert admit(World(), "", type_, {}, 0) == ""
        else:
            with pytest.raises(IllegalEvent, match="a campaign"):
                admit(World(), "", type_, {}, 0)
    with pytest.raises(IllegalEvent, match="an event type of the catalogue"):
        admit(World(), "x", "daemon.started", {}, 0)


def test_nothing_but_its_creation_begins_a_campaign() -> None:
    """In the draft even facts are refused: there is no campaign that they are about."""
    for type_, examples in payloads().items():
        for payload in examples:
            refused = refusal(World(), "new", type_, payload, 0)
            assert (refused is None) == (type_ == "campaign.created"), type_


MACHINE = CampaignMachine()


@pytest.mark.parametrize("attack", ATTACKS + LOOP_ATTACKS, ids=lambda attack: attack[0])
def test_attack_is_refused_by_its_guard(attack: Attack) -> None:
    """Both machines refuse it, the text names phase, event, guard and what is missing, and nothing changes."""
    *_, type_, make, guard = attack
    m = before(attack)
    _, payload = validate(type_, make(m))
    state = to_json(m.world)
    refused = refusal(m.world, "demo", type_, payload, m.now_ns)
    assert refused is not None, "it was admitted"
    assert refused.guard == guard, str(refused)
    if type_ not in FACTS:
        c = m.world.campaigns.get("demo") or Campaign("demo")
        with pytest.raises(IllegalEvent, match=guard):
            MACHINE.fire(Ask(m.world, c, payload, m.now_ns), type_)
    assert to_json(m.world) == state


@pytest.mark.parametrize("attack", ATTACKS + LOOP_ATTACKS, ids=lambda attack: attack[0])
def test_without_the_attack_the_moment_is_legal(attack: Attack) -> None:
    """The event that the daemon was about to record is admitted there: the attack alone is what is refused."""
    _, script, at, *_ = attack
    m = before(attack)
    if (script, at) != ("no rival", "preflight.passed"):  # the one that the daemon tries and is refused
        admit(m.world, "demo", at, m.payload, m.now_ns, "operator:test" if at.startswith("human") else "daemon")


def test_the_catalogue_refuses_a_pass_with_findings_and_findings_without_any() -> None:
    """Zero findings are part of what a pass is."""
    with pytest.raises(InvalidEvent, match="findings"):
        validate("review.passed", {"round": 0, "findings": [{"text": "x"}]})
    with pytest.raises(InvalidEvent, match="items"):
        validate("review.findings", {"round": 0, "items": []})
