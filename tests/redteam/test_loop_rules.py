"""What holds the loop itself: people's words, budgets, and rounds that lead nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from measured import Measured, cancelled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first to ask for a stage waits for all of the way there

JSON = dict[str, Any]
REFUSED = {"edits": [("README.md", "", "changed\n")]}  # outside of the paths: refused before it is run
IDEA = {"origin": "profile row", "reference": "work.py", "licence": "", "applicability": "here"}


def used(**usage: Any) -> JSON:
    """A step that reports what it has used."""
    return {"print": [json.dumps({"usage": usage})]}


# --- questions ------------------------------------------------------------------------------------


def test_a_question_waits_for_a_person_and_the_answer_is_in_the_next_request(measured: Measured) -> None:
    """blocked(human); `sotactl answer`, and the campaign goes on by itself."""
    measured.to("selecting")
    measured.play("implementer", propose=[{"answer": {"question": "May a lock be dropped?"}}, {}])
    measured.start()
    assert "May a lock be dropped?" in measured.blocked("human")
    (subject,) = measured.c.waits
    assert measured.asked("propose")[-1]["answers"] == {}
    said = measured.sotactl("answer", "small", subject, "no: it guards the cache")
    assert said.returncode == 0, said.stderr
    measured.settled("patch.proposed")
    answer = measured.asked("propose")[-1]["answers"][subject]
    assert (answer["question"], answer["answer"]) == ("May a lock be dropped?", "no: it guards the cache")
    cancelled(measured)


# --- budgets --------------------------------------------------------------------------------------

OVERSPENT = {
    "tokens": used(input_tokens=900_000, output_tokens=200_000, cost_usd=1.0),
    "money": used(input_tokens=10, output_tokens=10, cost_usd=60.0),
}


@pytest.mark.parametrize("kind", ["tokens", "money"])
def test_agents_that_have_used_up_a_budget_end_the_campaign(measured: Measured, kind: str) -> None:
    """As their own lines report it: budget.exhausted with limit and use, then closed."""
    measured.to("selecting")
    measured.play("implementer", propose=[OVERSPENT[kind]])
    measured.start()
    exhausted = measured.settled("budget.exhausted", "patch.applied").payload
    assert (exhausted["kind"], exhausted["used"] > exhausted["limit"]) == (kind, True)
    assert measured.settled("campaign.closed").payload["terminal"] == "budget_exhausted"


UNTRUE = {
    "nothing": {},
    "less than nothing": used(input_tokens=-5_000_000, output_tokens=-5_000_000, cost_usd=-100.0),
    "no numbers": {"print": ['{"usage": {"input_tokens": true, "output_tokens": "9", "cost_usd": NaN}}']},
}


@pytest.mark.parametrize("kind", UNTRUE)
def test_what_an_agent_does_not_report_counts_as_unknown_and_never_as_a_refund(measured: Measured, kind: str) -> None:
    """Spent stays what it was, and one more call is counted as unknown."""
    measured.to("selecting")
    before = measured.c.spent
    measured.play("implementer", propose=[UNTRUE[kind]])
    measured.start()
    measured.settled("patch.proposed")
    spent = measured.c.spent
    assert spent["unknown"] == before.get("unknown", 0) + 1
    assert (spent["tokens"], spent["money_usd"]) == (before.get("tokens", 0), before.get("money_usd", 0.0))
    cancelled(measured)


def test_a_count_that_no_ledger_can_hold_ends_no_daemon(measured: Measured) -> None:
    """A number of 31 or 401 digits is over every budget or unknown; the campaign goes on or ends in order."""
    measured.to("selecting")
    huge = [used(input_tokens=10**30), {"print": ['{"usage": {"cost_usd": 1' + "0" * 400 + "}}"]}]
    measured.play("implementer", propose=[*huge, {}])
    measured.start()
    measured.settled("patch.proposed", "campaign.closed", "campaign.blocked", patience_s=60)
    assert measured.process is not None and measured.process.poll() is None
    if measured.c.phase != "closed":
        cancelled(measured)


# --- rounds that lead nowhere ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def astray(stages: Measured) -> Iterator[list[JSON]]:
    """Three rounds whose patches are refused, by an implementer that first leaves out what it owes.

    In the third it gives neither ideas nor the cause, then ideas only, then both. The reviewer of the second, which is
    an alignment, first says nothing of the criteria. Yields the ledger's events.
    """
    stages.to("selecting")
    bare = {"answer": {"contract": {"objective": "again", "criteria": ["AC-1"], "success": "the row is cheaper"}}}
    ideas = {"answer": {**bare["answer"], "ideas": [IDEA]}}
    both = {"answer": {"ideas": [IDEA]}}
    stages.play("implementer", propose=[{}, {}, bare, ideas, both], implement=[REFUSED])
    stages.play("reviewer", review=[{}, {"answer": {"criteria": []}}, {}])
    stages.start()
    stages.settled("campaign.closed", patience_s=600)
    stages.stop()
    yield [{"type": event.type, **event.payload} for event in stages.events()]


def of(events: list[JSON], *types: str) -> list[JSON]:
    return [event for event in events if event["type"] in types]


def test_three_stalled_rounds_end_the_campaign(astray: list[JSON]) -> None:
    """Each round's refusal is reviewed, and the third stall in a row is the last."""
    assert [event["gate"] for event in of(astray, "patch.reverted")] == ["path_boundary"] * 3
    assert len(of(astray, "review.stalled")) == 3
    assert [event["terminal"] for event in of(astray, "campaign.closed")] == ["stalled"]


def test_two_stalled_rounds_demand_a_recovery_contract_and_weak_ones_new_ideas(astray: list[JSON]) -> None:
    """A proposal without them is refused with what is missing; the one with both is taken, with its cause on record."""
    ends = [
        event["detail"]
        for event in of(astray, "job.finished")
        if event["job"].startswith("propose/r2") and not event["ok"]
    ]
    assert len(ends) == 2
    assert "recovery contract" in ends[0] or "idea.recorded" in ends[0]
    assert "recovery contract" in ends[1]
    proposed = of(astray, "patch.proposed")
    assert [bool(event["contract"].get("recovery")) for event in proposed] == [False, False, True]
    assert of(astray, "idea.recorded")
    assert of(astray, "idea.recorded")[0]["round"] == 2


def test_an_alignment_says_something_of_every_criterion(astray: list[JSON]) -> None:
    """The verdict that leaves them out is a failed review; the one that counts names each of the plan's."""
    (plan,) = of(astray, "plan.recorded")
    every = {criterion["id"] for criterion in plan["plan"]["criteria"]}
    assert [event["kind"] for event in of(astray, "verdict.recorded")] == ["summary", "alignment", "summary"]
    assert {found["id"] for found in of(astray, "verdict.recorded")[1]["criteria"]} == every
    (failed,) = of(astray, "review.failed")
    assert (failed["round"], "says nothing of AC-1" in failed["reason"]) == (1, True)


# --- reviewing oneself ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def self_reviewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """A campaign whose implementer has reviewed its own accepted patch."""
    rig = Measured(tmp_path_factory.mktemp("alone") / "rig")
    rules = {"review__mode": "self", "decision__max_gain_pct": 100_000}
    rig.die("human.question", before=lambda: rig.submit(**rules))
    rig.end()
    rig.keep("self")
    yield rig
    rig.end()


def again(rig: Measured) -> None:
    rig.end()
    rig.back_to("self")
    rig.stage_seq = rig.events()[-1].seq
    rig.start()
    assert "was reviewed by its implementer" in rig.blocked("human")


def test_a_self_review_passes_only_with_a_person_s_yes(self_reviewed: Measured) -> None:
    """It waits; the approval is an event by an operator, and the pass comes after it."""
    again(self_reviewed)
    assert self_reviewed.events("review.passed") == []
    assert self_reviewed.sotactl("approve", "small", "round:0").returncode == 0
    passed = self_reviewed.settled("review.passed", "review.stalled")
    (approved,) = self_reviewed.events("human.approved")
    assert (passed.type, approved.seq < passed.seq) == ("review.passed", True)
    assert approved.actor.startswith("operator")
    cancelled(self_reviewed)


def test_a_self_review_that_a_person_denies_is_a_stalled_round(self_reviewed: Measured) -> None:
    """The implementer's ADVANCED counts for nothing."""
    again(self_reviewed)
    assert self_reviewed.sotactl("approve", "small", "round:0", "--deny").returncode == 0
    assert self_reviewed.settled("review.passed", "review.stalled").type == "review.stalled"
    cancelled(self_reviewed)
