"""The plan in force, and what of it the goal tracker holds fast."""

from __future__ import annotations

import json
from typing import NamedTuple

from ledger.events import Event
from sotad.plan.document import markdown as plan_markdown
from sotad.report.document import Code, Document, Items, Section, Text, markdown
from sotad.report.facts import Facts, cite
from statemachine.state import JSON


class Aim(NamedTuple):
    """What the loop is for, as the plan said when it started; ``criteria`` are ids with their texts."""

    goal: str
    criteria: list[tuple[str, str]]


def plan_page(f: Facts, started: Event) -> str:
    """The plan in force, amendments included; a plan of an older campaign as its artifact says."""
    if f.c.plan:
        return plan_markdown(f.c.plan["plan"])
    text = f.text_of(started.payload["plan"])
    plan = _object(text)
    return f"{text}\n" if plan is None else _laid_out(plan, f"Plan {cite(started)}")


def aim(f: Facts, started: Event) -> Aim:
    """Goal and criteria of the plan with which the loop started; amendments do not change them."""
    recorded = [event for event in f.all("plan.recorded") if event.seq < started.seq]
    if recorded:
        plan = recorded[-1].payload["plan"]
        return Aim(plan["goal"], [(entry["id"], entry["text"]) for entry in plan["criteria"]])
    found = _object(f.text_of(started.payload["plan"])) or {}
    criteria = found.get("criteria")
    goal = f"bring {f.target} to par with the best competitor or ahead of it"
    return Aim(str(found.get("goal", goal)), list(criteria.items()) if isinstance(criteria, dict) else [])


def _object(text: str) -> JSON | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _laid_out(plan: JSON, title: str) -> str:
    """One section for each part; what is no text or list of texts stands there as it is."""
    sections = [Section(key.replace("_", " ").capitalize(), [_block(value)]) for key, value in plan.items()]
    return markdown(Document(title, sections)).decode()


def _block(value: object) -> Text | Items | Code:
    if isinstance(value, str):
        return Text(value or "none")
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return Items(value, empty="none")
    return Code(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False))
