"""Guards of halting, resuming and finishing, and those that every phase shares."""

from __future__ import annotations

from statemachine import loop
from statemachine.guards.asking import GUARDS, Ask, Guard, guard, unless
from statemachine.table import LIVE, SUCCESS


def _halted_in(phase: str) -> Guard:
    return lambda a: unless(a.c.back == phase, f"the campaign was halted in {a.c.back or 'no phase'}")


GUARDS.update({f"halted_in {phase}": _halted_in(phase) for phase in (*LIVE, "stopping")})


@guard
def this_round(a: Ask) -> str | None:
    return unless(a.p["round"] == a.c.round, f"round {a.c.round}, which is under way")


@guard
def at_champion(a: Ask) -> str | None:
    return unless(a.p["commit"] == a.c.champion, f"commit {a.c.champion}, the champion")


@guard
def something_mismatched(a: Ask) -> str | None:
    return unless(bool(a.c.mismatches), "resume.mismatch")


@guard
def budget_used_up(a: Ask) -> str | None:
    if a.p["kind"] in loop.BUDGETS:
        spent = loop.overspent(a.c)
        return unless(dict(a.p) == spent, f"agents that have used up this budget: {spent or a.c.spent}")
    limit = a.c.spec["budget"]["wall_clock_s"]
    if (a.p["kind"], a.p["limit"]) != ("wall_clock", limit):
        return f"the wall_clock limit of the spec, {limit} s"
    used = (a.time_ns - a.c.created_ns) / 1e9
    return unless(used >= limit, f"{limit} s since the campaign was created ({used:.1f} s so far)")


@guard
def cancel_confirmed(a: Ask) -> str | None:
    return unless(bool(a.p.get("confirmed")), "confirmed = true: the campaign is stopping already")


@guard
def stop_lacks_evidence(a: Ask) -> str | None:
    success = a.c.stop.get("condition") in SUCCESS
    if not success or not a.p["missing"]:
        return "a claim of success and the evidence that it lacks"
    lacking = [name for name in a.c.scenarios if name not in a.c.gaps[-1]["decisions"]]
    return unless(set(a.p["missing"]) <= set(lacking), f"scenarios without a decision, of which there are {lacking}")


@guard
def terminal_is_the_stop(a: Ask) -> str | None:
    condition, seq = a.c.stop.get("condition"), a.c.stop.get("seq")
    right = a.p["terminal"] == condition and seq in a.p["evidence"]
    return unless(right, f"terminal {condition} with evidence {seq}, which established it")


@guard
def report_published(a: Ask) -> str | None:
    return unless(bool(a.c.report), "report.published")


@guard
def cleaned_up(a: Ask) -> str | None:
    if any(job.status == "running" for job in a.c.jobs.values()):
        return "an end of every job"
    return unless(a.c.cleaned, "cleanup.finished")
