"""Guards of reviews, issues, and what people say."""

from __future__ import annotations

from statemachine import loop, plan
from statemachine.guards.asking import Ask, guard, unless

MAX_STALLS = 3
MAX_FIX_CYCLES = 2


@guard
def review_requested(a: Ask) -> str | None:
    if "mainline" in a.c.review:
        return f"one verdict for one request; {a.c.review['mainline']} is on record"
    kind = a.p.get("kind", "summary")
    asked = a.c.review.get("requested") == a.p["round"] == a.c.round and a.c.review.get("kind", "summary") == kind
    return unless(asked, f"review.requested of kind {kind} in round {a.p['round']}")


@guard
def verdict_on_record(a: Ask) -> str | None:
    return unless("mainline" in a.c.review and a.p["round"] == a.c.round, "verdict.recorded in this round")


@guard
def verdict_clean(a: Ask) -> str | None:
    clean = loop.findings(a.c) == [] and loop.mainline(a.c).get("mainline") == "ADVANCED"
    return unless(clean, "a verdict ADVANCED that states zero findings")


@guard
def findings_recorded(a: Ask) -> str | None:
    return unless(a.p["items"] == loop.findings(a.c), "the findings of the recorded verdict")


@guard
def findings_block(a: Ask) -> str | None:
    blocking = [item for item in loop.findings(a.c) if item["lane"] in loop.BLOCKING]
    if a.p["items"] != loop.findings(a.c) or not blocking:
        return "a finding of lane mainline or blocking in the recorded verdict"
    return unless(a.c.attempt.status == "accepted", "an accepted patch that the findings are about")


@guard
def fixes_left(a: Ask) -> str | None:
    return unless(a.c.fix_cycles < MAX_FIX_CYCLES, f"fewer than {MAX_FIX_CYCLES} fix cycles in this round")


@guard
def verdict_stalled(a: Ask) -> str | None:
    said = "STALLED" if loop.denied(a.c, f"round:{a.c.round}") else loop.mainline(a.c).get("mainline")
    return unless(said == a.p["mainline"], f"the recorded verdict {said}")


@guard
def third_stall(a: Ask) -> str | None:
    return unless(a.c.stalls + 1 >= MAX_STALLS, f"{MAX_STALLS} stalled rounds in a row ({a.c.stalls} before)")


@guard
def reviews_done(a: Ask) -> str | None:
    kind = loop.next_review(a.c)
    return unless(kind is None, f"verdict.recorded of kind {kind}")


@guard
def issues_settled(a: Ask) -> str | None:
    names = ", ".join(issue["id"] for issue in loop.open_issues(a.c)) if loop.is_current(a.c) else ""
    return unless(not names, f"a verdict that says {names} resolved")


@guard
def self_review_approved(a: Ask) -> str | None:
    subject = loop.unapproved_review(a.c)
    return unless(not subject, f"human.approved of {subject}: the implementer reviewed itself")


@guard
def reviewer_stops(a: Ask) -> str | None:
    return unless(loop.mainline(a.c).get("control") == "STOP", "a recorded verdict whose control word is STOP")


@guard
def complete_is_complete(a: Ask) -> str | None:
    if not a.c.plan or a.p["control"] != "COMPLETE":
        return None
    unmet = [found["id"] for found in a.p.get("criteria", []) if found["status"] != "MET"]
    missing = set(plan.criteria(a.c.plan["plan"])) - {found["id"] for found in a.p.get("criteria", [])}
    if unmet or missing:
        return f"COMPLETE with every criterion MET; not {', '.join(sorted({*unmet, *missing}))}"
    return unless(not a.p["findings"] and not loop.open_issues(a.c), "COMPLETE without findings and open issues")


@guard
def issues_addressed(a: Ask) -> str | None:
    if not loop.is_current(a.c) or a.p["mainline"] != "ADVANCED":
        return None
    said = {*a.p.get("resolved", []), *(finding.get("issue") for finding in a.p["findings"])}
    silent = [issue["id"] for issue in loop.open_issues(a.c) if issue["id"] not in said]
    return unless(not silent, f"every open issue resolved or raised again; nothing is said of {', '.join(silent)}")


@guard
def resolved_are_known(a: Ask) -> str | None:
    unknown = [name for name in a.p.get("resolved", []) if a.c.issues.get(name, {}).get("status") != "open"]
    return unless(not unknown, f"open issues; {', '.join(unknown)} is none")


@guard
def by_operator(a: Ask) -> str | None:
    return unless(a.actor.startswith("operator"), f"the word of a person, not of {a.actor}")


@guard
def agent_called(a: Ask) -> str | None:
    job = a.c.jobs.get(a.p["job"])
    if job is None or not 1 <= a.p["attempt"] <= job.attempt:
        return f"job.dispatched for attempt {a.p['attempt']} of {a.p['job']}"
    driver = a.c.spec["reviewer" if a.p["role"] == "reviewer" else "implementer"]["driver"]
    return unless(a.p["driver"] == driver, f"driver {driver} of the spec")


@guard
def waited_for(a: Ask) -> str | None:
    waits = ", ".join(a.c.waits) or "nothing"
    return unless(a.p["subject"] in a.c.waits, f"a subject that is waited for: {waits}")


@guard
def not_answered(a: Ask) -> str | None:
    answered = a.p["subject"].startswith("question:") and a.p["subject"] in a.c.answers
    return unless(not answered, "a new subject: this question was answered")
