"""From what is known, a draft and an agent's answer to one whole plan."""

from __future__ import annotations

from typing import Any

from sotad.plan import draft as drafts
from statemachine import plan as plans
from statemachine.plan_template import CRITERIA, known, template
from statemachine.state import JSON, Campaign

BEYOND = "T-7"  # the task for what a draft asks for beyond the loop's own criteria


def from_draft(c: Campaign, draft: str) -> JSON:
    """The template, with the draft's goal in place of its own and the draft's criteria after its own."""
    asked = [_numbered(number, entry) for number, entry in enumerate(drafts.criteria(draft), len(CRITERIA) + 1)]
    plan = template(c, draft)
    plan["goal"] = drafts.goal(draft) or plan["goal"]
    if asked:
        plan["criteria"] += asked
        plan["tasks"].append(_beyond([criterion["id"] for criterion in asked]))
        plan["milestones"][-1] = {**plan["milestones"][-1], "tasks": [*plan["milestones"][-1]["tasks"], BEYOND]}
    return plan


def _numbered(number: int, entry: JSON) -> JSON:
    """A criterion of the draft with its tests; one without is held to evidence on record."""
    text = entry["text"]
    return {
        "id": f"AC-{number}",
        "text": text,
        "positive_tests": entry["positive_tests"] or [f"evidence on record shows: {text}"],
        "negative_tests": entry["negative_tests"] or ["a claim that it is met, without evidence on record, is refused"],
    }


def _beyond(criteria: list[str]) -> JSON:
    text = "Meet what the draft asks for beyond the criteria of every loop."
    return {"id": BEYOND, "text": text, "criteria": criteria, "tag": "coding", "depends_on": ["T-3"]}


def from_agent(c: Campaign, draft: str, answer: JSON) -> JSON:
    """What an agent wrote, with the criteria of every loop first and with what only the daemon knows.

    Nothing is mended beyond that: :func:`statemachine.plan.problems` says what is wrong with the result.
    """
    plan: JSON = {**answer, **known(c, draft)}
    if isinstance(plan.get("criteria"), list):
        own = {criterion["id"] for criterion in CRITERIA}
        others = [entry for entry in plan["criteria"] if not (isinstance(entry, dict) and entry.get("id") in own)]
        plan["criteria"] = template(c)["criteria"] + others
    if isinstance(plan.get("boundary"), dict) and isinstance(plan["boundary"].get("may_not_change"), list):
        listed = plan["boundary"]["may_not_change"]
        kept = [*listed, *(pattern for pattern in plans.TESTS if pattern not in listed)]
        plan["boundary"] = {**plan["boundary"], "may_not_change": kept}
    return plan


def decided(plan: JSON, answers: JSON) -> JSON:
    """The plan with what people have decided in it; ``answers`` by subject, as the campaign holds them."""
    decisions = [_decided(entry, answers.get(subject(entry["id"]))) for entry in plan["pending_decisions"]]
    return {**plan, "pending_decisions": decisions}


def _decided(entry: JSON, answer: JSON | None) -> JSON:
    if entry["status"].strip().upper() != plans.PENDING or not answer:
        return entry
    return {**entry, "status": f"DECIDED: {answer['answer']}"}


def subject(decision: str) -> str:
    """Under which a person is asked about a decision."""
    return f"question:{decision}"


def question(plan: JSON, decision: str) -> str:
    """What a person is asked about a decision."""
    entry = next(entry for entry in plan["pending_decisions"] if entry["id"] == decision)
    return f"{decision}: {' | or: '.join(entry['positions'])} | what it costs: {entry['tradeoff']}"


def request(c: Campaign, draft: str, before: str) -> JSON:
    """What an agent is asked for a plan; ``before`` is what was wrong with its last one."""
    start = template(c, draft)
    return {
        "action": "plan",
        "campaign": c.id,
        "draft": draft,
        "target": c.target,
        "may_change_within": c.spec["frameworks"][c.target]["paths"],
        "scenarios": c.spec["workload"]["scenarios"],
        "sla": c.spec["sla"],
        "baseline": start["baseline"],
        "rounds": start["rounds"],
        "criteria": start["criteria"],
        "tasks": start["tasks"],
        "problems": before,
        "rules": list(RULES),
    }


RULES = (
    "The given criteria stand in every plan and are added for you; number your own after them.",
    "Every criterion has at least one test that must pass and one case that must be refused, and a task about it.",
    "Tasks and milestones depend on each other without a circle, and estimate no time.",
    "may_change stays within may_change_within and admits no tests.",
    "What a person has to decide is a pending decision with both positions and status PENDING.",
    "Numbers of the draft are directions unless it says that they are hard limits: ask when it matters.",
)


def schema() -> JSON:
    """JSON schema of what an agent writes: :data:`statemachine.plan.WRITTEN` in those words."""
    return _schema(plans.WRITTEN)


def _schema(shape: Any) -> JSON:
    if isinstance(shape, dict):
        inner = {key: _schema(value) for key, value in shape.items()}
        return {"type": "object", "properties": inner, "required": list(inner), "additionalProperties": False}
    if isinstance(shape, plans.Some):
        return {"type": "array", "items": _schema(shape.item), "minItems": shape.least}
    if isinstance(shape, plans.OneOf):
        return {"type": "string", "enum": list(shape.words)}
    if isinstance(shape, plans.Id):
        return {"type": "string", "pattern": f"^{shape.pattern}$"}
    return {"type": "string", "minLength": 1}
