"""Reviewers that fail, lie or fall silent: never a pass, every failure on record, and bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from measured import WORK, Edit, Measured, cancelled
from rig.campaign import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first to ask for a stage waits for all of the way there

JSON = dict[str, Any]
Record = Callable[[str, object], None]
FINE: JSON = {"mainline": "ADVANCED", "control": "CONTINUE", "findings": [], "summary": "fine"}
P0: JSON = {"severity": "P0", "lane": "blocking", "text": "a step is left out", "path": WORK, "line": 5}
REFUSED_FIX = {"edits": [("README.md", "", "changed\n")]}  # outside of the paths: refused before it is run


def said(**changes: Any) -> JSON:
    """A step that writes the good verdict with changes, and nothing else."""
    return {"say": json.dumps({**FINE, **changes})}


def without(key: str) -> JSON:
    return {"say": json.dumps({name: value for name, value in FINE.items() if name != key})}


CRITERIA = [{"id": "AC-1", "status": "PARTIAL", "evidence": "half of it"}]
THREE = {
    "crashes, prose, two verdicts": (
        [{"exit": 5}, {"say": "Looks good to me! ADVANCED."}, {"say": json.dumps(FINE) + "\n" + json.dumps(FINE)}],
        ("exit code 5", "no JSON object", "no JSON object"),
    ),
    "a good verdict and then a crash, nothing, silence about findings": (
        [{**said(), "exit": 1}, {"say": None}, without("findings")],
        ("exit code 1", "no JSON object", "validation error"),
    ),
    "hangs, complete with unmet criteria, resolves what is no issue": (
        [{"hang": True}, said(control="COMPLETE", criteria=CRITERIA), said(resolved=["i9"])],
        ("timeout", "COMPLETE with every criterion MET", "i9 is none"),
    ),
    "answers for another kind, has no evidence, has a word of its own": (
        [said(kind="code"), said(criteria=[{"id": "AC-1", "status": "MET", "evidence": ""}]), said(mainline="PASSED")],
        ("validation error", "validation error", "validation error"),
    ),
}


@pytest.mark.parametrize("kind", THREE)
def test_three_failures_of_a_reviewer_block_and_none_of_them_passes(measured: Measured, kind: str) -> None:
    """Each has its reason on record; there is no verdict, and the round stays where it was."""
    steps, reasons = THREE[kind]
    measured.to("reviewing")
    measured.play("reviewer", review=steps)
    measured.start()
    assert "no usable verdict 3 times" in measured.blocked("evidence")
    failed = [event.payload["reason"] for event in measured.events("review.failed")]
    assert [wanted in reason for wanted, reason in zip(reasons, failed, strict=True)] == [True] * 3, failed
    assert measured.events("verdict.recorded", "review.passed") == []
    assert measured.c.round == 0
    cancelled(measured)


def test_a_reviewer_that_says_stop_never_passes_whatever_else_it_says(measured: Measured) -> None:
    """ADVANCED and STOP in one verdict: the campaign ends as stalled, and says who stopped it."""
    measured.to("reviewing")
    measured.play("reviewer", review=[said(control="STOP", summary="this leads nowhere")])
    measured.start()
    closed = measured.settled("campaign.closed", "review.passed").payload
    assert (closed["terminal"], "this leads nowhere" in closed["reason"]) == ("stalled", True)


def test_an_open_issue_cannot_be_passed_over_in_silence(measured: Measured) -> None:
    """After a P0 whose fix is refused, three verdicts without a word of it fail; the issue is still open."""
    measured.to("reviewing")
    measured.play("implementer", implement=[REFUSED_FIX])
    measured.play("reviewer", review=[said(findings=[P0]), said(), said(), said()])
    measured.start()
    assert "no usable verdict 3 times" in measured.blocked("evidence")
    failed = [event.payload["reason"] for event in measured.events("review.failed")]
    assert all("nothing is said of i1" in reason for reason in failed), failed
    assert measured.asked("implement")[-1]["findings"][0]["text"] == P0["text"]
    assert (measured.c.issues["i1"]["status"], measured.c.issues["i1"]["severity"]) == ("open", "P0")
    cancelled(measured)


def test_a_result_planted_beforehand_is_not_read(measured: Measured) -> None:
    """The implementer writes a verdict wherever a reviewer's could be looked for; a silent reviewer has none."""
    measured.to("selecting")
    runs = measured.paths.runs / "small" / "review" / "r0" / "a1"
    places = [str(runs / str(n) / "1" / "reviewer" / "desk" / "result.json") for n in range(3)]
    places += [str(measured.desk / "result.json"), str(measured.desk / "out.json")]
    plant = {"write": {place: json.dumps(FINE) for place in places}}
    tree = (WORK.replace("work.py", "result.json"), "", json.dumps(FINE))
    wrong: Edit = (WORK, "300 + int", "301 + int")
    measured.play("implementer", implement=[{**plant, "edits": [wrong, tree]}])
    measured.play("reviewer", review=[{"say": None}])
    measured.start()
    assert "no usable verdict 3 times" in measured.blocked("evidence")
    assert not any(event.payload["reason"] == "" for event in measured.events("review.failed"))
    assert measured.events("verdict.recorded") == []
    cancelled(measured)


def test_what_was_reviewed_is_not_amended(measured: Measured, record_property: Record) -> None:
    """A fix that rewrites the commit which the review saw is refused; that commit stays the champion, on its branch."""
    measured.to("reviewing")
    reviewed = measured.c.champion
    fix = {"edits": [(WORK, "TOKEN_WORK = 2000", "TOKEN_WORK = 1000")], "amend": True}
    measured.play("implementer", implement=[fix])
    measured.play("reviewer", review=[{}, said(findings=[P0]), {}])
    measured.start()
    reverted = measured.settled("patch.reverted", "patch.accepted").payload
    assert (reverted["attempt_id"], reverted.get("gate")) == ("a1-fix1", "commit_exists")
    assert "history was rewritten" in measured.why_refused("commit_exists")
    assert measured.c.champion == reviewed == git(measured.target, "rev-parse", "sotad/small")
    cancelled(measured)
    record_property("cheat", ("amends what was reviewed", "gate commit_exists"))


def test_a_finding_in_the_code_review_is_mended_and_seen_mended(measured: Measured, record_property: Record) -> None:
    """P0, a fix attempt that is tested and measured, a review of it that resolves the issue, then the round passes."""
    measured.to("reviewing")
    measured.play("implementer", implement=[{"edits": [(WORK, "TOKEN_WORK = 2000", "TOKEN_WORK = 1000")]}])
    measured.play("reviewer", review=[{}, said(findings=[P0]), {}])
    measured.start()
    passed = measured.settled("review.passed", "review.findings", "campaign.blocked")
    assert passed.type == "review.findings"
    opened = measured.c.issues["i1"]
    assert (opened["status"], opened["attempt_id"]) == ("open", "a1")
    passed = measured.until(
        lambda: [e for e in measured.events("review.passed", "review.stalled") if measured.tended()], "passed", 400
    )[0]
    fix = measured.c.attempts["a1-fix1"]
    assert (passed.type, fix.kind, fix.status, fix.tests, fix.equivalence) == (
        "review.passed",
        "fix",
        "accepted",
        True,
        True,
    )
    assert measured.c.issues["i1"]["status"] == "resolved"
    kinds = [e.payload["kind"] for e in measured.events("verdict.recorded")]
    assert kinds == ["summary", "code", "summary", "code"]
    assert [issue["id"] for issue in measured.asked("review")[-2]["open_issues"]] == ["i1"]
    cancelled(measured)
    record_property("honest", "a fix of what a review found")


def test_findings_that_never_end_are_bounded(measured: Measured) -> None:
    """Two fix attempts, each accepted; the third set of findings ends the campaign as stalled."""
    measured.to("reviewing")
    steps = [
        {"edits": [(WORK, f"TOKEN_WORK = {old}", f"TOKEN_WORK = {new}")]} for old, new in ((2000, 1000), (1000, 500))
    ]
    measured.play("implementer", implement=steps)
    again = {**P0, "issue": "i1"}
    measured.play("reviewer", review=[said(findings=[P0]), said(findings=[again]), said(findings=[again])])
    measured.start()
    closed = measured.settled("campaign.closed", patience_s=500).payload
    assert (closed["terminal"], closed["reason"]) == ("stalled", "findings outlived every fix cycle")
    assert (len(measured.events("review.findings")), measured.c.issues["i1"]["raised"]) == (3, 3)
