"""Guards of the intake, of what is known before patching, and of activities."""

from __future__ import annotations

from statemachine import evidence, loop
from statemachine.evidence import digest
from statemachine.guards.asking import Ask, guard, unless
from statemachine.table import HALTED, LIVE


@guard
def spec_complete(a: Ask) -> str | None:
    spec = a.p["spec"]
    for key in ("model", "hardware", "frameworks", "workload", "sla", "decision", "budget"):
        if not spec.get(key):
            return f"spec.{key}"
    roles = [framework["role"] for framework in spec["frameworks"].values()]
    if roles.count("target") != 1 or "competitor" not in roles:
        return "exactly one target and at least one competitor in spec.frameworks"
    return unless(digest(spec) == a.p["spec_digest"], "a spec_digest that is the digest of the spec")


@guard
def lease_held(a: Ask) -> str | None:
    return unless(bool(a.c.lease), "lease.granted")


@guard
def lease_absent(a: Ask) -> str | None:
    return unless(not a.c.lease, "lease.released")


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
    return unless(asked, "job.dispatched of a lease")


@guard
def framework_known(a: Ask) -> str | None:
    name = a.p["framework"]
    return unless(name in a.c.spec.get("frameworks", {}), f"framework {name!r} in the spec")


@guard
def identity_open(a: Ask) -> str | None:
    """What is compared is established at intake; only a resume that found a mismatch goes back there."""
    at = a.c.back if a.c.phase in HALTED else a.c.phase
    return unless(at == "intake" or at not in LIVE, "the intake: a resume that found a mismatch returns to it")


@guard
def workspace_clean(a: Ask) -> str | None:
    checked = a.c.workspaces.get(a.c.target)
    if not checked:
        return f"workspace.checked for {a.c.target}"
    return unless(checked["clean"], f"a clean checkout at {checked['repo']}")


@guard
def competitor_probed(a: Ask) -> str | None:
    settled = a.c.probes.keys() | a.c.unsupported.keys()
    missing = [name for name in a.c.spec["frameworks"] if name not in settled]
    if missing or a.c.target not in a.c.probes:
        return f"framework.probed for {', '.join(missing) or a.c.target}"
    return unless(any(n in a.c.probes for n in evidence.competitors(a.c)), "framework.probed for a competitor")


@guard
def history_consulted(a: Ask) -> str | None:
    return unless(bool(a.c.history), "history.noted or history.unavailable")


@guard
def history_of_rows(a: Ask) -> str | None:
    """Where there are histories, they are asked about the very rows before these are patched."""
    if not loop.is_current(a.c) or a.c.history != "noted":
        return None
    asked = a.c.consulted.get("rows", []) if a.c.consulted.get("round") == a.c.round else []
    silent = [row for row in a.p["citations"] if row not in asked]
    return unless(not silent, f"history.noted of round {a.c.round} for {', '.join(silent)}")


@guard
def open_prs_scanned(a: Ask) -> str | None:
    return unless(a.c.open_prs, "openpr.scanned")


@guard
def workload_of_spec(a: Ask) -> str | None:
    said = (a.p["scenarios"], a.p["sla"])
    return unless(said == (a.c.scenarios, a.c.spec["sla"]), "the scenarios and the SLA of the spec")


@guard
def not_closed(a: Ask) -> str | None:
    return unless(a.c.phase != "closed", "a campaign that is not closed")


@guard
def next_attempt_of_job(a: Ask) -> str | None:
    job = a.c.jobs.get(a.p["job"])
    if job and job.status == "running":
        return f"an end of attempt {job.attempt} of {job.job}"
    expected = job.attempt + 1 if job else 1
    return unless(a.p["attempt"] == expected, f"attempt {expected} of {a.p['job']}")


@guard
def job_is_running(a: Ask) -> str | None:
    job = a.c.jobs.get(a.p["job"])
    running = job is not None and job.status == "running" and job.attempt == a.p["attempt"]
    return unless(running, f"job.dispatched for attempt {a.p['attempt']} of {a.p['job']}")
