"""What a model is told: a request as text. Pure; the words are in ``prompt.md.j2``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

JSON = dict[str, Any]
TASKS = {
    "plan": "Turn a draft into the plan of this campaign",
    "propose": "Propose the one change that this round tries",
    "implement": "Make the change that was proposed, and commit it",
    "finalize": "Simplify what was accepted, without changing what it does",
    "review": "Review this round",
    "self_review": "Check your own work as if it were somebody else's",
}
WRITES = ("implement", "finalize")
"""Actions whose agent may change its folder."""
TOLD = (
    *("action", "kind", "campaign", "target", "round", "goal", "criteria", "plan", "plan_digest", "contract"),
    *(
        "recovery",
        "draft",
        "statement",
        "rootcause",
        "gaps",
        "rows",
        "notes",
        "row_notes",
        "pulls",
        "attempt",
        "attempt_id",
    ),
    *("hypothesis", "branch", "diff", "said", "gates", "tried", "history", "rejected", "ideas", "issues"),
    *("open_issues", "findings", "weak", "paths", "boundary", "answers", "verdict_schema"),
)
"""Keys of a request that have a place of their own in the text; every other one is told as a further fact."""


def prompt(request: JSON, folder: str, request_file: str, schema: JSON, resumed: bool = False) -> str:
    """The whole text for a model: task, contract, evidence, rules, limits, history, and the form of the answer."""
    action = str(request.get("action", ""))
    facts = {
        **dict.fromkeys(TOLD),
        **request,
        "task": TASKS.get(action, action),
        "writes": action in WRITES,
        "limits": limits(request),
        "issues": _entries(request.get("issues") or request.get("open_issues")),
        "further": {
            key: value for key, value in request.items() if key not in TOLD and value not in (None, "", [], {})
        },
    }
    place = {"folder": folder, "request_file": request_file, "schema": schema, "resumed": resumed}
    return _template().render(**{**facts, **place})


def limits(request: JSON) -> list[list[str]]:
    """Patterns of files that may change, in lists: a file has to match one of each."""
    boundary = request.get("boundary") or (request.get("plan") or {}).get("boundary") or []
    chosen = boundary.get("may_change") if isinstance(boundary, dict) else boundary
    found = [list(patterns) for patterns in (chosen, request.get("paths")) if patterns]
    return found[:1] if found[:1] == found[1:] else found


def _entries(found: Any) -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else list(found or [])


def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    shape = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shape.filters["json"] = lambda value: json.dumps(value, sort_keys=True, ensure_ascii=False)
    shape.filters["pretty"] = lambda value: json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
    return shape.get_template("prompt.md.j2")
