"""The loop's ledgers and the report's chapters on them: projections of legal campaigns, at every moment of them."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ledger.catalogue import validate
from ledger.events import Event
from sotad.api.past import events_in
from sotad.report import build
from sotad.report.agents import spent
from sotad.report.attempts import attempt_entries
from sotad.report.checkpoint import checkpoint_of
from sotad.report.digests import digest_entries
from sotad.report.facts import Facts
from sotad.report.gpus import gpu_blocks
from sotad.report.ideas import idea_entries
from sotad.report.issues import issue_entries
from sotad.report.ledgers import ledger_files
from sotad.report.lineage import lineage
from sotad.report.optimizations import optimization_entries
from sotad.report.people import waits
from sotad.report.plans import criteria, plan_of
from statemachine.fold import advance
from statemachine.state import Campaign, World

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "statemachine"))
from script import POINTS, spec_with  # noqa: E402
from simulation import Simulation  # noqa: E402

JSON = dict[str, Any]
GOLDEN = sorted((HERE.parent / "golden").glob("*.jsonl.gz"))
EVENTFUL: JSON = {"outputs": {0: "differ"}, "review": {1: "blocking"}, "usage": {1: "unknown"}, "ideas": {1: "none"}}


def gone(digest: str) -> bytes:
    """No artifact can be read."""
    raise KeyError(digest)


def facts(sim: Simulation) -> Facts:
    return Facts(sim.c, sim.events, gone)


def play(script: JSON, **spec: JSON) -> Simulation:
    return Simulation(script, spec=spec_with(**spec)).run()


@pytest.fixture(scope="module")
def loop() -> Simulation:
    """A refused patch, an accepted one, a fix of it, and nothing left to simplify."""
    return play(EVENTFUL, hardware={"gpu_ids": [0, 1]})


def entries(files: dict[str, bytes], name: str) -> list[JSON]:
    return [json.loads(line) for line in files[name].splitlines()]


def report(sim: Simulation) -> str:
    return build(sim.c, sim.events, gone)["final_report.md"].decode()


def chapter(text: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert found, f"the report has no chapter {title}"
    return found[1]


# --- attempts ---------------------------------------------------------------------------------------------


def test_every_attempt_is_an_entry_with_kind_parent_and_end(loop: Simulation) -> None:
    """Refused, accepted, fixed and simplified alike; a fix builds on what it mends."""
    found = [(e["attempt_id"], e["kind"], e["parent"], e["verdict"]) for e in attempt_entries(facts(loop))]
    assert found == [
        ("a1", "patch", None, "reverted"),
        ("a2", "patch", None, "accepted"),
        ("a2-fix1", "fix", "a2", "accepted"),
        ("f1", "finalize", "a2-fix1", "unchanged"),
    ]


def test_an_attempt_says_what_it_was_for_and_what_refused_it(loop: Simulation) -> None:
    """Contract, evidence of its own round, claim, gates, and the failure with its reason."""
    first, second, *_ = attempt_entries(facts(loop))
    assert first["contract"]["criteria"] == ["AC-1"]
    assert first["claimed"]["text"] == "done"
    assert first["failure"]["gate"] == "output_equivalence"
    assert first["accuracy"]["outputs"]["differing"] == 2
    assert first["effect"] == {}
    at = {event.seq: event for event in loop.events}
    for type_ in ("gap.decided", "tables.produced", "rootcause.written", "idea.recorded"):
        assert at[first["evidence"][type_]].type == type_
        assert at[first["evidence"][type_]].payload["round"] == 0
    assert "idea.recorded" not in second["evidence"], "no idea was recorded in the second round"
    assert second["accuracy"]["timed_outputs"]["passed"] is True


def test_the_effect_of_an_attempt_is_what_its_blocks_measured(loop: Simulation) -> None:
    """Before and after agree with the gain that was decided on, within the two ways to average."""
    for entry in attempt_entries(facts(loop))[1:3]:
        effect = entry["effect"]["chat"]
        assert effect["lo_pct"] <= effect["gain_pct"] <= effect["hi_pct"]
        assert 100 * math.log(effect["after"] / effect["before"]) == pytest.approx(effect["gain_pct"], abs=0.05)


def test_an_attempt_costs_what_its_servers_and_agents_used(loop: Simulation) -> None:
    """GPU seconds are held seconds times the GPUs; tokens that nobody reported are counted as unknown."""
    first, second, *_ = attempt_entries(facts(loop))
    assert second["host_s"] > 0
    assert second["gpu_s"] == 2 * second["host_s"]
    assert (first["agents"]["calls"], first["agents"]["cost_usd"]) == (3, 1.0)
    assert (first["agents"]["cost_unknown"], first["agents"]["tokens_unknown"]) == (1, 1)
    calls = loop.c.spent["calls"]
    assert sum(e["agents"]["calls"] for e in attempt_entries(facts(loop))) == calls, "no call is counted twice or lost"


def test_the_hosts_cpu_is_told_with_the_sample_that_took_most_of_it() -> None:
    """The median of all samples and the worst, disturbed ones included; nothing for ledgers from before it was read."""
    about = {"launch": "l", "attempt": 1, "scenario": "chat", "run": 0, "seed": 1}
    gpu = {"index": 0, "uuid": "GPU-a"}
    events = [Event(1, "c", 1, 1, 1, "lease.granted", 1, "daemon", None, None, {"gpus": [gpu]}, b"")]
    for seq, cores in enumerate((0.1, 2.5, 0.2), start=2):
        gpus = {"raw": {}, "readings": 2, "gpus": [gpu], "cpu": {"busy_cores": 10 * cores, "stolen_cores": cores}}
        events.append(
            Event(seq, "c", seq, seq, 1, "benchmark.finished", 1, "daemon", None, None, {**about, "gpus": gpus}, b"")
        )
    text = str(gpu_blocks(Facts(Campaign("c"), events, gone)))
    assert "2.00 cores were busy in the median sample, 25.00 at most [#3]" in text
    assert "0.20 cores were stolen by its hypervisor in the median sample, 2.50 at most [#3]" in text
    old = [
        event._replace(payload={**event.payload, "gpus": {**event.payload["gpus"], "cpu": {}}}) for event in events[1:]
    ]
    assert "cores" not in str(gpu_blocks(Facts(Campaign("c"), [events[0], *old], gone)))


def test_gpu_seconds_are_unknown_where_no_gpu_is_named() -> None:
    """A framework may take a GPU by itself: that is not known to be zero."""
    assert {entry["gpu_s"] for entry in attempt_entries(facts(play({})))} == {None}


def test_an_open_attempt_of_a_cancelled_campaign_is_abandoned() -> None:
    """It stays in the ledger and is called what it is."""
    sim = Simulation({})
    sim.run(until=lambda s: s.c.phase == "round.revalidating")
    sim.record("campaign.cancel_requested", {"by": "operator"})
    assert [entry["verdict"] for entry in attempt_entries(facts(sim.run()))] == ["abandoned"]


# --- optimizations, ideas, lineage, digests ------------------------------------------------------------------


def test_optimizations_are_the_accepted_gains_and_add_up(loop: Simulation) -> None:
    """Cumulative gain is the sum; the residual gap is the next decision's."""
    found = optimization_entries(facts(loop))
    assert [entry["attempt_id"] for entry in found] == ["a2", "a2-fix1"]
    assert found[1]["cumulative_gain_pct"] == pytest.approx(sum(entry["geomean_gain_pct"] for entry in found))
    last = next(e for e in loop.events if e.type == "gap.decided" and e.seq > found[0]["event"])
    assert found[0]["residual_gap_pct"] == {"chat": last.payload["decisions"]["chat"]["g_pct"]}


def test_a_simplification_that_gains_nothing_is_no_optimization() -> None:
    """It may be accepted for losing nothing; the ledger admits only what is measurably better."""
    sim = play({"finalize": "changed", "patch": {0: "leap", 1: "same"}})
    assert [a.status for a in sim.c.attempts.values() if a.kind == "finalize"] == ["accepted"]
    assert [entry["attempt_id"] for entry in optimization_entries(facts(sim))] == ["a1"]


def test_ideas_have_origin_status_and_the_attempts_that_they_led_to(loop: Simulation) -> None:
    """A cited row is tried, one that nobody took up is open; a recorded idea about the row shares its fate."""
    by_name = {entry["idea_id"]: entry for entry in idea_entries(facts(loop))}
    assert (by_name["r0/decode/bmm"]["status"], by_name["r0/decode/bmm"]["attempts"]) == ("tried", ["a1"])
    assert by_name["r0/decode/copy"]["status"] == "open"
    recorded = [entry for entry in by_name.values() if entry["applicability"] == "here"]
    assert [(entry["round"], entry["status"]) for entry in recorded] == [(0, "tried")]


def test_a_rejected_idea_keeps_its_reason() -> None:
    """Declined rows are rejected, with the words of the one who declined."""
    found = idea_entries(facts(play({"propose": "declines"})))
    assert found
    assert {(entry["status"], entry["reason"]) for entry in found} == {("rejected", "no idea")}


def test_lineage_leads_from_the_champion_to_the_base(loop: Simulation) -> None:
    """Every version names the one that it was made from; exactly the champion is selected."""
    versions = {entry["version_id"]: entry for entry in lineage(facts(loop))}
    assert [name for name, entry in versions.items() if entry["selected"]] == [loop.c.champion]
    at, path = loop.c.champion, []
    while at is not None:
        path.append(versions[at]["result"])
        at = versions[at]["parent_id"]
    assert path == ["accepted", "accepted", "base"]


def test_profile_digests_go_stale_with_the_champion(loop: Simulation) -> None:
    """Each capture is an entry with its tables and its environment; those of past rounds say that they are stale."""
    found = digest_entries(facts(loop))
    captured = [event.seq for event in loop.events if event.type == "profile.captured"]
    assert [entry["event"] for entry in found] == captured
    assert all(entry["stale"] for entry in found), "the loop went on after every one of them"
    assert all(entry["dominant_rows"] and entry["environment"]["host"] for entry in found)
    ours, theirs = ({entry["command_digest"] for entry in found if entry["side"] == s} for s in ("target", "leader"))
    assert len(ours) == len(theirs) == 1
    assert ours != theirs
    early = Simulation({}).run(until=lambda s: s.c.phase == "round.selecting")
    assert not any(entry["stale"] for entry in digest_entries(facts(early)))


# --- issues, plan, people, agents ---------------------------------------------------------------------------


def test_an_issue_lives_from_its_verdict_to_the_one_that_saw_it_mended(loop: Simulation) -> None:
    """Raised, a fix opened on it, resolved."""
    (entry,) = issue_entries(facts(loop))
    assert (entry["id"], entry["status"], entry["attempt_id"]) == ("i1", "resolved", "a2")
    assert [step["what"] for step in entry["life"]] == ["raised", "fix", "resolved"]
    at = {event.seq: event.type for event in loop.events}
    types = [at[step["event"]] for step in entry["life"]]
    assert types == ["verdict.recorded", "review.findings", "verdict.recorded"]


def test_the_plan_shows_each_criterion_with_the_latest_word_on_it() -> None:
    """Status and evidence come from reviews alone; without one it is not judged."""
    untouched = facts(play({}))
    assert [(found["id"], found["status"]) for found in criteria(untouched)] == [("AC-1", "not judged yet")]
    sim = Simulation({}).run(until=lambda s: s.c.phase == "closed")
    judged = next(e for e in sim.events if e.type == "verdict.recorded")
    said = [{"id": "AC-1", "status": "MET", "evidence": "#7"}]
    told = [e._replace(payload={**e.payload, "criteria": said}) if e is judged else e for e in sim.events]
    (found,) = criteria(Facts(sim.c, told, gone))
    assert (found["status"], found["evidence"], found["event"]) == ("MET", "#7", judged.seq)


def test_an_amended_plan_is_the_plan_in_force() -> None:
    """Version and digest are the amendment's; the chapter names who asked and that it was approved."""
    sim = play({"operator": {100: "amend"}})
    amended = [event for event in sim.events if event.type == "plan.amended"]
    assert amended, "the script amends the plan"
    found = plan_of(facts(sim))
    assert (found["version"], found["digest"], found["plan"]) == (2, sim.c.plan["digest"], sim.c.plan["plan"])
    assert f"version 2 [#{amended[0].seq}]" in chapter(report(sim), "Plan")


def test_questions_and_quarantines_are_in_the_report_with_their_replies() -> None:
    """What waited for a person, who replied, and what became of the patch that was too good."""
    sim = play({"propose": {0: "asks"}, "patch": {0: "wonder"}})
    found = {entry["subject"]: entry for entry in waits(facts(sim))}
    assert found["question:1"]["reply"]
    assert found["attempt:a1"]["reply"].startswith("approved")
    assert sim.c.answers.keys() == {subject for subject, entry in found.items() if entry["reply"]}
    text = report(sim)
    assert "which backend?" in chapter(text, "Questions and approvals")
    assert "| a1 |" in chapter(text, "Quarantined patches")
    assert "| chat |" in chapter(text, "Held-out check")


def test_what_agents_did_not_report_is_unknown_never_nothing(loop: Simulation) -> None:
    """Sums lack it and say so; without any report there is no sum."""
    calls = [event for event in loop.events if event.type == "agent.finished"]
    used = spent(calls)
    known = [call for call in calls if call.payload.get("usage")]
    assert used["input_tokens"] == sum(call.payload["usage"]["input_tokens"] for call in known)
    assert used["cost_unknown"] == used["tokens_unknown"] == len(calls) - len(known) == 1
    assert spent([call for call in calls if call not in known])["cost_usd"] is None
    assert "unknown" in chapter(report(loop), "Agents")


def test_a_partly_reported_call_counts_as_unknown_where_it_is_silent() -> None:
    """Tokens without money: the money is unknown, the tokens count."""
    usage = {"input_tokens": 5, "output_tokens": 2, "cost_usd": None}
    said = {"role": "reviewer", "driver": "codex", "job": "review/r0", "attempt": 1, "outcome": "exited"}
    version, payload = validate(
        "agent.finished", {**said, "wall_s": 2.0, "usage": usage, "transcript": {"sha256": "0" * 64, "bytes": 0}}
    )
    call = Event(1, "demo", 1, 1, 1, "agent.finished", version, "daemon", None, None, payload, "")
    used = spent([call])
    assert (used["input_tokens"], used["cost_usd"], used["tokens_unknown"], used["cost_unknown"]) == (5, None, 0, 1)


# --- checkpoint -----------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_what_another_machine_would_go_on_from(loop: Simulation) -> None:
    """Conditions, winners, patches, gaps, notes, rejected ideas, next row, issues, budgets; and no held-out seed."""
    found = checkpoint_of(facts(Simulation(EVENTFUL).run(until=lambda s: s.c.phase == "round.selecting")))
    expected = """model tokenizer precision hardware host workload workload_digest sla artifact_root winners branch
        commit patches best_rows residual_gap profile_rows root_cause history_notes layer_notes profile_digests
        rejected_ideas next_patch comparison_set exclusions plan criteria open_issues waits spent budget"""
    assert set(expected.split()) <= found.keys()
    assert found["next_patch"]["row"]["row_id"] == "decode/bmm"
    assert found["residual_gap"]["verdict"] == "behind"
    assert set(found["comparison_set"]) == {"ours", "rival", "third"}
    late = checkpoint_of(facts(loop))
    assert [patch["verdict"] for patch in late["patches"]] == ["reverted", "accepted", "accepted", "unchanged"]
    assert late["commit"] == loop.c.champion
    assert "99" not in re.findall(r"\d+", json.dumps(late["workload"]))
    assert "heldout" not in json.dumps(late)


# --- every moment of every campaign ----------------------------------------------------------------------------


def prefixes(events: Sequence[Event], at: Sequence[int]) -> Iterator[tuple[Campaign, Sequence[Event]]]:
    """The campaign as it was after each of these events."""
    world = World()
    for number, event in enumerate(events, 1):
        advance(world, event)
        if number in at:
            yield world.campaigns[event.campaign], events[:number]


def projected(c: Campaign, events: Sequence[Event]) -> None:
    """Every ledger comes out, cites only what is there, is JSON where it says so, and agrees with the state."""
    f = Facts(c, events, gone)
    numbers = {event.seq for event in events}
    for name, data in ledger_files(f).items():
        if name.endswith(".jsonl"):
            assert all(json.loads(line) for line in data.splitlines())
        else:
            cited = "".join(re.findall(r"\[#[\d,# -]+\]", data.decode()))
            assert {int(number) for number in re.findall(r"\d+", cited)} <= numbers, name
    json.dumps(checkpoint_of(f))
    told = {issue["id"]: issue["status"] for issue in issue_entries(f)}
    assert told == {name: issue["status"] for name, issue in c.issues.items()}
    assert {entry["subject"] for entry in waits(f) if entry["reply"] is None} == set(c.waits)
    assert plan_of(f).get("digest", "") in (c.plan.get("digest", ""), c.plan_digest)


def reported(c: Campaign, events: Sequence[Event]) -> None:
    """The whole tree comes out."""
    assert build(c, events, gone)["final_report.md"].startswith(b"# Campaign")


ELSEWHERE = "workspace.checked"  # the checkout at a commit whose speed the simulation does not know
SCRIPTS = st.fixed_dictionaries(
    {},
    optional={
        point: st.dictionaries(
            st.integers(0, 8), st.sampled_from([o for o in POINTS[point] if o != ELSEWHERE]), max_size=3
        )
        for point in (
            *("propose", "ideas", "contract", "finalize", "timed", "heldout", "usage", "gates", "tests", "outputs"),
            *("patch", "review", "word", "operator", "person", "interrupt", "explain", "profile", "late"),
        )
    },
)


@given(SCRIPTS, st.lists(st.floats(0, 1), min_size=6, max_size=6))
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
def test_no_moment_of_any_campaign_breaks_a_projection(script: JSON, moments: list[float]) -> None:
    """Whatever happens, ledgers, checkpoint and report come out, and agree with the state."""
    sim = Simulation(script).run()
    at = {max(1, round(moment * len(sim.events))) for moment in moments} | {len(sim.events)}
    for c, events in prefixes(sim.events, sorted(at)):
        projected(c, events)
    reported(sim.c, sim.events)


def test_every_event_of_one_campaign_is_such_a_moment(loop: Simulation) -> None:
    """After each event that is not a measurement, for a campaign in which much happens."""
    dull = ("benchmark.", "candidate.", "job.", "sla.")
    at = [number for number, event in enumerate(loop.events, 1) if not event.type.startswith(dull)]
    for c, events in prefixes(loop.events, at):
        projected(c, events)
        if len(events) in at[::12]:
            reported(c, events)


@pytest.mark.parametrize("golden", GOLDEN, ids=[path.name.removesuffix(".jsonl.gz") for path in GOLDEN])
def test_a_campaign_of_an_earlier_release_has_its_ledgers(golden: Path, tmp_path: Path) -> None:
    """Old rules, same ledgers: what was not recorded then is said not to be."""
    export = tmp_path / "golden.jsonl"
    export.write_bytes(gzip.decompress(golden.read_bytes()))
    events = list(events_in(export))
    for c, told in prefixes(events, range(1, len(events) + 1, 23)):
        projected(c, told)
    world = World()
    for event in events:
        advance(world, event)
    (c,) = world.campaigns.values()
    found = attempt_entries(Facts(c, events, gone))
    assert [entry["verdict"] for entry in found] == [attempt.status for attempt in c.attempts.values()]
    assert all(entry["agents"] is None for entry in found)
    text = build(c, events, gone)["final_report.md"].decode()
    assert "## Agents" not in text
    assert "Plan version 1, from template" in chapter(text, "Plan")


def test_same_events_give_the_same_ledgers(loop: Simulation) -> None:
    """Regenerated means equal, to the byte, and the state is left as it was."""
    before = repr(loop.c)
    assert ledger_files(facts(loop)) == ledger_files(facts(loop))
    assert repr(loop.c) == before
