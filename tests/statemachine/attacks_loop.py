"""Attacks on the rules for rounds: plans, contracts, reviews, people, held-out requests, gains too good to be true."""

from __future__ import annotations

import copy

from attacks import SCRIPTS, Attack, Make, Moment, later, with_
from script import JSON, PLAN

SCRIPTS |= {
    "asks": ({"propose": {0: "asks"}}, {}),
    "amends": ({"operator": {150: "amend"}}, {}),
    "wonder": ({"patch": {0: "wonder"}}, {}),
    "weak": ({"patch": {0: "same", 1: "same", 2: "same"}}, {}),
    "stalls": ({"patch": {0: "same", 1: "same"}, "review": {0: "stalled", 1: "stalled"}}, {}),
    "blocking": ({"review": {0: "blocking"}}, {}),
    "gone": ({"heldout": "gone", "patch": {0: "leap"}, "person": "leave"}, {}),
    "leap": ({"patch": {0: "leap"}}, {}),
    "simplifies": ({"patch": {0: "leap"}, "finalize": {0: "changed"}}, {}),
    "timed differ": ({"timed": {0: "differ"}}, {}),
    "stops": ({"review": {0: "stop"}}, {}),
}


def plan_with(**changes: object) -> Make:
    return lambda m: {**m.payload, "plan": {**PLAN, **changes}}


def contract_with(**changes: object) -> Make:
    return lambda m: {**m.payload, "contract": {**m.payload["contract"], **changes}}


def without(key: str) -> Make:
    return lambda m: {name: value for name, value in m.payload.items() if name != key}


def completed(status: str, name: str = "AC-1") -> Make:
    criteria = [{"id": name, "status": status, "evidence": "x"}]
    return lambda m: {**m.payload, "control": "COMPLETE", "criteria": criteria}


def passed_over(m: Moment) -> JSON:
    return {**m.payload, "passed": True}


def same_length(m: Moment) -> JSON:
    payload = copy.deepcopy(m.payload)
    payload["heldout"]["chat"] = {}
    return payload


def gain_claimed(m: Moment) -> JSON:
    return {**m.payload, "gain_pct": m.payload["gain_pct"] - 1}


def accepted_at_once(m: Moment) -> JSON:
    decisions = m.c.attempt.gates and {"chat": {"g_pct": -200.0}}
    return {"attempt_id": "a1", "commit": m.c.attempt.commit, "decisions": decisions or {}}


def quarantined(m: Moment) -> JSON:
    return {"attempt_id": "a1", "gain_pct": 900.0, "ceiling_pct": 1.0, "why": "x"}


def closing_review(m: Moment) -> JSON:
    return {"round": m.c.round, "findings": []}


APPROVED: JSON = {"subject": "attempt:a1", "approved": True}
LOOP_ATTACKS: tuple[Attack, ...] = (
    (
        "an agent that nobody called",
        "usual",
        "agent.finished",
        0,
        "agent.finished",
        with_(job="propose/r9/9"),
        "agent_called",
    ),
    (
        "another agent than the spec's",
        "usual",
        "agent.finished",
        0,
        "agent.finished",
        with_(driver="codex"),
        "agent_called",
    ),
    (
        "a commit called unchanged",
        "simplifies",
        "patch.applied",
        1,
        "finalize.unchanged",
        lambda m: {"attempt_id": "f1"},
        "nothing_applied",
    ),
    (
        "rows that no history was asked for",
        "usual",
        "history.noted",
        1,
        "patch.proposed",
        later("usual", "patch.proposed"),
        "history_of_rows",
    ),
    ("a plan without criteria", "usual", "plan.recorded", 0, "plan.recorded", plan_with(criteria=[]), "plan_valid"),
    ("another digest of the plan", "usual", "plan.recorded", 0, "plan.recorded", with_(digest="0" * 64), "plan_valid"),
    ("a second plan", "usual", "loop.started", 0, "plan.recorded", later("usual", "plan.recorded"), "plan_valid"),
    ("no plan", "usual", "plan.recorded", 0, "loop.started", later("usual", "loop.started"), "plan_on_record"),
    ("a loop by another plan", "usual", "loop.started", 0, "loop.started", with_(plan_digest="x"), "plan_on_record"),
    (
        "amended by nobody",
        "amends",
        "human.approved",
        0,
        "plan.amended",
        later("amends", "plan.amended"),
        "amendment_approved",
    ),
    (
        "amended to something else",
        "amends",
        "plan.amended",
        0,
        "plan.amended",
        with_(digest="0" * 64),
        "amendment_approved",
    ),
    (
        "an amendment that moves the goal",
        "amends",
        "plan.amendment_proposed",
        0,
        "plan.amendment_proposed",
        plan_with(goal="less"),
        "amendment_valid",
    ),
    ("the daemon approves", "amends", "human.approved", 0, "human.approved", with_(), "by_operator"),
    ("the daemon answers", "asks", "human.answered", 0, "human.answered", with_(), "by_operator"),
    ("no contract", "usual", "patch.proposed", 0, "patch.proposed", without("contract"), "contract_valid"),
    (
        "two objectives",
        "usual",
        "patch.proposed",
        0,
        "patch.proposed",
        contract_with(objective="a\nb"),
        "contract_valid",
    ),
    (
        "an unknown criterion",
        "usual",
        "patch.proposed",
        0,
        "patch.proposed",
        contract_with(criteria=["AC-7"]),
        "contract_valid",
    ),
    ("success left open", "usual", "patch.proposed", 0, "patch.proposed", contract_with(success=" "), "contract_valid"),
    (
        "no recovery contract",
        "stalls",
        "patch.proposed",
        2,
        "patch.proposed",
        contract_with(recovery={}),
        "contract_valid",
    ),
    (
        "no research after weak rounds",
        "weak",
        "idea.recorded",
        2,
        "patch.proposed",
        later("weak", "patch.proposed", 2),
        "research_done",
    ),
    (
        "nothing said of the work",
        "usual",
        "summary.recorded",
        0,
        "patch.applied",
        later("usual", "patch.applied"),
        "summary_on_record",
    ),
    (
        "a gate left out",
        "usual",
        "gate.evaluated",
        8,
        "patch.applied",
        later("usual", "patch.applied"),
        "commit_gates_passed",
    ),
    (
        "timed answers not looked at",
        "usual",
        "gate.evaluated",
        15,
        "patch.accepted",
        later("usual", "patch.accepted"),
        "timed_outputs_equal",
    ),
    (
        "timed answers differ",
        "timed differ",
        "patch.reverted",
        0,
        "patch.accepted",
        later("usual", "patch.accepted"),
        "timed_outputs_equal",
    ),
    (
        "a wonder accepted",
        "wonder",
        "patch.quarantined",
        0,
        "patch.accepted",
        later("wonder", "patch.accepted"),
        "gain_plausible",
    ),
    (
        "another gain quarantined",
        "wonder",
        "patch.quarantined",
        0,
        "patch.quarantined",
        gain_claimed,
        "quarantine_adds_up",
    ),
    ("a usual gain quarantined", "usual", "patch.accepted", 0, "patch.quarantined", quarantined, "quarantine_adds_up"),
    (
        "disbelieved by no one",
        "wonder",
        "patch.quarantined",
        0,
        "patch.reverted",
        lambda m: {
            "attempt_id": "a1",
            "gate": "plausibility",
            "reason": "x",
            "decisions": {},
            "restored_commit": m.c.champion,
        },
        "refusal_on_record",
    ),
    ("a word that nobody waits for", "usual", "gap.decided", 0, "human.approved", lambda m: APPROVED, "by_operator"),
    ("code not reviewed", "usual", "review.requested", 1, "review.passed", closing_review, "reviews_done"),
    (
        "a verdict of another kind",
        "usual",
        "verdict.recorded",
        0,
        "verdict.recorded",
        with_(kind="code"),
        "review_requested",
    ),
    (
        "complete, though a criterion is not met",
        "usual",
        "verdict.recorded",
        0,
        "verdict.recorded",
        completed("PARTIAL"),
        "complete_is_complete",
    ),
    (
        "complete by another criterion",
        "usual",
        "verdict.recorded",
        0,
        "verdict.recorded",
        completed("MET", "AC-5"),
        "complete_is_complete",
    ),
    (
        "resolved what is not open",
        "usual",
        "verdict.recorded",
        0,
        "verdict.recorded",
        with_(resolved=["i7"]),
        "resolved_are_known",
    ),
    (
        "silent on an open issue",
        "blocking",
        "verdict.recorded",
        1,
        "verdict.recorded",
        with_(resolved=[]),
        "issues_addressed",
    ),
    (
        "stopped by a reviewer who did not",
        "usual",
        "review.passed",
        0,
        "review.stopped",
        lambda m: {"round": m.c.round, "reason": "x"},
        "reviewer_stops",
    ),
    ("no held-out requests", "usual", "workload.frozen", 0, "workload.frozen", same_length, "heldout_drawn"),
    (
        "success without the held-out check",
        "leap",
        "heldout.checked",
        0,
        "gap.decided",
        later("leap", "gap.decided", 1),
        "heldout_confirmed",
    ),
    ("a held-out failure passed over", "gone", "heldout.checked", 0, "heldout.checked", passed_over, "heldout_adds_up"),
    (
        "simplified twice",
        "simplifies",
        "heldout.checked",
        1,
        "finalize.opened",
        later("simplifies", "finalize.opened"),
        "phase",
    ),
    (
        "a patch called unchanged",
        "usual",
        "patch.applied",
        0,
        "finalize.unchanged",
        lambda m: {"attempt_id": "a1"},
        "finalizing",
    ),
)
