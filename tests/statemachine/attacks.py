"""Attacks on the machine: the moment in a campaign, the event that is tried there, the guard that must refuse it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from script import JSON, SPEEDS, Script, artifact, spec_with
from simulation import Simulation

from statemachine.evidence import digest
from statemachine.state import Campaign, World

EXTRA: dict[str, JSON] = {
    "candidate.skipped": {"framework": "ours", "candidate": "wide", "reason": "no room"},
    "candidate.curtailed": {
        "launch": "search/ours/wide",
        "attempt": 1,
        "framework": "ours",
        "candidate": "wide",
        "scenario": "chat",
        "rule": "slower",
        "against": "base",
        "runs_made": 1,
        "runs_left": 2,
        "observed": 5.0,
        "wanted": 10.0,
        "behind_pct": 69.0,
        "se_pct": 2.0,
        "df": 8,
        "chance": 1e-9,
        "bound": 1e-4,
        "reason": "too slow",
    },
    "benchmark.disturbed": {
        "launch": "search/ours/base",
        "attempt": 1,
        "scenario": "chat",
        "run": 0,
        "seed": 7,
        "reasons": ["process 77 uses GPU 0"],
    },
    "goodput.found": {
        "framework": "ours",
        "scenario": "chat",
        "bound": "ge",
        "monotone": True,
        "tests": [],
        "rate": 9.0,
        "reason": "x",
    },
    "resource.wait_ended": {"waited_s": 2.5},
    "downloads.listed": {"folders": [{"path": "~/.cache/huggingface/hub/models--tiny", "there": False}]},
    "cleanup.started": {"processes": [], "gpus": [], "folders": []},
    "patch.refused": {"attempt_id": "a1", "rule": "no caches", "reason": "it caches answers"},
    "stop.rejected": {"missing": ["chat"]},
    "resume.mismatch": {"what": "checkout", "expected": "a", "found": "b"},
    "resource.wait_started": {"holder": "x", "deadline_ns": 1},
    "resource.wait_expired": {"deadline_ns": 1},
    "note.recorded": {"text": "x"},
    "fairness.violated": {"round": 0, "item": "model", "action": "again"},
    "budget.exhausted": {"kind": "wall_clock", "limit": 86400, "used": 86400.0},
    "campaign.cancel_requested": {"by": "x"},
    "framework.unsupported": {"framework": "rival", "reason": "x"},
    "history.unavailable": {"reason": "x"},
    "preflight.failed": {"check": "x", "reason": "x"},
    "profile.rejected": {"round": 0, "side": "target", "reason": "x"},
    "stop.proposed": {"condition": "no_patch", "reason": "x", "evidence": []},
    "review.failed": {"round": 0, "reason": "x"},
    "candidate.lost": {"launch": "search/ours/base", "attempt": 1, "reason": "x"},
    "plan.amendment_proposed": {"plan": {}, "digest": "0" * 64, "reason": "x", "by": "x"},
    "plan.amended": {"version": 2, "digest": "0" * 64, "proposal": 1},
    "human.question": {"subject": "question:9", "text": "x", "by": "x"},
    "human.answered": {"subject": "question:9", "answer": "x"},
    "human.approved": {"subject": "attempt:a1", "approved": True},
    "patch.quarantined": {"attempt_id": "a1", "gain_pct": 300.0, "ceiling_pct": 100.0, "why": "x"},
    "review.stopped": {"round": 0, "reason": "x"},
    "job.timed_out": {"job": "preflight", "attempt": 1, "deadline_ns": 1},
}
"""Payloads of events that a campaign does not record by itself."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A state just before an event, and the payload that the daemon was about to record."""

    world: World
    payload: JSON
    now_ns: int

    @property
    def c(self) -> Campaign:
        return self.world.campaigns["demo"]


class Reached(Exception):
    """The moment has come."""


SCRIPTS: dict[str, tuple[Script, dict[str, Any]]] = {
    "usual": ({}, {}),
    "ahead": ({}, {"speeds": {**SPEEDS, "rival": 9.0}}),
    "slow": ({"launch": {2: "misses_sla"}}, {}),
    "sets out wrongly": ({"workspace": {0: "dirty"}}, {}),
    "no rival": ({"probe": "unsupported"}, {}),
    "declined": ({"propose": {0: "declines_one"}}, {}),
    "gates fail": ({"gates": {0: "fail"}}, {}),
    "tests fail": ({"tests": {0: "fail"}}, {}),
    "outputs differ": ({"outputs": {0: "differ"}}, {}),
    "less accurate": ({"accuracy": {0: "lost"}}, {}),
    "no score": ({"accuracy": {0: "none"}}, {}),
    "no gain": ({"patch": {0: "same"}}, {}),
    "stalled": ({"review": {0: "stalled"}}, {}),
    "queued": ({"review": {0: "queued"}}, {}),
    "cancelled": ({"operator": {200: "cancel"}}, {}),
    "other options": ({}, {"spec": spec_with()}),
    "goodput": (
        {},
        {"spec": spec_with(search={"qps": {"lower": 2.0, "upper": 32.0, "tolerance": 0.1, "max_rounds": 3}})},
    ),
}
SCRIPTS["other options"][1]["spec"]["frameworks"]["rival"]["options"] = {"quantization": "fp8"}


@cache
def moment(script: str, type_: str, nth: int = 0) -> Moment:
    """The state before the nth event of a type in a campaign."""
    found: list[Moment] = []
    seen = 0

    def before(sim: Simulation, about: str, payload: JSON) -> None:
        nonlocal seen
        if about == type_:
            if seen == nth:
                found.append(Moment(copy.deepcopy(sim.world), copy.deepcopy(payload), sim.now_ns))
                raise Reached
            seen += 1

    moves, changes = SCRIPTS[script]
    with pytest.raises(Reached):
        Simulation(moves, before=before, **changes).run()
    return found[0]


Make = Callable[[Moment], JSON]


def with_(**changes: Any) -> Make:
    return lambda m: {**m.payload, **changes}


def flipped(key: str) -> Make:
    return lambda m: {**m.payload, key: not m.payload[key]}


def number_changed(m: Moment) -> JSON:
    """The same verdict on numbers that nobody measured."""
    decisions = copy.deepcopy(m.payload["decisions"])
    next(iter(decisions.values()))["g_pct"] -= 1.0
    return {**m.payload, "decisions": decisions}


def created(**changes: Any) -> Make:
    def make(m: Moment) -> JSON:
        spec = {**m.payload["spec"], **changes}
        return {**m.payload, "spec": spec, "spec_digest": digest(spec)}

    return make


def later(script: str, type_: str, nth: int = 0) -> Make:
    """What the daemon will record at a later moment of the same campaign, tried before its time."""
    return lambda m: moment(script, type_, nth).payload


def sla_forged(m: Moment) -> JSON:
    return {**m.payload, "row": {**m.payload["row"], "sla": {"passed": True}}}


def last_row_again(m: Moment) -> JSON:
    launch = m.c.launches["search/ours/base"]
    row = launch.rows[-1]
    again = {key: row[key] for key in ("scenario", "run", "seed")} | {"launch": launch.launch, "attempt": 1}
    return {**again, "row": {**row, "sla": {"passed": True}}, "raw": artifact("")}


def used_up(limit: float = 86400, kind: str = "wall_clock") -> Make:
    return lambda m: {"kind": kind, "limit": limit, "used": limit}


def accepted(m: Moment) -> JSON:
    return {"attempt_id": "a1", "commit": m.c.attempt.commit, "decisions": {}}


def closing(m: Moment) -> JSON:
    return {"terminal": m.c.stop["condition"], "reason": "x", "evidence": [m.c.stop["seq"]]}


def proposed(*rows: str, **changes: Any) -> Make:
    return lambda m: {**m.payload, "citations": list(rows), **changes}


def reverted(gate: str, **changes: Any) -> Make:
    said = {"attempt_id": "a1", "gate": gate, "reason": "x", "decisions": {}, **changes}
    return lambda m: {"restored_commit": m.c.champion, **said}


def findings(m: Moment) -> JSON:
    return {"round": m.c.round, "items": [{"severity": "P0", "lane": "blocking", "text": "made up"}]}


def verdict(mainline: str) -> Make:
    said = {"mainline": mainline, "control": "CONTINUE", "findings": [], "summary": "x", "result": artifact("")}
    return lambda m: {**said, "round": m.c.round}


ALONE = {"ours": {"kind": "reference", "role": "target", "candidates": []}}
# (what, campaign, the moment before which event, which time, the event tried, its payload, the guard)
Attack = tuple[str, str, str, int, str, Make, str]
ATTACKS: tuple[Attack, ...] = (
    ("another spec", "usual", "campaign.created", 0, "campaign.created", with_(spec_digest="0"), "spec_complete"),
    ("no sla", "usual", "campaign.created", 0, "campaign.created", created(sla={}), "spec_complete"),
    ("nobody to beat", "usual", "campaign.created", 0, "campaign.created", created(frameworks=ALONE), "spec_complete"),
    ("created twice", "usual", "lease.granted", 0, "campaign.created", later("usual", "campaign.created"), "phase"),
    # intake and knowledge
    (
        "lease nobody asked for",
        "usual",
        "job.dispatched",
        0,
        "lease.granted",
        later("usual", "lease.granted"),
        "lease_asked_for",
    ),
    ("lease taken twice", "usual", "job.finished", 0, "lease.granted", later("usual", "lease.granted"), "lease_absent"),
    (
        "lease given back twice",
        "usual",
        "lease.granted",
        0,
        "lease.released",
        lambda m: {"host": "local", "reason": "x"},
        "lease_held",
    ),
    (
        "dirty checkout",
        "sets out wrongly",
        "preflight.failed",
        0,
        "preflight.passed",
        later("usual", "preflight.passed"),
        "workspace_clean",
    ),
    (
        "not probed",
        "usual",
        "framework.probed",
        2,
        "preflight.passed",
        later("usual", "preflight.passed"),
        "competitor_probed",
    ),
    ("no competitor", "no rival", "preflight.passed", 0, "preflight.passed", with_(), "competitor_probed"),
    (
        "another checkout later",
        "usual",
        "search.exhausted",
        0,
        "workspace.checked",
        later("usual", "workspace.checked"),
        "identity_open",
    ),
    (
        "unsupported later",
        "usual",
        "gap.decided",
        0,
        "framework.unsupported",
        lambda m: EXTRA["framework.unsupported"],
        "identity_open",
    ),
    (
        "no history",
        "usual",
        "history.noted",
        0,
        "workload.frozen",
        later("usual", "workload.frozen"),
        "history_consulted",
    ),
    (
        "no pull requests",
        "usual",
        "openpr.scanned",
        0,
        "workload.frozen",
        later("usual", "workload.frozen"),
        "open_prs_scanned",
    ),
    (
        "softer SLA",
        "usual",
        "workload.frozen",
        0,
        "workload.frozen",
        with_(sla={"max_p50_ttft_ms": 9e9}),
        "workload_of_spec",
    ),
    ("fewer scenarios", "usual", "workload.frozen", 0, "workload.frozen", with_(scenarios=[]), "workload_of_spec"),
    # jobs and launches
    (
        "job twice at once",
        "usual",
        "job.finished",
        3,
        "job.dispatched",
        later("usual", "job.dispatched", 3),
        "next_attempt_of_job",
    ),
    ("job ended twice", "usual", "job.dispatched", 1, "job.finished", later("usual", "job.finished"), "job_is_running"),
    (
        "job of a closed campaign",
        "cancelled",
        "campaign.closed",
        0,
        "job.finished",
        later("usual", "job.finished"),
        "job_is_running",
    ),
    (
        "launch unasked",
        "usual",
        "job.dispatched",
        4,
        "candidate.launched",
        later("usual", "candidate.launched"),
        "launch_is_next_attempt",
    ),
    (
        "launched twice",
        "usual",
        "candidate.ready",
        0,
        "candidate.launched",
        later("usual", "candidate.launched"),
        "launch_is_next_attempt",
    ),
    (
        "launch of another commit",
        "usual",
        "candidate.launched",
        0,
        "candidate.launched",
        with_(commit="other"),
        "launched_as_dispatched",
    ),
    (
        "launch of another candidate",
        "usual",
        "candidate.launched",
        0,
        "candidate.launched",
        with_(candidate="wide"),
        "launched_as_dispatched",
    ),
    (
        "competitor with other flags",
        "usual",
        "candidate.launched",
        13,
        "candidate.launched",
        with_(command=["serve", "rival", "--slow"]),
        "competitor_as_frozen",
    ),
    ("unknown launch", "usual", "candidate.ready", 0, "candidate.ready", with_(launch="gap/r9/b9/x"), "launch_known"),
    (
        "attempt of another day",
        "usual",
        "benchmark.finished",
        0,
        "benchmark.finished",
        with_(attempt=2),
        "launch_known",
    ),
    ("measured twice", "usual", "sla.passed", 0, "benchmark.finished", last_row_again, "measured_once"),
    ("a run too many", "usual", "benchmark.finished", 0, "benchmark.finished", with_(run=1), "run_as_dispatched"),
    ("another seed", "usual", "benchmark.finished", 0, "benchmark.finished", with_(seed=8), "run_as_dispatched"),
    (
        "forged SLA pass in the row",
        "slow",
        "benchmark.finished",
        2,
        "benchmark.finished",
        sla_forged,
        "row_sla_recomputed",
    ),
    (
        "forged SLA pass",
        "slow",
        "sla.failed",
        0,
        "sla.passed",
        lambda m: {key: m.payload[key] for key in ("launch", "scenario")},
        "sla_pass_recomputed",
    ),
    ("softened SLA failure", "slow", "sla.failed", 0, "sla.failed", with_(observed=100.5), "sla_failure_recomputed"),
    (
        "made up SLA failure",
        "usual",
        "sla.passed",
        0,
        "sla.failed",
        lambda m: {**m.payload, "key": "max_p50_ttft_ms", "limit": 100.0, "observed": 250.0},
        "sla_failure_recomputed",
    ),
    # search and baseline
    (
        "search cut short",
        "usual",
        "candidate.launched",
        2,
        "search.exhausted",
        later("usual", "search.exhausted", 2),
        "candidates_settled",
    ),
    (
        "search counted wrongly",
        "usual",
        "search.exhausted",
        0,
        "search.exhausted",
        with_(measured=7),
        "candidates_settled",
    ),
    (
        "search ended twice",
        "usual",
        "search.exhausted",
        1,
        "search.exhausted",
        later("usual", "search.exhausted", 0),
        "candidates_settled",
    ),
    ("search of nobody", "usual", "search.exhausted", 0, "search.exhausted", with_(framework="x"), "framework_known"),
    ("another winner", "usual", "winner.selected", 0, "winner.selected", with_(candidate="base"), "winner_is_best"),
    ("no winner", "usual", "winner.selected", 0, "winner.selected", with_(candidate=None), "winner_is_best"),
    ("winner of nothing", "usual", "winner.selected", 0, "winner.selected", with_(scenario="x"), "winner_is_best"),
    ("a better goodput", "goodput", "goodput.found", 0, "goodput.found", with_(rate=99.0), "goodput_adds_up"),
    ("goodput of nobody", "goodput", "goodput.found", 0, "goodput.found", with_(scenario="x"), "goodput_adds_up"),
    (
        "no goodput",
        "goodput",
        "goodput.found",
        1,
        "baseline.frozen",
        later("goodput", "baseline.frozen"),
        "goodput_known",
    ),
    (
        "a skip nobody needs",
        "usual",
        "search.exhausted",
        0,
        "candidate.skipped",
        lambda m: {"framework": "ours", "candidate": "wide", "reason": "it would win"},
        "skip_adds_up",
    ),
    (
        "winner missing",
        "usual",
        "winner.selected",
        1,
        "baseline.frozen",
        later("usual", "baseline.frozen"),
        "winners_complete",
    ),
    (
        "baseline of others",
        "usual",
        "baseline.frozen",
        0,
        "baseline.frozen",
        with_(winners={}, digest=digest({})),
        "baseline_digest_matches",
    ),
    (
        "wrong digest",
        "usual",
        "baseline.frozen",
        0,
        "baseline.frozen",
        with_(digest="0" * 64),
        "baseline_digest_matches",
    ),
    ("another start", "usual", "loop.started", 0, "loop.started", with_(base_commit="x"), "starts_at_checked_commit"),
    # gap
    ("fairness not looked at", "usual", "fairness.checked", 0, "fairness.checked", with_(items=[]), "fairness_adds_up"),
    (
        "unfair called fair",
        "other options",
        "fairness.checked",
        0,
        "fairness.checked",
        flipped("passed"),
        "fairness_adds_up",
    ),
    ("fairness of another round", "usual", "fairness.checked", 0, "fairness.checked", with_(round=1), "this_round"),
    (
        "violated for nothing",
        "usual",
        "aa.checked",
        0,
        "fairness.violated",
        lambda m: EXTRA["fairness.violated"],
        "fairness_failed",
    ),
    ("A/A called early", "usual", "candidate.launched", 8, "aa.checked", later("usual", "aa.checked"), "aa_adds_up"),
    ("A/A turned", "usual", "aa.checked", 0, "aa.checked", flipped("passed"), "aa_adds_up"),
    ("A/A on other numbers", "usual", "aa.checked", 0, "aa.checked", number_changed, "aa_adds_up"),
    ("too few blocks", "usual", "candidate.launched", 17, "gap.decided", later("usual", "gap.decided"), "gap_adds_up"),
    ("wrong verdict", "usual", "gap.decided", 0, "gap.decided", with_(verdict="ahead"), "gap_adds_up"),
    ("wrong leader", "usual", "gap.decided", 0, "gap.decided", with_(leader="third"), "gap_adds_up"),
    ("gap on other numbers", "usual", "gap.decided", 0, "gap.decided", number_changed, "gap_adds_up"),
    ("gap of another round", "usual", "gap.decided", 0, "gap.decided", with_(round=1), "gap_adds_up"),
    (
        "success without evidence",
        "usual",
        "fairness.checked",
        0,
        "gap.decided",
        later("ahead", "gap.decided"),
        "gap_adds_up",
    ),
    # profile
    (
        "profile of another commit",
        "usual",
        "profile.captured",
        0,
        "profile.captured",
        with_(commit="x"),
        "profile_of_compared_commit",
    ),
    (
        "profile of a third side",
        "usual",
        "profile.captured",
        0,
        "profile.captured",
        with_(side="third"),
        "profile_of_compared_commit",
    ),
    (
        "one profile missing",
        "usual",
        "profile.captured",
        1,
        "tables.produced",
        later("usual", "tables.produced"),
        "profiles_fresh",
    ),
    (
        "stale profiles",
        "usual",
        "profile.captured",
        2,
        "tables.produced",
        lambda m: {**moment("usual", "tables.produced").payload, "round": m.c.round, "commit": m.c.champion},
        "profiles_fresh",
    ),
    ("tables of another commit", "usual", "tables.produced", 0, "tables.produced", with_(commit="x"), "at_champion"),
    ("no table", "usual", "tables.produced", 0, "pipeline.written", later("usual", "pipeline.written"), "tables_fresh"),
    (
        "no layer report",
        "usual",
        "pipeline.written",
        0,
        "rootcause.written",
        later("usual", "rootcause.written"),
        "pipeline_fresh",
    ),
    ("cause of another commit", "usual", "rootcause.written", 0, "rootcause.written", with_(commit="x"), "at_champion"),
    ("cause of no row", "usual", "rootcause.written", 0, "rootcause.written", with_(rows=[]), "cited_rows_count"),
    (
        "row that is nowhere",
        "usual",
        "rootcause.written",
        0,
        "rootcause.written",
        with_(rows=["decode/x"]),
        "cited_rows_count",
    ),
    (
        "row below its share",
        "usual",
        "rootcause.written",
        0,
        "rootcause.written",
        with_(rows=["decode/tiny"]),
        "cited_rows_count",
    ),
    (
        "row of another stage",
        "usual",
        "rootcause.written",
        0,
        "rootcause.written",
        with_(rows=["prefill/mm"]),
        "cited_rows_count",
    ),
    (
        "cause in the fast stage",
        "usual",
        "rootcause.written",
        0,
        "rootcause.written",
        with_(stage="prefill", rows=["prefill/mm"]),
        "stage_is_slow",
    ),
    (
        "a limit that is beaten",
        "usual",
        "pipeline.written",
        0,
        "pipeline.written",
        with_(limit={"stage": "decode", "limit_ms": 5.0, "measured_ms": 4.0, "fraction": 1.25}),
        "limit_adds_up",
    ),
    (
        "a limit on other numbers",
        "usual",
        "pipeline.written",
        0,
        "pipeline.written",
        with_(limit={"stage": "decode", "limit_ms": 2.0, "measured_ms": 4.0, "fraction": 0.95}),
        "limit_adds_up",
    ),
    # patch
    ("citation unresolved", "usual", "patch.proposed", 0, "patch.proposed", proposed("decode/x"), "citations_resolve"),
    (
        "citation of another stage",
        "usual",
        "patch.proposed",
        0,
        "patch.proposed",
        proposed("prefill/mm"),
        "citations_resolve",
    ),
    (
        "citation below its share",
        "usual",
        "patch.proposed",
        0,
        "patch.proposed",
        proposed("decode/tiny"),
        "citations_resolve",
    ),
    ("nothing cited", "usual", "patch.proposed", 0, "patch.proposed", proposed(), "citations_resolve"),
    (
        "rejected row cited",
        "declined",
        "patch.proposed",
        0,
        "patch.proposed",
        proposed("decode/bmm"),
        "citations_resolve",
    ),
    ("attempt of another round", "usual", "patch.proposed", 0, "patch.proposed", with_(round=3), "this_round"),
    ("attempt twice", "usual", "patch.proposed", 1, "patch.proposed", with_(attempt_id="a1"), "citations_resolve"),
    (
        "stop with an open row",
        "usual",
        "patch.proposed",
        0,
        "stop.proposed",
        lambda m: EXTRA["stop.proposed"],
        "no_open_row",
    ),
    (
        "stop for another reason",
        "usual",
        "patch.proposed",
        0,
        "stop.proposed",
        lambda m: {**EXTRA["stop.proposed"], "condition": "success_ahead"},
        "no_open_row",
    ),
    (
        "rejecting what is not cited",
        "usual",
        "patch.proposed",
        0,
        "idea.rejected",
        lambda m: {"round": 0, "rows": ["prefill/mm"], "reason": "x"},
        "rows_of_rootcause",
    ),
    ("on another base", "usual", "patch.applied", 0, "patch.applied", with_(base="x"), "based_on_champion"),
    ("of another attempt", "usual", "patch.applied", 0, "patch.applied", with_(attempt_id="a9"), "attempt_under_way"),
    (
        "gates not asked",
        "usual",
        "gate.evaluated",
        4,
        "patch.applied",
        later("usual", "patch.applied"),
        "commit_gates_passed",
    ),
    (
        "a gate failed",
        "gates fail",
        "patch.reverted",
        0,
        "patch.applied",
        later("usual", "patch.applied"),
        "commit_gates_passed",
    ),
    (
        "tested before there is a commit",
        "usual",
        "patch.applied",
        0,
        "tests.finished",
        later("usual", "tests.finished"),
        "attempt_applied",
    ),
    ("a gate of no attempt", "usual", "gate.evaluated", 0, "gate.evaluated", with_(attempt_id="a9"), "attempt_known"),
    ("untested", "usual", "tests.finished", 0, "patch.accepted", accepted, "tests_passed"),
    ("tests failed", "tests fail", "patch.reverted", 0, "patch.accepted", accepted, "tests_passed"),
    (
        "tested until it passed",
        "tests fail",
        "patch.reverted",
        0,
        "tests.finished",
        later("usual", "tests.finished"),
        "tested_once",
    ),
    (
        "the base counted again, with fewer",
        "usual",
        "tests.finished",
        0,
        "base.tested",
        later("usual", "base.tested"),
        "base_tested_once",
    ),
    (
        "another commit as the base",
        "usual",
        "base.tested",
        0,
        "base.tested",
        lambda m: {**m.payload, "commit": m.c.attempt.commit},
        "base_tested_once",
    ),
    (
        "passed before anybody counted the base's",
        "usual",
        "base.tested",
        0,
        "tests.finished",
        later("usual", "tests.finished"),
        "as_many_pass",
    ),
    (
        "fewer tests passed",
        "usual",
        "tests.finished",
        0,
        "tests.finished",
        with_(counted=2),
        "as_many_pass",
    ),
    (
        "nothing says how many tests passed",
        "usual",
        "tests.finished",
        0,
        "tests.finished",
        lambda m: {key: value for key, value in m.payload.items() if key != "counted"},
        "as_many_pass",
    ),
    ("outputs not compared", "usual", "equivalence.finished", 0, "patch.accepted", accepted, "outputs_equal"),
    ("outputs differ", "outputs differ", "patch.reverted", 0, "patch.accepted", accepted, "outputs_equal"),
    (
        "difference hidden",
        "outputs differ",
        "equivalence.finished",
        0,
        "equivalence.finished",
        flipped("passed"),
        "equivalence_adds_up",
    ),
    (
        "equal without a prompt",
        "usual",
        "equivalence.finished",
        0,
        "equivalence.finished",
        with_(prompts=0),
        "equivalence_adds_up",
    ),
    (
        "compared until equal",
        "outputs differ",
        "patch.reverted",
        0,
        "equivalence.finished",
        later("usual", "equivalence.finished"),
        "compared_once",
    ),
    ("not scored", "usual", "accuracy.finished", 0, "patch.accepted", accepted, "accuracy_held"),
    ("less accurate", "less accurate", "patch.reverted", 0, "patch.accepted", accepted, "accuracy_held"),
    ("no score", "no score", "patch.reverted", 0, "patch.accepted", accepted, "accuracy_held"),
    (
        "a loss called none",
        "less accurate",
        "accuracy.finished",
        0,
        "accuracy.finished",
        flipped("passed"),
        "accuracy_adds_up",
    ),
    (
        "more loss allowed than the spec does",
        "less accurate",
        "accuracy.finished",
        0,
        "accuracy.finished",
        lambda m: {**m.payload, "max_drop": 5.0, "passed": True},
        "accuracy_adds_up",
    ),
    (
        "another program's score",
        "usual",
        "accuracy.finished",
        0,
        "accuracy.finished",
        with_(command=["true"]),
        "accuracy_adds_up",
    ),
    (
        "scored until it held",
        "less accurate",
        "patch.reverted",
        0,
        "accuracy.finished",
        later("usual", "accuracy.finished"),
        "accuracy_adds_up",
    ),
    ("not measured again", "usual", "candidate.launched", 21, "patch.accepted", accepted, "improvement_adds_up"),
    ("no gain", "no gain", "patch.reverted", 0, "patch.accepted", accepted, "improvement_adds_up"),
    ("gain on other numbers", "usual", "patch.accepted", 0, "patch.accepted", number_changed, "improvement_adds_up"),
    (
        "another commit accepted",
        "usual",
        "patch.accepted",
        0,
        "patch.accepted",
        with_(commit="x"),
        "improvement_adds_up",
    ),
    (
        "another attempt accepted",
        "usual",
        "patch.accepted",
        1,
        "patch.accepted",
        with_(attempt_id="a1"),
        "attempt_under_way",
    ),
    (
        "a good patch reverted",
        "usual",
        "patch.accepted",
        0,
        "patch.reverted",
        reverted("improvement"),
        "refusal_on_record",
    ),
    ("reverted for no gate", "usual", "patch.accepted", 0, "patch.reverted", reverted("tests"), "refusal_on_record"),
    (
        "reverted to elsewhere",
        "no gain",
        "patch.reverted",
        0,
        "patch.reverted",
        with_(restored_commit="x"),
        "champion_restored",
    ),
    (
        "checkpoint of another commit",
        "usual",
        "checkpoint.written",
        0,
        "checkpoint.written",
        with_(commit="x"),
        "at_champion",
    ),
    # review
    (
        "passed unasked",
        "usual",
        "review.requested",
        0,
        "review.passed",
        later("usual", "review.passed"),
        "verdict_on_record",
    ),
    (
        "passed without a verdict",
        "usual",
        "verdict.recorded",
        0,
        "review.passed",
        later("usual", "review.passed"),
        "verdict_on_record",
    ),
    (
        "passed though stalled",
        "stalled",
        "review.stalled",
        0,
        "review.passed",
        later("usual", "review.passed"),
        "verdict_clean",
    ),
    (
        "passed with findings",
        "queued",
        "review.findings",
        0,
        "review.passed",
        later("usual", "review.passed"),
        "verdict_clean",
    ),
    ("findings made up", "usual", "review.passed", 0, "review.findings", findings, "findings_recorded"),
    ("another stall", "stalled", "review.stalled", 0, "review.stalled", with_(mainline="REGRESSED"), "verdict_stalled"),
    (
        "verdict of another round",
        "usual",
        "verdict.recorded",
        0,
        "verdict.recorded",
        with_(round=2),
        "review_requested",
    ),
    ("verdict unasked", "usual", "review.requested", 0, "verdict.recorded", verdict("ADVANCED"), "review_requested"),
    ("a second opinion", "stalled", "review.stalled", 0, "verdict.recorded", verdict("ADVANCED"), "review_requested"),
    # the end
    ("budget not used up", "usual", "gap.decided", 0, "budget.exhausted", used_up(), "budget_used_up"),
    ("another budget", "usual", "gap.decided", 0, "budget.exhausted", used_up(limit=1), "budget_used_up"),
    ("budget of rounds", "usual", "gap.decided", 0, "budget.exhausted", used_up(4, "rounds"), "budget_used_up"),
    (
        "cancelled twice",
        "cancelled",
        "cleanup.finished",
        0,
        "campaign.cancel_requested",
        lambda m: {"by": "x"},
        "cancel_confirmed",
    ),
    (
        "evidence there is",
        "ahead",
        "cleanup.finished",
        0,
        "stop.rejected",
        lambda m: {"missing": ["chat"]},
        "stop_lacks_evidence",
    ),
    (
        "no success to reject",
        "cancelled",
        "cleanup.finished",
        0,
        "stop.rejected",
        lambda m: {"missing": ["chat"]},
        "stop_lacks_evidence",
    ),
    (
        "another terminal",
        "cancelled",
        "campaign.closed",
        0,
        "campaign.closed",
        with_(terminal="success_ahead"),
        "terminal_is_the_stop",
    ),
    (
        "closed without evidence",
        "ahead",
        "campaign.closed",
        0,
        "campaign.closed",
        with_(evidence=[]),
        "terminal_is_the_stop",
    ),
    ("closed without a report", "ahead", "report.published", 0, "campaign.closed", closing, "report_published"),
    ("closed in use", "ahead", "lease.released", 0, "campaign.closed", closing, "report_published"),
    ("closed while a job runs", "ahead", "job.finished", -1, "campaign.closed", closing, "cleaned_up"),
    ("resumed without a halt", "usual", "gap.decided", 0, "campaign.resumed", lambda m: {"checks": []}, "phase"),
)


def reached(script: str, type_: str, nth: int) -> Moment:
    """As :func:`moment`; the time -1 is the last one."""
    if nth >= 0:
        return moment(script, type_, nth)
    moves, changes = SCRIPTS[script]
    return moment(script, type_, sum(e.type == type_ for e in Simulation(moves, **changes).run().events) - 1)


def before(attack: Attack) -> Moment:
    """The moment of an attack; the time -1 is the last one."""
    _, script, at, nth, *_ = attack
    if nth >= 0:
        return moment(script, at, nth)
    moves, changes = SCRIPTS[script]
    return moment(script, at, sum(event.type == at for event in Simulation(moves, **changes).run().events) - 1)
