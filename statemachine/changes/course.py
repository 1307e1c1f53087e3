"""How the course of a campaign changes: halts, leases, jobs, intake."""

from __future__ import annotations

from ledger.events import Event
from statemachine import pace
from statemachine.changes.register import on
from statemachine.changes.steps import discard_launches, next_round
from statemachine.state import JSON, Campaign, Job


@on("campaign.created")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.spec, c.spec_digest, c.created_ns = p["spec"], p["spec_digest"], e.time_ns


@on("campaign.blocked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.blocked = dict(p)
    c.away_ns = e.time_ns if p.get("host") else 0
    if c.away_ns:
        pace.unwatched(c)


@on("preflight.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.preflight_failed = dict(p)
    c.blocked = {
        "kind": "workspace",
        "reason": f"{p['check']}: {p['reason']}",
        "next": "correct it, then: sotactl resume",
    }


@on("resource.wait_expired")
def _(c: Campaign, e: Event, p: JSON) -> None:
    holder, gpus = c.waiting.get("holder", "another campaign"), p.get("reasons")
    c.waiting = {}
    c.blocked = {
        "kind": "resources",
        "reason": f"the GPUs did not become free: {'; '.join(gpus)}" if gpus else f"the host stayed in use by {holder}",
        "next": "sotactl resume when it is free",
    }


@on("campaign.resumed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if c.phase == "intake" and c.mismatches:
        _start_over(c)
    c.mismatches, c.back, c.preflight_failed, c.review_failures = [], "", {}, 0
    if c.heldout_check and not c.heldout_check["passed"]:
        discard_launches(c, "heldout/")
        c.heldout_check = {}
    for job in c.jobs.values():
        job.tries = 0
        if c.away_ns and job.status == "running":  # on a host that did not answer: its time stood still
            job.deadline_ns += e.time_ns - c.away_ns
    c.away_ns = 0
    if c.gaps and c.gaps[-1]["round"] == c.round and c.gaps[-1]["verdict"] in ("undecided", "untrusted"):
        discard_launches(c, f"gap/r{c.round}/")
    if c.aa.get("passed") is False:
        discard_launches(c, "aa/")
        c.aa = {}


def _start_over(c: Campaign) -> None:
    """The world is not the one that was measured: nothing measured there counts, and a new round begins."""
    c.probes, c.workspaces, c.unsupported, c.workload_digest = {}, {}, {}, ""
    c.exhausted, c.winners, c.baseline_digest, c.aa, c.fairness = [], {}, "", {}, {}
    c.profiles, c.tables, c.pipeline, c.rootcause = {}, {}, {}, {}
    c.heldout_check, c.transcripts, c.base_tests, c.gpus, c.caches = {}, {}, {}, {}, {}
    c.waits = {subject: wait for subject, wait in c.waits.items() if subject.startswith("plan:")}
    discard_launches(c, "")
    if c.champion:
        next_round(c)


@on("resume.mismatch")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.mismatches.append(p["what"])


@on("campaign.cancel_requested")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.away_ns = 0
    c.stop = {"condition": "cancelled", "reason": f"cancelled by {p['by']}", "seq": e.seq}
    c.report = []  # one that is there says another ending


@on("budget.exhausted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    unit = {"tokens": "tokens", "money": "USD"}.get(p["kind"], "s")
    reason = f"{p['kind']} budget of {p['limit']:g} {unit} is used up"
    c.stop = {"condition": "budget_exhausted", "reason": reason, "seq": e.seq}


@on("stop.proposed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stop = {"condition": p["condition"], "reason": p["reason"], "seq": e.seq}


@on("stop.rejected")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stop, c.report, c.cleaned, c.cleanup = {}, [], False, {}
    next_round(c)


@on("lease.granted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.lease, c.waiting, c.lease_ns = {"host": p["host"], "gpu_ids": p["gpu_ids"]}, {}, e.time_ns
    c.gpus = c.gpus or {gpu["uuid"]: dict(gpu) for gpu in p.get("gpus") or ()}


@on("lease.released")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.gpu_s += (e.time_ns - c.lease_ns) / 1e9 * len(c.lease.get("gpu_ids", []))
    c.lease, c.lease_ns = {}, 0


@on("resource.wait_started")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.waiting = dict(p)


@on("resource.wait_ended")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.waiting = {}


@on("job.dispatched")
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


@on("job.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    job = c.jobs[p["job"]]
    job.status, job.ok, job.detail = "finished", p["ok"], p["detail"]


@on("job.lost")
def _(c: Campaign, e: Event, p: JSON) -> None:
    job = c.jobs[p["job"]]
    job.status, job.ok, job.detail = "lost", False, p["reason"]


@on("job.timed_out")
def _(c: Campaign, e: Event, p: JSON) -> None:
    job = c.jobs[p["job"]]
    job.status, job.ok, job.detail = "timed_out", False, "deadline passed"


@on("workspace.checked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.workspaces[p["framework"]] = dict(p)


@on("framework.probed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.probes[p["framework"]] = {"commit": "", **p}
    c.unsupported.pop(p["framework"], None)


@on("framework.unsupported")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.unsupported[p["framework"]] = p["reason"]
    c.probes.pop(p["framework"], None)


@on("preflight.passed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.host, c.preflight_failed, c.harness = p["host"], {}, p.get("harness", "")


@on("history.noted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.history = "noted"
    if p.get("subjects"):
        c.consulted = {"round": c.round, "rows": p["subjects"], "seq": e.seq}


@on("history.unavailable")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.history = "unavailable"


@on("openpr.scanned")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.open_prs = True


@on("workload.frozen")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.workload_digest, c.heldout = p["digest"], p.get("heldout") or {}
