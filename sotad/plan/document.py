"""A plan as a document that people read: Markdown, with the draft at its end as it was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

JSON = dict[str, Any]


def markdown(plan: JSON) -> str:
    """The plan's sections in order. Reads nothing but the plan, so equal plans give equal documents."""
    parts = [
        "# Plan",
        f"## Goal Description\n\n{plan['goal']}",
        "## Acceptance Criteria\n\n" + "\n\n".join("\n".join(_criterion(entry)) for entry in plan["criteria"]),
        "## Path Boundaries\n\n" + "\n".join(_boundary(plan["boundary"])),
        "## Feasibility Hints and Suggestions\n\n" + _bullets(plan["hints"]),
        "## Dependencies and Sequence\n\n" + "\n".join(_milestone(entry) for entry in plan["milestones"]),
        "## Task Breakdown\n\n" + "\n".join(_tasks(plan["tasks"])),
        "## Deliberation\n\n" + "\n".join(_deliberation(plan["deliberation"])),
        "## Pending Decisions\n\n" + _decisions(plan["pending_decisions"]),
        "## Implementation Notes\n\n" + _bullets(plan["notes"]),
        "## What Is Fixed\n\n" + "\n".join(_fixed(plan)),
    ]
    if plan["draft"]:
        parts.append("## Original Draft\n\n" + plan["draft"])
    return "\n\n".join(parts).rstrip("\n") + "\n"


def _criterion(entry: JSON) -> Iterator[str]:
    yield f"- **{entry['id']}**: {entry['text']}"
    yield "  - Positive Tests (must pass):"
    yield from (f"    - {test}" for test in entry["positive_tests"])
    yield "  - Negative Tests (must be refused):"
    yield from (f"    - {test}" for test in entry["negative_tests"])


def _boundary(boundary: JSON) -> Iterator[str]:
    yield f"- Upper Bound: {boundary['upper']}"
    yield f"- Lower Bound: {boundary['lower']}"
    yield f"- May change: {_codes(boundary['may_change'])}"
    yield f"- May not change: {_codes(boundary['may_not_change'])}"


def _milestone(entry: JSON) -> str:
    after = f" (after {', '.join(entry['depends_on'])})" if entry["depends_on"] else ""
    return f"- **{entry['id']}**: {entry['text']} Tasks: {', '.join(entry['tasks'])}{after}"


def _tasks(tasks: Iterable[JSON]) -> Iterator[str]:
    yield "| ID | Description | Criteria | Tag | Depends On |"
    yield "|---|---|---|---|---|"
    for task in tasks:
        cells = (task["id"], task["text"], ", ".join(task["criteria"]), task["tag"], ", ".join(task["depends_on"]))
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _deliberation(said: JSON) -> Iterator[str]:
    yield "Agreements:\n\n" + _bullets(said["agreements"]) + "\n"
    yield "Resolved disagreements:\n\n" + _bullets(said["resolved"]) + "\n"
    yield f"Status: {said['status']}"


def _decisions(decisions: Iterable[JSON]) -> str:
    return "\n".join(_decision(entry) for entry in decisions) or "None."


def _decision(entry: JSON) -> str:
    lines = [f"- **{entry['id']}**: {entry['status']}", *(f"  - Position: {said}" for said in entry["positions"])]
    return "\n".join([*lines, f"  - Tradeoff: {entry['tradeoff']}"])


def _fixed(plan: JSON) -> Iterator[str]:
    yield f"- Baseline: {plan['baseline']['digest']}"
    yield from (f"- Winner of {name}: {_winner(won)}" for name, won in plan["baseline"]["winners"].items())
    yield f"- Decision rule: {', '.join(f'{key} {value}' for key, value in plan['decision'].items())}"
    yield f"- Rounds: {plan['rounds']}"


def _winner(won: Any) -> str:
    return f"{won.get('candidate')} ({won.get('reason', '')})" if isinstance(won, dict) else str(won)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "None."


def _codes(patterns: Iterable[str]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)


def _cell(text: str) -> str:
    """A table's cell is one line without its separator."""
    return " ".join(text.split()).replace("|", "\\|")
