"""Folding: how each event changes what is known. One small function per type, applied in ledger order.

:func:`fold` is pure: it copies before it changes anything. :func:`advance` is the in-place step under it, for
owners of a state such as the daemon's loop and long replays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from ledger.events import Event
from statemachine.machine import destination
from statemachine.state import JSON, Attempt, Campaign, Job, Launch, World
from statemachine.table import DAEMON_FACTS, FACTS, HALTED

Apply = Callable[[Campaign, Event, JSON], None]
APPLY: dict[str, Apply] = {}


def fold(world: World, events: Iterable[Event]) -> World:
    """The state after the events; the given state is left as it is."""
    after = copy.deepcopy(world)
    for event in events:
        advance(after, event)
    return after


def advance(world: World, event: Event) -> None:
    """Change the state in place by one event that the machine has admitted.

    Raises:
        IllegalEvent: the event is no fact, and no step leads on from the present phase.
    """
    if event.campaign:
        campaign = world.campaigns.get(event.campaign)
        if campaign is None:
            campaign = world.campaigns[event.campaign] = Campaign(event.campaign, created_ns=event.time_ns)
        _advance_campaign(world, campaign, event)
    else:
        _daemon(world, event)
    world.seq = event.seq
    world.epoch = max(world.epoch, event.epoch)


def _advance_campaign(world: World, c: Campaign, event: Event) -> None:
    if event.type not in FACTS:
        dest = destination(world, c, event.type, event.payload, event.time_ns)
        if dest in HALTED and c.phase not in HALTED:
            c.back = c.phase
        if dest != "blocked":
            c.blocked = {}
        c.phase = dest
    apply = APPLY.get(event.type)
    if apply is not None:
        apply(c, event, event.payload)
    c.seq, c.campaign_seq, c.updated_ns = event.seq, event.campaign_seq, event.time_ns


def _daemon(world: World, event: Event) -> None:
    if event.type not in DAEMON_FACTS:
        raise ValueError(f"{event.type} needs a campaign")
    if event.type == "daemon.started":
        world.daemon = {**event.payload, "epoch": event.epoch, "running": True}
    elif event.type == "daemon.stopped":
        world.daemon = {**world.daemon, "running": False, "reason": event.payload["reason"]}
    elif event.type.startswith("inbox."):
        outcome = event.payload.get("campaign", "rejected")
        world.inbox[f"{event.payload['name']}@{event.payload['digest']}"] = outcome


def _on(type_: str) -> Callable[[Apply], Apply]:
    def register(function: Apply) -> Apply:
        APPLY[type_] = function
        return function

    return register


# --- campaign -----------------------------------------------------------------------------------------


@_on("campaign.created")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.spec, c.spec_digest, c.created_ns = p["spec"], p["spec_digest"], e.time_ns


@_on("campaign.blocked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.blocked = dict(p)


@_on("preflight.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.preflight_failed = dict(p)
    c.blocked = {
        "kind": "workspace",
        "reason": f"{p['check']}: {p['reason']}",
        "next": "correct it, then: sotactl resume",
    }


@_on("resource.wait_expired")
def _(c: Campaign, e: Event, p: JSON) -> None:
    holder = c.waiting.get("holder", "another campaign")
    c.waiting = {}
    c.blocked = {
        "kind": "resources",
        "reason": f"the host stayed in use by {holder}",
        "next": "sotactl resume when it is free",
    }


@_on("campaign.resumed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if c.phase == "intake" and c.mismatches:
        _start_over(c)
    c.mismatches, c.back, c.preflight_failed, c.review_failures = [], "", {}, 0
    for job in c.jobs.values():
        job.tries = 0
    if c.gaps and c.gaps[-1]["round"] == c.round and c.gaps[-1]["verdict"] in ("undecided", "untrusted"):
        _discard_launches(c, f"gap/r{c.round}/")
    if c.aa.get("passed") is False:
        _discard_launches(c, "aa/")
        c.aa = {}


def _start_over(c: Campaign) -> None:
    """The world is not the one that was measured: nothing measured there counts, and a new round begins."""
    c.probes, c.workspaces, c.unsupported, c.workload_digest = {}, {}, {}, ""
    c.exhausted, c.winners, c.baseline_digest, c.aa, c.fairness = [], {}, "", {}, {}
    c.profiles, c.tables, c.pipeline, c.rootcause = {}, {}, {}, {}
    _discard_launches(c, "")
    if c.champion:
        _next_round(c)


def _discard_launches(c: Campaign, prefix: str) -> None:
    """What these launches measured counts no longer; whoever needs them measures anew."""
    for launch in c.launches.values():
        if launch.launch.startswith(prefix):
            launch.status, launch.rows, launch.reason = "lost", [], "to be measured anew"


@_on("resume.mismatch")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.mismatches.append(p["what"])


@_on("campaign.cancel_requested")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stop = {"condition": "cancelled", "reason": f"cancelled by {p['by']}", "seq": e.seq}
    c.report = []  # one that is there says another ending


@_on("budget.exhausted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    reason = f"{p['kind']} budget of {p['limit']:g} s is used up"
    c.stop = {"condition": "budget_exhausted", "reason": reason, "seq": e.seq}


@_on("stop.proposed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stop = {"condition": p["condition"], "reason": p["reason"], "seq": e.seq}


@_on("stop.rejected")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stop, c.report, c.cleaned = {}, [], False
    _next_round(c)


@_on("lease.granted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.lease, c.waiting = dict(p), {}


@_on("lease.released")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.lease = {}


@_on("resource.wait_started")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.waiting = dict(p)


# --- jobs -----------------------------------------------------------------------------------------------


@_on("job.dispatched")
def _(c: Campaign, e: Event, p: JSON) -> None:
    before = c.jobs.get(p["job"])
    c.jobs[p["job"]] = Job(
        p["job"],
        p["activity"],
        p["attempt"],
        "running",
        p["deadline_ns"],
        e.seq,
        tries=before.tries + 1 if before else 1,
        params=p["params"],
    )


@_on("job.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    job = c.jobs[p["job"]]
    job.status, job.ok, job.detail = "finished", p["ok"], p["detail"]


@_on("job.lost")
def _(c: Campaign, e: Event, p: JSON) -> None:
    job = c.jobs[p["job"]]
    job.status, job.ok, job.detail = "lost", False, p["reason"]


@_on("job.timed_out")
def _(c: Campaign, e: Event, p: JSON) -> None:
    job = c.jobs[p["job"]]
    job.status, job.ok, job.detail = "timed_out", False, "deadline passed"


# --- intake, knowledge -----------------------------------------------------------------------------------


@_on("workspace.checked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.workspaces[p["framework"]] = dict(p)


@_on("framework.probed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.probes[p["framework"]] = {"commit": "", **p}
    c.unsupported.pop(p["framework"], None)


@_on("framework.unsupported")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.unsupported[p["framework"]] = p["reason"]
    c.probes.pop(p["framework"], None)


@_on("preflight.passed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.host, c.preflight_failed = p["host"], {}


@_on("history.noted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.history = "noted"


@_on("history.unavailable")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.history = "unavailable"


@_on("openpr.scanned")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.open_prs = True


@_on("workload.frozen")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.workload_digest = p["digest"]


# --- launches ----------------------------------------------------------------------------------------------


@_on("candidate.launched")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.launches[p["launch"]] = Launch(
        p["launch"],
        p["purpose"],
        p["framework"],
        p["candidate"],
        p["commit"],
        p["attempt"],
        "launched",
        e.seq,
        p["command"],
    )


@_on("candidate.ready")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        c.launches[p["launch"]].status = "ready"


def _serves(c: Campaign, p: JSON) -> bool:
    """Whether a launch is still open: what is said of it after its end stays on record and changes nothing."""
    return c.launches[p["launch"]].status in ("launched", "ready")


@_on("candidate.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        launch = c.launches[p["launch"]]
        launch.status, launch.reason, launch.rows = p["status"], p["reason"], []


@_on("candidate.lost")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        launch = c.launches[p["launch"]]
        launch.status, launch.reason, launch.rows = "lost", p["reason"], []


@_on("candidate.stopped")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        c.launches[p["launch"]].status = "stopped"


@_on("candidate.skipped")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.skipped[f"{p['framework']}/{p['candidate']}"] = p["reason"]


@_on("benchmark.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if not _serves(c, p):
        return
    launch = c.launches[p["launch"]]
    row = p["row"]
    kept = {"status": row["status"], "metrics": row["metrics"], "hardware": row.get("hardware")}
    kept |= {"scenario": p["scenario"], "run": p["run"], "seed": p["seed"], "seq": e.seq}
    if row.get("conditions"):
        kept["conditions"] = row["conditions"]
    if c.spec.get("fairness", 1) >= 2:
        kept |= {part: row.get(part) for part in ("cache", "spec_decode", "phase_metrics")}
    if launch.purpose == "rate":
        kept["rate"] = row["workload"]["request_rate"]
    launch.rows.append(kept | {"candidate": launch.candidate, "framework": launch.framework})


@_on("sla.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.launches[p["launch"]].sla[p["scenario"]] = p["key"]


@_on("sla.passed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.launches[p["launch"]].sla[p["scenario"]] = "passed"


@_on("search.exhausted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.exhausted.append(p["framework"])


@_on("winner.selected")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.winners[f"{p['framework']}/{p['scenario']}"] = {"candidate": p.get("candidate"), "reason": p["reason"]}


@_on("goodput.found")
def _(c: Campaign, e: Event, p: JSON) -> None:
    found = {key: p.get(key) for key in ("rate", "bound", "reason")}
    c.winners[f"{p['framework']}/{p['scenario']}"]["goodput"] = found


@_on("baseline.frozen")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.baseline_digest = p["digest"]


# --- rounds ----------------------------------------------------------------------------------------------------


@_on("loop.started")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.plan_digest, c.champion, c.branch = p["plan_digest"], p["base_commit"], p["branch"]


@_on("fairness.checked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.fairness = {**c.fairness, "round": p["round"], "passed": p["passed"], "seq": e.seq}


@_on("fairness.violated")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.fairness = {"violations": c.fairness.get("violations", 0) + 1}
    c.exhausted, c.winners, c.baseline_digest = [], {}, ""
    _discard_launches(c, "search/")


@_on("aa.checked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.aa = {"passed": p["passed"], "seq": e.seq}


@_on("gap.decided")
def _(c: Campaign, e: Event, p: JSON) -> None:
    decisions = {
        name: {key: found[key] for key in ("verdict", "g_pct", "lo_pct", "hi_pct", "n")}
        for name, found in p["decisions"].items()
    }
    entry = {"round": p["round"], "verdict": p["verdict"], "leader": p["leader"], "seq": e.seq}
    c.gaps.append(entry | {"decisions": decisions})
    if c.phase == "stopping":
        condition, reason = _stop_after_gap(c, p)
        c.stop = {"condition": condition, "reason": reason, "seq": e.seq}
    elif c.phase == "blocked":
        c.blocked = {
            "kind": "evidence",
            "reason": f"the gap is {p['verdict']} after every block that the rule allows",
            "next": "quieten the host or raise decision.cap, then: sotactl resume (measures again)",
        }


def _stop_after_gap(c: Campaign, p: JSON) -> tuple[str, str]:
    verdict = p["verdict"]
    if verdict == "ahead":
        return "success_ahead", "the target is ahead on every scenario"
    if verdict == "par_or_better":
        return "success_tied", "the target is at par or better on every scenario, within the margin"
    if c.spec.get("goal") == "compare":
        how = "is behind" if verdict == "behind" else "fails an SLA that is met by"
        return "compared", f"the target {how} {p['leader']}"
    return "max_rounds", f"still {verdict} after {c.round} rounds"


@_on("profile.captured")
def _(c: Campaign, e: Event, p: JSON) -> None:
    profile = {"commit": p["commit"], "round": p["round"], "trace": p["trace"], "seq": e.seq}
    c.profiles[p["side"]] = profile | ({"traces": p["traces"]} if p.get("traces") else {})


@_on("tables.produced")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.tables = {"round": p["round"], "commit": p["commit"], "rows": p["rows"], "seq": e.seq}


@_on("pipeline.written")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.pipeline = {"round": p["round"], "commit": p["commit"], "seq": e.seq}
    if p.get("limit"):
        c.pipeline["limit"] = p["limit"]


@_on("rootcause.written")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.rootcause = {key: p[key] for key in ("round", "commit", "stage", "rows", "statement")} | {"seq": e.seq}
    c.rejected_rows = {}


@_on("idea.rejected")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.rejected_rows.update(dict.fromkeys(p["rows"], p["reason"]))


@_on("patch.proposed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.attempts[p["attempt_id"]] = Attempt(
        p["attempt_id"], p["round"], p["citations"], p["hypothesis"], "proposed", c.champion, e.seq
    )
    c.current_attempt = p["attempt_id"]


@_on("gate.evaluated")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.attempts[p["attempt_id"]].gates[p["gate"]] = p["passed"]


@_on("patch.applied")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = c.attempts[p["attempt_id"]]
    attempt.status, attempt.commit, attempt.subject = "applied", p["commit"], p["subject"]
    attempt.files, attempt.diff = p["files"], p["diff"]


@_on("tests.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.attempts[p["attempt_id"]].tests = p["passed"]


@_on("equivalence.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.attempts[p["attempt_id"]].equivalence = p["passed"]


@_on("patch.accepted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = c.attempts[p["attempt_id"]]
    attempt.status, attempt.gain_pct = "accepted", _worst_gain(p["decisions"])
    c.champion = p["commit"]


@_on("patch.reverted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = c.attempts[p["attempt_id"]]
    attempt.status, attempt.refused_by, attempt.reason = "reverted", p["gate"], p["reason"]
    attempt.gain_pct = _worst_gain(p["decisions"]) if p["decisions"] else None


def _worst_gain(decisions: JSON) -> float:
    """The gain of the scenario that gained least, percent; g counts how far the challenger is behind."""
    return min(-float(found["g_pct"]) for found in decisions.values())


@_on("checkpoint.written")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.checkpoints += 1
    c.review, c.review_failures = {}, 0


@_on("review.requested")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if "mainline" not in c.review:  # a verdict stands, however often somebody asks again
        c.review = {"requested": p["round"]}


@_on("review.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.review, c.review_failures = {}, c.review_failures + 1


@_on("verdict.recorded")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.review |= {key: p[key] for key in ("mainline", "control", "findings", "summary")} | {"seq": e.seq}


@_on("review.passed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stalls = 0
    _next_round(c)


@_on("review.stalled")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stalls += 1
    if c.phase == "stopping":
        c.stop = {"condition": "stalled", "reason": f"{c.stalls} stalled rounds in a row", "seq": e.seq}
    else:
        _next_round(c)


@_on("review.findings")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if c.phase == "stopping":
        c.stop = {"condition": "stalled", "reason": "findings outlived every fix cycle", "seq": e.seq}
    elif c.phase == "round.patching":
        _open_fix(c, e, p["items"])
    else:
        _next_round(c)


def _open_fix(c: Campaign, e: Event, findings: list[Any]) -> None:
    """A fix attempt on the accepted patch: same citations, the findings as its contract."""
    c.fix_cycles += 1
    old = c.attempt
    fix = Attempt(
        f"{old.attempt_id}-fix{c.fix_cycles}", c.round, old.citations, old.hypothesis, "proposed", c.champion, e.seq
    )
    fix.findings = findings
    c.attempts[fix.attempt_id] = fix
    c.current_attempt = fix.attempt_id


def _next_round(c: Campaign) -> None:
    c.round += 1
    c.fix_cycles, c.current_attempt, c.review = 0, "", {}


@_on("report.published")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.report = p["files"]


@_on("cleanup.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.cleaned = True
