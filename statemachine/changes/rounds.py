"""What a round changes: decisions, evidence, patches, reviews."""

from __future__ import annotations

from typing import Any

from ledger.events import Event
from statemachine import loop
from statemachine.changes.register import on
from statemachine.changes.steps import discard_launches, next_round
from statemachine.state import JSON, Attempt, Campaign


@on("plan.recorded")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.plan = {"version": p["version"], "plan": p["plan"], "digest": p["digest"], "source": p["source"], "seq": e.seq}
    c.plan["document"] = p["document"]
    c.plan_digest = p["digest"] if c.plan_digest else ""


@on("plan.amendment_proposed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.amendments[str(e.seq)] = {key: p[key] for key in ("plan", "digest", "reason", "by")}
    c.waits[f"plan:{e.seq}"] = {"text": f"amend the plan: {p['reason']}", "seq": e.seq}


@on("plan.amended")
def _(c: Campaign, e: Event, p: JSON) -> None:
    proposal = c.amendments.pop(str(p["proposal"]))
    c.plan |= {"version": p["version"], "plan": proposal["plan"], "digest": p["digest"], "seq": e.seq}
    c.plan_digest = p["digest"] if c.plan_digest else ""


@on("loop.started")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.plan_digest, c.champion, c.branch = p["plan_digest"], p["base_commit"], p["branch"]
    c.base = p["base_commit"]


@on("fairness.checked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.fairness = {**c.fairness, "round": p["round"], "passed": p["passed"], "seq": e.seq}


@on("fairness.violated")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.fairness = {"violations": c.fairness.get("violations", 0) + 1}
    c.exhausted, c.winners, c.baseline_digest = [], {}, ""
    discard_launches(c, "search/")


@on("aa.checked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.aa = {"passed": p["passed"], "seq": e.seq}


@on("gap.decided")
def _(c: Campaign, e: Event, p: JSON) -> None:
    decisions = {
        name: {key: found[key] for key in ("verdict", "g_pct", "lo_pct", "hi_pct", "n")}
        for name, found in p["decisions"].items()
    }
    entry = {"round": p["round"], "verdict": p["verdict"], "leader": p["leader"], "seq": e.seq}
    c.gaps.append(entry | {"decisions": decisions})
    if c.phase in ("stopping", "round.finalizing"):
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


@on("heldout.checked")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.heldout_check = {"commit": p["commit"], "passed": p["passed"], "round": p["round"], "seq": e.seq}
    if c.phase == "blocked":
        c.blocked = {
            "kind": "human",
            "reason": "what was gained on the workload is not there on the held-out one",
            "next": "look at the patches with `sotactl report`, then: sotactl resume (measures again) or cancel",
        }


@on("profile.captured")
def _(c: Campaign, e: Event, p: JSON) -> None:
    profile = {"commit": p["commit"], "round": p["round"], "trace": p["trace"], "seq": e.seq}
    c.profiles[p["side"]] = profile | ({"traces": p["traces"]} if p.get("traces") else {})


@on("tables.produced")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.tables = {"round": p["round"], "commit": p["commit"], "rows": p["rows"], "seq": e.seq}


@on("pipeline.written")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.pipeline = {"round": p["round"], "commit": p["commit"], "seq": e.seq}
    if p.get("limit"):
        c.pipeline["limit"] = p["limit"]


@on("rootcause.written")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.rootcause = {key: p[key] for key in ("round", "commit", "stage", "rows", "statement")} | {"seq": e.seq}
    c.rejected_rows = {}


@on("idea.rejected")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.rejected_rows.update(dict.fromkeys(p["rows"], p["reason"]))


@on("idea.recorded")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.ideas += [{**idea, "round": p["round"], "seq": e.seq} for idea in p["ideas"]]


@on("patch.proposed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = Attempt(p["attempt_id"], p["round"], p["citations"], p["hypothesis"], "proposed", c.champion, e.seq)
    attempt.contract = p.get("contract") or {}
    c.attempts[p["attempt_id"]], c.current_attempt = attempt, p["attempt_id"]


@on("finalize.opened")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = Attempt(
        p["attempt_id"], p["round"], [], "simplify without changing anything", "proposed", c.champion, e.seq
    )
    attempt.kind, attempt.parent = "finalize", c.current_attempt
    c.attempts[p["attempt_id"]], c.current_attempt, c.finalized = attempt, p["attempt_id"], True


@on("summary.recorded")
def _(c: Campaign, e: Event, p: JSON) -> None:
    kept = {key: p[key] for key in ("text", "files", "tests", "provenance", "complete") if key in p}
    c.attempts[p["attempt_id"]].summary = kept | {"seq": e.seq}


@on("gate.evaluated")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.attempts[p["attempt_id"]].gates[p["gate"]] = p["passed"]


@on("patch.applied")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = c.attempts[p["attempt_id"]]
    attempt.status, attempt.commit, attempt.subject = "applied", p["commit"], p["subject"]
    attempt.files, attempt.diff = p["files"], p["diff"]


@on("base.tested")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.base_tests = {key: p.get(key) for key in ("commit", "exit_code", "counted")} | {"seq": e.seq}


@on("tests.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.attempts[p["attempt_id"]].tests = p["passed"]


@on("equivalence.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = c.attempts[p["attempt_id"]]
    attempt.equivalence = p["passed"]
    if loop.is_current(c):  # the evidence holds a seed that was drawn after the patch was there
        attempt.salt = int(p["evidence"]["sha256"][:8], 16)


@on("accuracy.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.attempts[p["attempt_id"]].accuracy = p["passed"]


@on("patch.accepted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = c.attempts[p["attempt_id"]]
    attempt.status, attempt.gain_pct = "accepted", _worst_gain(p["decisions"])
    attempt.gain_by = {name: -float(found["g_pct"]) for name, found in p["decisions"].items()}
    c.champion = p["commit"]


@on("patch.reverted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    attempt = c.attempts[p["attempt_id"]]
    attempt.status, attempt.refused_by, attempt.reason = "reverted", p["gate"], p["reason"]
    attempt.gain_pct = _worst_gain(p["decisions"]) if p["decisions"] else None


@on("patch.quarantined")
def _(c: Campaign, e: Event, p: JSON) -> None:
    text = f"{p['attempt_id']} gains {p['gain_pct']:.1f}%, more than {p['ceiling_pct']:g}% ({p['why']})"
    c.waits[f"attempt:{p['attempt_id']}"] = {"text": text, "seq": e.seq}
    c.blocked = _for_a_person(c, f"attempt:{p['attempt_id']}", text)


def _for_a_person(c: Campaign, subject: str, reason: str) -> JSON:
    return {"kind": "human", "reason": reason, "next": f"sotactl approve {c.id} {subject} [--deny]"}


def _worst_gain(decisions: JSON) -> float:
    """The gain of the scenario that gained least, percent; g counts how far the challenger is behind."""
    return min(-float(found["g_pct"]) for found in decisions.values())


@on("checkpoint.written")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.checkpoints += 1
    c.review, c.verdicts, c.review_failures = {}, {}, 0
    if loop.is_current(c) and c.attempt.kind == "patch":
        c.weak = c.weak + 1 if loop.is_weak(c.attempt) else 0


@on("review.requested")
def _(c: Campaign, e: Event, p: JSON) -> None:
    kind = p.get("kind", "summary")
    if kind not in c.verdicts:  # a verdict stands, however often somebody asks again
        c.review = {"requested": p["round"], "kind": kind}


@on("review.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.review, c.review_failures = {}, c.review_failures + 1


@on("verdict.recorded")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.review |= {key: p[key] for key in ("mainline", "control", "findings", "summary")} | {"seq": e.seq}
    c.verdicts[p.get("kind", "summary")] = {**c.review, "criteria": p.get("criteria", [])}
    for name in p.get("resolved", []):
        c.issues[name] |= {"status": "resolved", "resolved_by": e.seq}
    for finding in p["findings"]:
        _raise_issue(c, e, finding)


def _raise_issue(c: Campaign, e: Event, finding: JSON) -> None:
    """A finding is an issue with an id and a life; one that names the issue it repeats keeps it open."""
    known = c.issues.get(str(finding.get("issue") or ""))
    if known is not None:
        known |= {"status": "open", "raised": known["raised"] + 1}
        return
    name = f"i{len(c.issues) + 1}"
    kept = {key: finding.get(key) for key in ("severity", "lane", "text", "path", "line")}
    about = {"id": name, "status": "open", "raised": 1, "round": c.round, "attempt_id": c.current_attempt}
    c.issues[name] = {**kept, **about, "seq": e.seq}


@on("review.stopped")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stop = {"condition": "stalled", "reason": f"the reviewer says stop: {p['reason']}", "seq": e.seq}


@on("review.passed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stalls, c.recovery = 0, False
    next_round(c)


@on("review.stalled")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.stalls += 1
    c.recovery = loop.is_current(c) and c.stalls >= 2
    if c.phase == "stopping":
        c.stop = {"condition": "stalled", "reason": f"{c.stalls} stalled rounds in a row", "seq": e.seq}
    else:
        next_round(c)


@on("review.findings")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if c.phase == "stopping":
        c.stop = {"condition": "stalled", "reason": "findings outlived every fix cycle", "seq": e.seq}
    elif c.phase == "round.patching":
        _open_fix(c, e, p["items"])
    else:
        if loop.is_current(c) and loop.mainline(c).get("mainline") == "ADVANCED":
            c.stalls, c.recovery = 0, False
        next_round(c)


def _open_fix(c: Campaign, e: Event, findings: list[Any]) -> None:
    """A fix attempt on the accepted patch: same citations, the findings as its contract."""
    c.fix_cycles += 1
    old = c.attempt
    fix = Attempt(
        f"{old.attempt_id}-fix{c.fix_cycles}", c.round, old.citations, old.hypothesis, "proposed", c.champion, e.seq
    )
    fix.findings = findings
    if loop.is_current(c):
        fix.kind, fix.parent, fix.contract = "fix", old.attempt_id, old.contract
    c.attempts[fix.attempt_id] = fix
    c.current_attempt = fix.attempt_id


@on("report.published")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.report = p["files"]


@on("downloads.listed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.downloads = c.downloads or p["folders"]


@on("cleanup.started")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.cleanup = c.cleanup or dict(p)


@on("cleanup.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.cleaned = True
