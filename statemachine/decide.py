"""What should happen next, as data: a pure function of the folded state.

:func:`decide` answers with commands. A :class:`Record` is a conclusion that follows from the state alone and
only needs writing down. A :class:`Do` is an activity: an effect on the world, named by a job key so that it
is started once, re-attached after a crash, and retried within a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from statemachine import evidence, fairness, goodput, leases, loop, sweep
from statemachine.evidence import Contest, Entry, digest
from statemachine.ranking import passes
from statemachine.state import JSON, Campaign

RETRIES = 3


@dataclass(frozen=True, slots=True)
class Do:
    """Start, or go on with, an activity. ``job`` and ``attempt`` name it in the ledger."""

    job: str
    activity: str
    attempt: int
    params: JSON = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """Write a conclusion."""

    type: str
    payload: JSON


@dataclass(frozen=True, slots=True)
class Abort:
    """End an activity and everything that it started."""

    job: str
    attempt: int


Command = Do | Record | Abort


def decide(c: Campaign) -> list[Command]:
    """The commands that the state calls for now.

    While a job runs, nothing else is called for than that job: conclusions wait for its end, a halted campaign
    drains it, and a stopping one aborts it.
    """
    running = [job for job in c.jobs.values() if job.status == "running"]
    if c.phase == "stopping":
        doomed: list[Command] = [Abort(job.job, job.attempt) for job in running if job.activity not in FINISHERS]
        if doomed:
            return doomed
    if running:
        return [Do(job.job, job.activity, job.attempt, job.params) for job in running]
    if c.phase in ("paused", "blocked"):
        return _halted(c)
    if c.phase in ("draft", "closed"):
        return []
    if c.phase != "stopping" and (words := _words(c)):
        return words
    if leases.unnamed(c) and c.phase != "stopping":
        return [Record("lease.released", {"host": c.lease["host"], "reason": "taken in another world"})]
    if not c.lease and c.phase != "stopping":
        return [_do(c, "lease", f"lease/{_leases(c)}")]
    return PLANS[c.phase](c)


def _words(c: Campaign) -> list[Command]:
    """What people and agents said that comes before anything else."""
    if amended := loop.approved_amendment(c):
        return [Record("plan.amended", amended)]
    if spent := loop.overspent(c):
        return [Record("budget.exhausted", spent)]
    if subject := loop.question(c):
        return [_for_a_person(c, subject, f"a question is open: {c.waits[subject]['text']}", "answer")]
    return []


def _for_a_person(c: Campaign, subject: str, reason: str, verb: str = "approve") -> Record:
    then = "[--deny]" if verb == "approve" else "TEXT"
    payload = {"kind": "human", "reason": reason, "next": f"sotactl {verb} {c.id} {subject} {then}"}
    return Record("campaign.blocked", payload)


def _leases(c: Campaign) -> int:
    """How many leases ended so far: each needs a job of its own."""
    return sum(1 for job in c.jobs.values() if job.activity == "lease" and job.ok)


def _halted(c: Campaign) -> list[Command]:
    """A halted campaign lets go of the host."""
    if c.lease:
        return [Record("lease.released", {"host": c.lease["host"], "reason": c.phase})]
    return []


def _do(c: Campaign, activity: str, job: str, **params: Any) -> Command:
    """The activity's next attempt, or the block when its tries are used up."""
    known = c.jobs.get(job)
    if known and known.tries >= RETRIES:
        kind = "resources" if activity == "lease" else "evidence"
        return _blocked(kind, f"{job} failed {known.tries} times: {known.detail or known.status}")
    return Do(job, activity, known.attempt + 1 if known else 1, params)


def _blocked(kind: str, reason: str) -> Record:
    payload = {"kind": kind, "reason": reason, "next": "look at `sotactl events`, correct it, then: sotactl resume"}
    return Record("campaign.blocked", payload)


# --- before the rounds --------------------------------------------------------------------------------


def _intake(c: Campaign) -> list[Command]:
    return [_do(c, "preflight", "preflight")]


def _knowledge(c: Campaign) -> list[Command]:
    if not c.history or not c.open_prs:
        return [_do(c, "consult_history", "history")]
    return [_do(c, "freeze_workload", "workload")]


def _searching(c: Campaign) -> list[Command]:
    for framework in c.spec["frameworks"]:
        if skippable := evidence.skippable(c, framework):
            return [Record("candidate.skipped", skippable[0])]
        if framework not in c.exhausted and framework not in c.unsupported and not evidence.unsettled(c, framework):
            return [Record("search.exhausted", evidence.exhausted(c, framework))]
    for framework, entry in _interleaved(c):
        launch = evidence.search_launch(framework, entry["id"])
        commit = c.probes[framework]["commit"]
        runs = {scenario: [_seed(c, 0, run) for run in range(_search_runs(c))] for scenario in c.scenarios}
        return [_launch(c, launch, "search", Entry("", framework, entry["id"], commit), runs)]
    return []


def _interleaved(c: Campaign) -> list[tuple[str, JSON]]:
    """Open candidates in turn over the frameworks, so that drift of the host meets all of them alike."""
    if sweep.is_planned(c):
        return sweep.interleaved(c)
    queues = {name: evidence.unsettled(c, name) for name in c.spec["frameworks"]}
    order = {name: len(evidence.candidates(c, name)) - len(queue) for name, queue in queues.items()}
    return sorted(((n, q[0]) for n, q in queues.items() if q), key=lambda item: order[item[0]])


def _search_runs(c: Campaign) -> int:
    return int(c.spec["search"]["runs"])


def _baseline(c: Campaign) -> list[Command]:
    for framework, scenario in evidence.winning_pairs(c):
        if f"{framework}/{scenario}" not in c.winners:
            return [_winner(c, framework, scenario)]
    for framework, scenario in goodput.pairs(c):
        if "goodput" not in c.winners[f"{framework}/{scenario}"]:
            return [_goodput(c, framework, scenario)]
    without = [s for s in c.scenarios if evidence.leader(c, s) is None or evidence.target_candidate(c, s) is None]
    if without:
        return [
            _blocked(
                "evidence",
                f"no row to compare on {', '.join(without)}: no competitor passes the SLA, or the target never ran",
            )
        ]
    return [Record("baseline.frozen", {"winners": c.winners, "digest": digest(c.winners)})]


def _winner(c: Campaign, framework: str, scenario: str) -> Record:
    rows = evidence.search_rows(c, framework, scenario)
    best = evidence.winner(c, framework, scenario)
    payload: JSON = {"framework": framework, "scenario": scenario, "candidate": None}
    if best is None:
        payload["reason"] = f"none of {len(rows)} measured rows passes the SLA"
    else:
        rate = best["metrics"]["request_throughput"]
        passed = sum(1 for row in rows if passes(row, c.spec["sla"]))
        payload["candidate"] = best["candidate"]
        payload["reason"] = f"best of {passed} SLA-passing rows of {len(rows)}: {rate:.2f} requests/s"
    return Record("winner.selected", payload)


def _goodput(c: Campaign, framework: str, scenario: str) -> Command:
    """The launch that tests the winner at rate after rate, or what it came to."""
    found = goodput.found(c, framework, scenario)
    if found is not None:
        return Record("goodput.found", found)
    winner = c.winners[f"{framework}/{scenario}"]["candidate"]
    entry = Entry("", framework, winner, c.probes[framework]["commit"])
    seeds = {scenario: [_seed(c, 100, run) for run in range(goodput.runs(c))]}
    return _launch(c, goodput.launch_name(framework, scenario), "rate", entry, seeds)


def _planning(c: Campaign) -> list[Command]:
    return [_do(c, "write_plan", "plan")]


# --- the round --------------------------------------------------------------------------------------------


def _gap(c: Campaign) -> list[Command]:
    if c.fairness.get("round") != c.round:
        items = fairness.fairness_items(c)
        passed = all(item["match"] for item in items)
        return [Record("fairness.checked", {"round": c.round, "items": items, "passed": passed})]
    if not c.fairness["passed"]:
        return [_unfair(c)]
    if "passed" not in c.aa:
        return _aa(c)
    if not c.aa["passed"]:
        return [
            _blocked(
                "evidence",
                "A/A check failed: on this host the target's command differs from itself, "
                "or nothing can be told from its noise",
            )
        ]
    verdict = evidence.gap_verdict(c)
    if verdict is None:
        return _next_launch(c, evidence.gap_contest(c), "gap")
    if verdict["verdict"] in ("ahead", "par_or_better"):
        if loop.heldout_owed(c):
            return _heldout(c)
        if loop.is_current(c) and (issues := loop.open_issues(c)):
            return [_ask(c, f"issue:{issues[0]['id']}", f"nobody has seen it mended: {issues[0]['text']}")]
    return [Record("gap.decided", verdict)]


def _ask(c: Campaign, subject: str, text: str) -> Record:
    """Ask a person, then wait for the answer."""
    if subject not in c.waits:
        return Record("human.question", {"subject": subject, "text": text, "by": "daemon"})
    return _for_a_person(c, subject, text)


def _heldout(c: Campaign) -> list[Command]:
    """A success is claimed only after the patches have proved themselves on requests that no agent was shown."""
    found = loop.heldout_verdict(c)
    if found is not None:
        return [Record("heldout.checked", found)]
    return _next_launch(c, loop.heldout_contest(c), "heldout")


def _finalizing(c: Campaign) -> list[Command]:
    number = sum(1 for attempt in c.attempts.values() if attempt.kind == "finalize") + 1
    return [Record("finalize.opened", {"round": c.round, "attempt_id": f"f{number}"})]


def _aa(c: Campaign) -> list[Command]:
    verdict = evidence.aa_verdict(c)
    if verdict is not None:
        return [Record("aa.checked", verdict)]
    return _next_launch(c, evidence.aa_contest(c), "aa")


def _unfair(c: Campaign) -> Record:
    differing = ", ".join(item["condition"] for item in fairness.fairness_items(c) if not item["match"])
    if c.fairness.get("violations", 0) == 0:
        action = "measure every candidate anew"
        return Record("fairness.violated", {"round": c.round, "item": differing, "action": action})
    return _blocked("evidence", f"the comparison is not fair: {differing or 'a condition'} differs between the sides")


def _next_launch(c: Campaign, contest: Contest, purpose: str) -> list[Command]:
    """The first launch of the contest that has no result yet; one at a time, because sides share the host."""
    runs = int(c.spec["decision"]["runs"])
    for block in range(evidence.rule(c).cap):
        for entry in contest.entries(block):
            wanted = contest.scenarios_of(entry)
            if all(evidence.values(c, contest, block, entry, scenario) for scenario in wanted):
                continue
            seeds = [_seed(c, contest.seed_offset + 100 * block, run) for run in range(runs)]
            return [_launch(c, contest.name(block, entry), purpose, entry, dict.fromkeys(wanted, seeds))]
    return []


def _seed(c: Campaign, offset: int, run: int) -> int:
    return int(c.spec["workload"]["seed"]) + offset + run


def _launch(c: Campaign, launch: str, purpose: str, entry: Entry, seeds: dict[str, list[int]]) -> Command:
    flags = next(e["flags"] for e in evidence.candidates(c, entry.framework) if e["id"] == entry.candidate)
    return _do(
        c,
        "launch",
        launch,
        purpose=purpose,
        framework=entry.framework,
        candidate=entry.candidate,
        commit=entry.commit,
        flags=flags,
        seeds=seeds,
    )


def _profiling(c: Campaign) -> list[Command]:
    for side, entry in evidence.needed_profiles(c).items():
        profile = c.profiles.get(side, {})
        if (profile.get("commit"), profile.get("round")) != (entry.commit, c.round):
            flags = next(e["flags"] for e in evidence.candidates(c, entry.framework) if e["id"] == entry.candidate)
            params = {"framework": entry.framework, "candidate": entry.candidate, "commit": entry.commit}
            params |= {"side": side, "flags": flags, "scenario": evidence.slow_scenario(c)}
            return [_do(c, "profile", f"profile/r{c.round}/{side}", **params)]
    return [_do(c, "explain", f"explain/r{c.round}")]


def _selecting(c: Campaign) -> list[Command]:
    rows = evidence.plausible_rows(c)
    if not rows:
        tried = sum(1 for attempt in c.attempts.values() if attempt.round == c.round)
        reason = f"every cited row is dealt with: {len(c.rejected_rows)} rejected, {tried} attempts this round"
        seen = [c.rootcause["seq"], c.gaps[-1]["seq"]]
        limit = evidence.at_limit(c)
        if limit:
            share = f"{limit['stage']} takes {limit['measured_ms']:g} ms a step, and cannot take less than"
            near = f"{reason}; {share} {limit['limit_ms']:g} ms on this hardware"
            return [
                Record(
                    "stop.proposed", {"condition": "at_limit", "reason": near, "evidence": [*seen, c.pipeline["seq"]]}
                )
            ]
        payload = {"condition": "no_patch", "reason": reason, "evidence": seen}
        return [Record("stop.proposed", payload)]
    return [_do(c, "propose", f"propose/r{c.round}/{len(c.rejected_rows)}", rows=rows)]


def _patching(c: Campaign) -> list[Command]:
    if c.attempt.kind == "finalize" and c.attempt.gates.get("commit_exists") is False:
        return [Record("finalize.unchanged", {"attempt_id": c.current_attempt})]
    failed = _failed_gate(c)
    if failed:
        return [_revert(c, failed, "the commit was refused before it was run")]
    return [_do(c, "implement", f"implement/{c.current_attempt}")]


def _checking(c: Campaign) -> list[Command]:
    """What a patch has to pass before it is timed, one after the other."""
    attempt = c.attempt
    if attempt.tests is None and not c.base_tests and c.spec["frameworks"][c.target].get("tests"):
        return [_do(c, "run_base_tests", f"tests/base-{c.base[:12]}")]
    if attempt.tests is None:
        return [_do(c, "run_tests", f"tests/{attempt.attempt_id}")]
    if attempt.tests and attempt.equivalence is None:
        return [_do(c, "compare_outputs", f"equivalence/{attempt.attempt_id}")]
    if attempt.tests and attempt.equivalence and loop.accuracy_owed(c):
        return [_do(c, "measure_accuracy", f"accuracy/{attempt.attempt_id}")]
    return []


def _revalidating(c: Campaign) -> list[Command]:
    if owed := _checking(c):
        return owed
    attempt, failed = c.attempt, _failed_gate(c)
    if failed:
        return [_revert(c, failed, "refused by a mechanical gate")]
    verdict = loop.attempt_verdict(c)
    if verdict is None:
        return _next_launch(c, evidence.improvement_contest(c), "revalidate")
    if verdict["accepted"]:
        if loop.is_current(c) and "timed_outputs" not in attempt.gates:
            return [_do(c, "compare_timed", f"timed/{attempt.attempt_id}")]
        if doubt := loop.quarantine(c):
            subject = f"attempt:{attempt.attempt_id}"
            if loop.denied(c, subject):
                return [_revert(c, "plausibility", f"a person does not believe it: {c.answers[subject]['reason']}")]
            if subject in c.waits:
                return [_for_a_person(c, subject, c.waits[subject]["text"])]
            if not loop.approved(c, subject):
                return [Record("patch.quarantined", doubt)]
        accepted = {"attempt_id": attempt.attempt_id, "commit": attempt.commit, "decisions": verdict["decisions"]}
        return [Record("patch.accepted", accepted)]
    return [_revert(c, "improvement", "measured again in the same blocks, it is no improvement", verdict["decisions"])]


def _failed_gate(c: Campaign) -> str:
    return next(iter(evidence.failed_gates(c.attempt)), "")


def _revert(c: Campaign, gate: str, reason: str, decisions: JSON | None = None) -> Command:
    """Attempts live on branches of their own, so going back is: the champion stays what it was."""
    payload = {"attempt_id": c.current_attempt, "gate": gate, "reason": reason, "restored_commit": c.champion}
    return Record("patch.reverted", payload | {"decisions": decisions or {}})


def _recording(c: Campaign) -> list[Command]:
    return [_do(c, "checkpoint", f"checkpoint/r{c.round}/{c.current_attempt}")]


def _reviewing(c: Campaign) -> list[Command]:
    kind, found, verdict = loop.next_review(c), loop.findings(c), loop.mainline(c)
    if verdict.get("control") == "STOP":
        return [Record("review.stopped", {"round": c.round, "reason": verdict["summary"]})]
    blocking = any(item["lane"] in loop.BLOCKING for item in found) and c.attempt.status == "accepted"
    if kind and not blocking and verdict.get("mainline", "ADVANCED") == "ADVANCED":
        if c.review_failures >= RETRIES:
            return [_blocked("evidence", f"the reviewer gave no usable verdict {c.review_failures} times")]
        name = f"review/r{c.round}/{c.current_attempt}/{c.review_failures}"
        return [_do(c, "review", name if kind == "summary" else f"{name}/{kind}", kind=kind)]
    if blocking:
        return [Record("review.findings", {"round": c.round, "items": found})]
    if verdict["mainline"] == "ADVANCED":
        if subject := loop.unapproved_review(c):
            return [_self_review(c, subject)]
        passed = Record("review.passed", {"round": c.round, "findings": []})
        return [Record("review.findings", {"round": c.round, "items": found}) if found else passed]
    return [Record("review.stalled", {"round": c.round, "mainline": verdict["mainline"]})]


def _self_review(c: Campaign, subject: str) -> Record:
    """A person looks at a round that the implementer reviewed itself; their no makes it a stalled one."""
    if loop.denied(c, subject):
        return Record("review.stalled", {"round": c.round, "mainline": "STALLED"})
    text = f"round {c.round} was reviewed by its implementer: {loop.mainline(c)['summary']}"
    return _ask(c, subject, text)


# --- the end ------------------------------------------------------------------------------------------------


def _stopping(c: Campaign) -> list[Command]:
    if not c.cleaned:
        return [_do(c, "clean_up", "clean_up")]
    if c.lease:
        return [Record("lease.released", {"host": c.lease["host"], "reason": "stopping"})]
    if not c.report:
        return [_do(c, "report", "report")]
    stop = c.stop
    closed = {"terminal": stop["condition"], "reason": stop["reason"], "evidence": [stop["seq"]]}
    return [Record("campaign.closed", closed)]


FINISHERS = frozenset({"clean_up", "report"})

PLANS: dict[str, Callable[[Campaign], list[Command]]] = {
    "intake": _intake,
    "knowledge": _knowledge,
    "searching": _searching,
    "baseline": _baseline,
    "planning": _planning,
    "round.gap": _gap,
    "round.finalizing": _finalizing,
    "round.profiling": _profiling,
    "round.selecting": _selecting,
    "round.patching": _patching,
    "round.revalidating": _revalidating,
    "round.recording": _recording,
    "round.reviewing": _reviewing,
    "stopping": _stopping,
}
