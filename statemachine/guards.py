"""The guards, by name. Each looks at the folded state and the event, and says what evidence is missing.

A guard returns None when it holds, else the missing evidence in words. Nothing here reads a clock, a file or
a random number, so a replay of the ledger asks exactly the questions that were asked when it was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from statemachine import evidence, fairness, goodput
from statemachine.evidence import COMMIT_GATES, MIN_ROW_SHARE, NEAR_LIMIT, digest
from statemachine.ranking import passes, sla_failures
from statemachine.state import Campaign, World
from statemachine.table import HALTED, LIVE, SUCCESS

MAX_STALLS = 3
MAX_FIX_CYCLES = 2


@dataclass(frozen=True, slots=True)
class Ask:
    """One event that wants to happen: the world before it, its campaign, its payload ``p`` and its time."""

    world: World
    c: Campaign
    p: Mapping[str, Any]
    time_ns: int


Guard = Callable[[Ask], str | None]
GUARDS: dict[str, Guard] = {}


def guard(function: Guard) -> Guard:
    """Register a guard under its own name."""
    GUARDS[function.__name__] = function
    return function


def _unless(holds: bool, missing: str) -> str | None:
    return None if holds else missing


def _halted_in(phase: str) -> Guard:
    return lambda a: _unless(a.c.back == phase, f"the campaign was halted in {a.c.back or 'no phase'}")


GUARDS.update({f"halted_in {phase}": _halted_in(phase) for phase in (*LIVE, "stopping")})


@guard
def this_round(a: Ask) -> str | None:
    return _unless(a.p["round"] == a.c.round, f"round {a.c.round}, which is under way")


@guard
def at_champion(a: Ask) -> str | None:
    return _unless(a.p["commit"] == a.c.champion, f"commit {a.c.champion}, the champion")


# --- intake, knowledge ---------------------------------------------------------------------------------


@guard
def spec_complete(a: Ask) -> str | None:
    spec = a.p["spec"]
    for key in ("model", "hardware", "frameworks", "workload", "sla", "decision", "budget"):
        if not spec.get(key):
            return f"spec.{key}"
    roles = [framework["role"] for framework in spec["frameworks"].values()]
    if roles.count("target") != 1 or "competitor" not in roles:
        return "exactly one target and at least one competitor in spec.frameworks"
    return _unless(digest(spec) == a.p["spec_digest"], "a spec_digest that is the digest of the spec")


@guard
def lease_held(a: Ask) -> str | None:
    return _unless(bool(a.c.lease), "lease.granted")


@guard
def lease_absent(a: Ask) -> str | None:
    return _unless(not a.c.lease, "lease.released")


@guard
def host_free(a: Ask) -> str | None:
    wanted = set(a.p["gpu_ids"])
    for other in a.world.campaigns.values():
        lease = other.lease
        if not lease or other.id == a.c.id or lease["host"] != a.p["host"]:
            continue
        if not wanted or not lease["gpu_ids"] or wanted & set(lease["gpu_ids"]):
            return f"lease.released by campaign {other.id}"
    return None


@guard
def lease_asked_for(a: Ask) -> str | None:
    asked = any(job.activity == "lease" and job.status == "running" for job in a.c.jobs.values())
    return _unless(asked, "job.dispatched of a lease")


@guard
def framework_known(a: Ask) -> str | None:
    name = a.p["framework"]
    return _unless(name in a.c.spec.get("frameworks", {}), f"framework {name!r} in the spec")


@guard
def identity_open(a: Ask) -> str | None:
    """What is compared is established at intake; only a resume that found a mismatch goes back there."""
    at = a.c.back if a.c.phase in HALTED else a.c.phase
    return _unless(at == "intake" or at not in LIVE, "the intake: a resume that found a mismatch returns to it")


@guard
def workspace_clean(a: Ask) -> str | None:
    checked = a.c.workspaces.get(a.c.target)
    if not checked:
        return f"workspace.checked for {a.c.target}"
    return _unless(checked["clean"], f"a clean checkout at {checked['repo']}")


@guard
def competitor_probed(a: Ask) -> str | None:
    settled = a.c.probes.keys() | a.c.unsupported.keys()
    missing = [name for name in a.c.spec["frameworks"] if name not in settled]
    if missing or a.c.target not in a.c.probes:
        return f"framework.probed for {', '.join(missing) or a.c.target}"
    return _unless(any(n in a.c.probes for n in evidence.competitors(a.c)), "framework.probed for a competitor")


@guard
def history_consulted(a: Ask) -> str | None:
    return _unless(bool(a.c.history), "history.noted or history.unavailable")


@guard
def open_prs_scanned(a: Ask) -> str | None:
    return _unless(a.c.open_prs, "openpr.scanned")


@guard
def workload_of_spec(a: Ask) -> str | None:
    said = (a.p["scenarios"], a.p["sla"])
    return _unless(said == (a.c.scenarios, a.c.spec["sla"]), "the scenarios and the SLA of the spec")


# --- activities ------------------------------------------------------------------------------------------


@guard
def not_closed(a: Ask) -> str | None:
    return _unless(a.c.phase != "closed", "a campaign that is not closed")


@guard
def next_attempt_of_job(a: Ask) -> str | None:
    job = a.c.jobs.get(a.p["job"])
    if job and job.status == "running":
        return f"an end of attempt {job.attempt} of {job.job}"
    expected = job.attempt + 1 if job else 1
    return _unless(a.p["attempt"] == expected, f"attempt {expected} of {a.p['job']}")


@guard
def job_is_running(a: Ask) -> str | None:
    job = a.c.jobs.get(a.p["job"])
    running = job is not None and job.status == "running" and job.attempt == a.p["attempt"]
    return _unless(running, f"job.dispatched for attempt {a.p['attempt']} of {a.p['job']}")


# --- launches and rows --------------------------------------------------------------------------------------


@guard
def launch_is_next_attempt(a: Ask) -> str | None:
    launch, job = a.c.launches.get(a.p["launch"]), a.c.jobs.get(a.p["launch"])
    last = launch.attempt if launch else 0
    if a.p["attempt"] <= last:
        return f"an attempt after {last} of launch {a.p['launch']}"
    under_way = job is not None and job.status == "running" and job.attempt == a.p["attempt"]
    return _unless(under_way, f"job.dispatched for attempt {a.p['attempt']} of {a.p['launch']}")


@guard
def launched_as_dispatched(a: Ask) -> str | None:
    wanted = a.c.jobs[a.p["launch"]].params
    for key in ("purpose", "framework", "candidate", "commit"):
        if a.p[key] != wanted.get(key):
            return f"{key} {wanted.get(key)}, as dispatched"
    return None


@guard
def launch_known(a: Ask) -> str | None:
    launch = a.c.launches.get(a.p["launch"])
    known = launch is not None and launch.attempt == a.p["attempt"]
    return _unless(known, f"candidate.launched for attempt {a.p['attempt']} of {a.p['launch']}")


@guard
def competitor_as_frozen(a: Ask) -> str | None:
    framework = a.c.spec["frameworks"].get(a.p["framework"])
    if framework is None:
        return f"framework {a.p['framework']!r} in the spec"
    if not a.c.baseline_digest or framework["role"] == "target":
        return None
    frozen = a.c.launches.get(evidence.search_launch(a.p["framework"], a.p["candidate"]))
    same = frozen is not None and frozen.command == list(a.p["command"]) and frozen.commit == a.p["commit"]
    return _unless(same, f"the command and commit that the baseline froze for {a.p['framework']}")


@guard
def run_as_dispatched(a: Ask) -> str | None:
    job = a.c.jobs.get(a.p["launch"])
    seeds = job.params.get("seeds", {}).get(a.p["scenario"], []) if job else []
    asked = 0 <= a.p["run"] < len(seeds) and seeds[a.p["run"]] == a.p["seed"]
    return _unless(asked, f"a run of {a.p['scenario']} with its seed, as dispatched")


@guard
def measured_once(a: Ask) -> str | None:
    launch = a.c.launches[a.p["launch"]]
    again = any(r["scenario"] == a.p["scenario"] and r["run"] == a.p["run"] for r in launch.rows)
    return _unless(not again, f"a run other than {a.p['run']} of {a.p['scenario']}, which is measured already")


@guard
def rate_as_searched(a: Ask) -> str | None:
    if a.c.launches[a.p["launch"]].purpose != "rate":
        return None
    wanted = goodput.next_rate(a.c, a.c.launches[a.p["launch"]].framework, a.p["scenario"])
    sent = (a.p["row"].get("workload") or {}).get("request_rate")
    return _unless(sent == wanted, f"a run at {wanted} requests/s, which the search asks for next")


@guard
def row_sla_recomputed(a: Ask) -> str | None:
    row = a.p["row"]
    honest = passes(row, a.c.spec["sla"])
    return _unless(row["sla"]["passed"] == honest, f"sla.passed = {honest}, as the row's metrics say")


def _rows_of(a: Ask) -> list[dict[str, Any]]:
    launch = a.c.launches.get(a.p["launch"])
    return [row for row in launch.rows if row["scenario"] == a.p["scenario"]] if launch else []


@guard
def sla_failure_recomputed(a: Ask) -> str | None:
    found = [f for row in _rows_of(a) for f in sla_failures(row["metrics"], a.c.spec["sla"])]
    said = (a.p["key"], a.p["limit"], a.p.get("observed"))
    return _unless(any(tuple(f) == said for f in found), "a measured row that misses this limit so")


@guard
def sla_pass_recomputed(a: Ask) -> str | None:
    rows = _rows_of(a)
    fine = bool(rows) and all(passes(row, a.c.spec["sla"]) for row in rows)
    return _unless(fine, "rows that all meet the SLA")


# --- search and baseline ----------------------------------------------------------------------------------------


@guard
def skip_adds_up(a: Ask) -> str | None:
    right = dict(a.p) in evidence.skippable(a.c, a.p["framework"])
    return _unless(right, "failures of other candidates that make this one hopeless, and their reason")


@guard
def candidates_settled(a: Ask) -> str | None:
    open_ones = [entry["id"] for entry in evidence.unsettled(a.c, a.p["framework"])]
    if open_ones:
        return f"a result or a reason for {a.p['framework']}: {', '.join(open_ones)}"
    if a.p["framework"] in a.c.exhausted:
        return f"a search of {a.p['framework']} that is not exhausted yet"
    found = evidence.exhausted(a.c, a.p["framework"])
    return _unless(dict(a.p) == found, f"the counts of its candidates: {found}")


@guard
def last_to_exhaust(a: Ask) -> str | None:
    done = {*a.c.exhausted, *a.c.unsupported, a.p["framework"]}
    missing = [name for name in a.c.spec["frameworks"] if name not in done]
    return _unless(not missing, f"search.exhausted for {', '.join(missing)}")


@guard
def winner_is_best(a: Ask) -> str | None:
    if (a.p["framework"], a.p["scenario"]) not in evidence.winning_pairs(a.c):
        return "a framework that was searched, and a scenario of the workload"
    best = evidence.winner(a.c, a.p["framework"], a.p["scenario"])
    expected = best["candidate"] if best else None
    return _unless(a.p.get("candidate") == expected, f"candidate {expected}, which ranks first")


@guard
def winners_complete(a: Ask) -> str | None:
    missing = [f"{f}/{s}" for f, s in evidence.winning_pairs(a.c) if f"{f}/{s}" not in a.c.winners]
    return _unless(not missing, f"winner.selected for {', '.join(missing)}")


@guard
def goodput_adds_up(a: Ask) -> str | None:
    pair = (a.p["framework"], a.p["scenario"])
    if pair not in goodput.pairs(a.c) or "goodput" in a.c.winners["/".join(pair)]:
        return "a winner whose goodput is searched for, and not known yet"
    expected = goodput.found(a.c, *pair)
    return _unless(dict(a.p) == expected, f"the outcome of the tested rates: {expected}")


@guard
def goodput_known(a: Ask) -> str | None:
    missing = [f"{f}/{s}" for f, s in goodput.pairs(a.c) if "goodput" not in a.c.winners[f"{f}/{s}"]]
    return _unless(not missing, f"goodput.found for {', '.join(missing)}")


@guard
def competitor_passes_sla(a: Ask) -> str | None:
    missing = [scenario for scenario in a.c.scenarios if evidence.leader(a.c, scenario) is None]
    return _unless(not missing, f"a competitor's row that passes the SLA on {', '.join(missing)}")


@guard
def target_measured(a: Ask) -> str | None:
    missing = [scenario for scenario in a.c.scenarios if evidence.target_candidate(a.c, scenario) is None]
    return _unless(not missing, f"a row of the target that ran on {', '.join(missing)}")


@guard
def baseline_digest_matches(a: Ask) -> str | None:
    if a.p["winners"] != a.c.winners:
        return "the winners that were selected"
    return _unless(a.p["digest"] == digest(a.c.winners), "the digest of the selected winners")


@guard
def starts_at_checked_commit(a: Ask) -> str | None:
    commit = a.c.workspaces[a.c.target]["commit"]
    return _unless(a.p["base_commit"] == commit, f"base_commit {commit}, as checked at intake")


# --- gap --------------------------------------------------------------------------------------------------------


@guard
def fairness_adds_up(a: Ask) -> str | None:
    items = fairness.fairness_items(a.c)
    passed = all(item["match"] for item in items)
    right = (a.p["items"], a.p["passed"]) == (items, passed)
    return _unless(right, f"every condition as the spec and the state say, passed = {passed}")


@guard
def fairness_failed(a: Ask) -> str | None:
    return _unless(a.c.fairness.get("passed") is False, "fairness.checked with an item that differs")


@guard
def aa_adds_up(a: Ask) -> str | None:
    expected = evidence.aa_verdict(a.c)
    return _unless(expected is not None and dict(a.p) == expected, f"the A/A check of the samples: {expected}")


@guard
def gap_adds_up(a: Ask) -> str | None:
    expected = evidence.gap_verdict(a.c)
    if expected is None:
        return "more blocks: the samples so far make no call"
    return _unless(dict(a.p) == expected, f"the decision that the samples make: {expected['verdict']}")


@guard
def comparison_trusted(a: Ask) -> str | None:
    if a.c.fairness.get("round") != a.c.round or not a.c.fairness["passed"]:
        return f"fairness.checked passed for round {a.c.round}"
    return _unless(bool(a.c.aa.get("passed")), "aa.checked passed")


@guard
def target_not_behind(a: Ask) -> str | None:
    return _unless(a.p["verdict"] in ("par_or_better", "ahead"), "a verdict of par_or_better or ahead")


@guard
def behind(a: Ask) -> str | None:
    return _unless(a.p["verdict"] in ("behind", "sla_gap"), "a verdict of behind or sla_gap")


@guard
def no_call(a: Ask) -> str | None:
    return _unless(a.p["verdict"] in ("undecided", "untrusted"), "a verdict of undecided or untrusted")


@guard
def only_comparing(a: Ask) -> str | None:
    return _unless(a.c.spec.get("goal") == "compare", "goal: compare in the spec")


@guard
def rounds_used_up(a: Ask) -> str | None:
    limit = a.c.spec["budget"]["rounds"]
    return _unless(a.c.round >= limit, f"round {limit} (this is round {a.c.round})")


# --- profile, root cause -------------------------------------------------------------------------------------------


@guard
def profile_of_compared_commit(a: Ask) -> str | None:
    entry = evidence.needed_profiles(a.c).get(a.p["side"])
    if entry is None:
        return "a side of the comparison: target or leader"
    same = (a.p["framework"], a.p["commit"], a.p["round"]) == (entry.framework, entry.commit, a.c.round)
    return _unless(same, f"a profile of {entry.framework} at {entry.commit} in round {a.c.round}")


@guard
def profiles_fresh(a: Ask) -> str | None:
    for side, entry in evidence.needed_profiles(a.c).items():
        profile = a.c.profiles.get(side)
        if not profile or (profile["commit"], profile["round"]) != (entry.commit, a.c.round):
            return f"profile.captured of the {side} ({entry.framework}) at {entry.commit} in round {a.c.round}"
    return None


@guard
def tables_fresh(a: Ask) -> str | None:
    fresh = (a.c.tables.get("round"), a.c.tables.get("commit")) == (a.c.round, a.c.champion)
    return _unless(fresh, f"tables.produced at {a.c.champion} in round {a.c.round}")


@guard
def pipeline_fresh(a: Ask) -> str | None:
    fresh = (a.c.pipeline.get("round"), a.c.pipeline.get("commit")) == (a.c.round, a.c.champion)
    return _unless(fresh, f"pipeline.written at {a.c.champion} in round {a.c.round}")


def _unresolved(c: Campaign, row_ids: list[str], stage: str) -> str | None:
    for row_id in row_ids:
        row = evidence.table_row(c, row_id)
        if row is None:
            return f"a row {row_id!r} in the kernel table of round {c.round}"
        if row["stage"] != stage:
            return f"a row of the slow stage {stage}; {row_id} is of {row['stage']}"
        if row["share"] < MIN_ROW_SHARE:
            return f"a row of at least {MIN_ROW_SHARE}% of the stage; {row_id} has {row['share']}%"
    return None if row_ids else "at least one cited row"


@guard
def cited_rows_count(a: Ask) -> str | None:
    return _unresolved(a.c, a.p["rows"], a.p["stage"])


@guard
def stage_is_slow(a: Ask) -> str | None:
    slow = evidence.slowest_stage(a.c)
    return _unless(slow is None or a.p["stage"] == slow, f"the stage that costs most against the leader, {slow}")


@guard
def limit_adds_up(a: Ask) -> str | None:
    limit = a.p.get("limit")
    if limit is None:
        return None
    roofline, measured = float(limit.get("limit_ms", 0)), float(limit.get("measured_ms", 0))
    if not 0 < roofline <= measured:
        return "a limit above 0 and no longer than what was measured: a limit that is beaten is wrong"
    right = math.isclose(limit.get("fraction", -1), roofline / measured, abs_tol=1e-3)
    return _unless(right, f"fraction = limit_ms / measured_ms = {roofline / measured:.4f}")


@guard
def near_the_limit(a: Ask) -> str | None:
    if a.p["condition"] != "at_limit":
        return None
    needed = f"pipeline.written of this round whose limit for the slow stage has a fraction of {NEAR_LIMIT} or more"
    return _unless(evidence.at_limit(a.c) is not None, needed)


@guard
def rows_of_rootcause(a: Ask) -> str | None:
    unknown = [row for row in a.p["rows"] if row not in a.c.rootcause.get("rows", [])]
    return _unless(not unknown, f"rows that the root cause cites; not {', '.join(unknown)}")


# --- patch ------------------------------------------------------------------------------------------------------------


@guard
def citations_resolve(a: Ask) -> str | None:
    if a.p["attempt_id"] in a.c.attempts:
        return "a new attempt_id"
    stale = a.c.rootcause.get("round") != a.c.round or a.c.tables.get("commit") != a.c.champion
    if stale:
        return f"a root cause of round {a.c.round} at {a.c.champion}"
    rejected = [row for row in a.p["citations"] if row in a.c.rejected_rows]
    if rejected:
        return f"rows that were not rejected; {', '.join(rejected)} was"
    return _unresolved(a.c, a.p["citations"], a.c.rootcause["stage"])


@guard
def no_open_row(a: Ask) -> str | None:
    if a.p["condition"] not in ("no_patch", "at_limit", "external_gap"):
        return "a condition of no_patch, at_limit or external_gap"
    rows = evidence.plausible_rows(a.c)
    return _unless(not rows, f"idea.rejected or an attempt for {', '.join(rows)}")


@guard
def attempt_known(a: Ask) -> str | None:
    return _unless(a.p["attempt_id"] in a.c.attempts, f"patch.proposed for {a.p['attempt_id']}")


@guard
def attempt_under_way(a: Ask) -> str | None:
    return _unless(a.p["attempt_id"] == a.c.current_attempt, f"the attempt under way, {a.c.current_attempt}")


@guard
def attempt_applied(a: Ask) -> str | None:
    attempt = a.c.attempts.get(a.p["attempt_id"])
    return _unless(attempt is not None and bool(attempt.commit), f"patch.applied for {a.p['attempt_id']}")


@guard
def tested_once(a: Ask) -> str | None:
    tests = a.c.attempts[a.p["attempt_id"]].tests
    return _unless(tests is None, f"an attempt without tests.finished; passed = {tests} is on record")


@guard
def compared_once(a: Ask) -> str | None:
    equal = a.c.attempts[a.p["attempt_id"]].equivalence
    return _unless(equal is None, f"an attempt without equivalence.finished; passed = {equal} is on record")


@guard
def based_on_champion(a: Ask) -> str | None:
    return _unless(a.p["base"] == a.c.champion, f"a commit on top of the champion {a.c.champion}")


@guard
def commit_gates_passed(a: Ask) -> str | None:
    gates = a.c.attempt.gates
    missing = [name for name in COMMIT_GATES if not gates.get(name)]
    return _unless(not missing, f"gate.evaluated passed for {', '.join(missing)}")


@guard
def refusal_on_record(a: Ask) -> str | None:
    attempt, gate = a.c.attempt, a.p["gate"]
    if gate == "improvement":
        found = evidence.improvement_verdict(a.c) if attempt.commit else None
        fails = found is not None and not found["accepted"] and dict(a.p["decisions"]) == found["decisions"]
        return _unless(fails, "samples by which the patch is no improvement")
    return _unless(gate in evidence.failed_gates(attempt), f"gate.evaluated failed for {gate}")


@guard
def champion_restored(a: Ask) -> str | None:
    return _unless(a.p["restored_commit"] == a.c.champion, f"the checkout back at {a.c.champion}")


@guard
def tests_passed(a: Ask) -> str | None:
    return _unless(a.c.attempt.tests is True, "tests.finished passed, run by the daemon")


@guard
def outputs_equal(a: Ask) -> str | None:
    return _unless(a.c.attempt.equivalence is True, "equivalence.finished passed")


@guard
def equivalence_adds_up(a: Ask) -> str | None:
    honest = a.p["differing"] == 0 and a.p["prompts"] > 0
    return _unless(a.p["passed"] == honest, f"passed = {honest} with {a.p['differing']} differing prompts")


@guard
def improvement_adds_up(a: Ask) -> str | None:
    found = evidence.improvement_verdict(a.c)
    if found is None:
        return "more blocks of challenger against champion"
    if not found["accepted"]:
        return "an interval of improvement that excludes zero, and no scenario that regressed"
    right = (a.p["decisions"], a.p["commit"]) == (found["decisions"], a.c.attempt.commit)
    return _unless(right, "the decisions that the samples make, and the commit that was measured")


@guard
def attempt_closed(a: Ask) -> str | None:
    return _unless(a.c.attempt.status in ("accepted", "reverted"), "patch.accepted or patch.reverted")


# --- review -----------------------------------------------------------------------------------------------------------


@guard
def review_requested(a: Ask) -> str | None:
    if "mainline" in a.c.review:
        return f"one verdict for one request; {a.c.review['mainline']} is on record"
    asked = a.c.review.get("requested") == a.p["round"] == a.c.round
    return _unless(asked, f"review.requested in round {a.p['round']}")


@guard
def verdict_on_record(a: Ask) -> str | None:
    return _unless("mainline" in a.c.review and a.p["round"] == a.c.round, "verdict.recorded in this round")


@guard
def verdict_clean(a: Ask) -> str | None:
    clean = a.c.review["findings"] == [] and a.c.review["mainline"] == "ADVANCED"
    return _unless(clean, "a verdict ADVANCED that states zero findings")


@guard
def findings_recorded(a: Ask) -> str | None:
    return _unless(a.p["items"] == a.c.review["findings"], "the findings of the recorded verdict")


@guard
def findings_block(a: Ask) -> str | None:
    blocking = [item for item in a.c.review["findings"] if item["lane"] in ("mainline", "blocking")]
    if a.p["items"] != a.c.review["findings"] or not blocking:
        return "a finding of lane mainline or blocking in the recorded verdict"
    return _unless(a.c.attempt.status == "accepted", "an accepted patch that the findings are about")


@guard
def fixes_left(a: Ask) -> str | None:
    return _unless(a.c.fix_cycles < MAX_FIX_CYCLES, f"fewer than {MAX_FIX_CYCLES} fix cycles in this round")


@guard
def verdict_stalled(a: Ask) -> str | None:
    return _unless(a.c.review["mainline"] == a.p["mainline"], f"the recorded verdict {a.c.review['mainline']}")


@guard
def third_stall(a: Ask) -> str | None:
    return _unless(a.c.stalls + 1 >= MAX_STALLS, f"{MAX_STALLS} stalled rounds in a row ({a.c.stalls} before)")


# --- halting and finishing ------------------------------------------------------------------------------------------


@guard
def something_mismatched(a: Ask) -> str | None:
    return _unless(bool(a.c.mismatches), "resume.mismatch")


@guard
def budget_used_up(a: Ask) -> str | None:
    limit = a.c.spec["budget"]["wall_clock_s"]
    if (a.p["kind"], a.p["limit"]) != ("wall_clock", limit):
        return f"the wall_clock limit of the spec, {limit} s"
    used = (a.time_ns - a.c.created_ns) / 1e9
    return _unless(used >= limit, f"{limit} s since the campaign was created ({used:.1f} s so far)")


@guard
def cancel_confirmed(a: Ask) -> str | None:
    return _unless(bool(a.p.get("confirmed")), "confirmed = true: the campaign is stopping already")


@guard
def stop_lacks_evidence(a: Ask) -> str | None:
    success = a.c.stop.get("condition") in SUCCESS
    if not success or not a.p["missing"]:
        return "a claim of success and the evidence that it lacks"
    lacking = [name for name in a.c.scenarios if name not in a.c.gaps[-1]["decisions"]]
    return _unless(set(a.p["missing"]) <= set(lacking), f"scenarios without a decision, of which there are {lacking}")


@guard
def terminal_is_the_stop(a: Ask) -> str | None:
    condition, seq = a.c.stop.get("condition"), a.c.stop.get("seq")
    right = a.p["terminal"] == condition and seq in a.p["evidence"]
    return _unless(right, f"terminal {condition} with evidence {seq}, which established it")


@guard
def report_published(a: Ask) -> str | None:
    return _unless(bool(a.c.report), "report.published")


@guard
def cleaned_up(a: Ask) -> str | None:
    if any(job.status == "running" for job in a.c.jobs.values()):
        return "an end of every job"
    return _unless(a.c.cleaned, "cleanup.finished")
