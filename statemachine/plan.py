"""The plan of a loop as data: its shape, what is wrong with one, and what a person may change in it later.

A plan is plain JSON with exactly the keys of :data:`SHAPE`. Whoever wrote it, nothing in it is believed before
:func:`problems` has no line to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

JSON = dict[str, Any]


class Some(NamedTuple):
    """A list of at least ``least`` items of one shape."""

    item: Any
    least: int = 1


class OneOf(NamedTuple):
    """One of these words."""

    words: tuple[str, ...]


class Id(NamedTuple):
    """A name of this form."""

    pattern: str
    example: str


TEXT = "text"  # a string that says something
TEXTS = Some(TEXT, 0)
STRING = "a text"
OBJECT = "an object"
WHOLE = "a whole number of at least 1"
CRITERION = Id(r"AC-[1-9][0-9]{0,3}(\.[1-9][0-9]{0,3})?", "AC-1 or AC-1.2")
NAME = Id(r"[A-Za-z][A-Za-z0-9_.-]{0,39}", "T-1")

WRITTEN: JSON = {
    "goal": TEXT,
    "criteria": Some({"id": CRITERION, "text": TEXT, "positive_tests": Some(TEXT), "negative_tests": Some(TEXT)}),
    "boundary": {"upper": TEXT, "lower": TEXT, "may_change": Some(TEXT), "may_not_change": Some(TEXT)},
    "hints": TEXTS,
    "milestones": Some({"id": NAME, "text": TEXT, "tasks": Some(NAME), "depends_on": Some(NAME, 0)}),
    "tasks": Some(
        {
            "id": NAME,
            "text": TEXT,
            "criteria": Some(CRITERION),
            "tag": OneOf(("coding", "analyze")),
            "depends_on": Some(NAME, 0),
        }
    ),
    "deliberation": {
        "agreements": TEXTS,
        "resolved": TEXTS,
        "status": OneOf(("converged", "partially_converged")),
    },
    "pending_decisions": Some(
        {"id": Id(r"DEC-[1-9][0-9]{0,3}", "DEC-1"), "positions": Some(TEXT, 2), "tradeoff": TEXT, "status": TEXT}, 0
    ),
    "notes": TEXTS,
}
"""What a person or an agent writes. ``status`` of a decision is PENDING, or what was decided."""

KNOWN: JSON = {
    "draft": STRING,  # as it was given; "" without one
    "baseline": {"digest": TEXT, "winners": OBJECT},
    "decision": OBJECT,
    "rounds": WHOLE,
}
"""What the daemon adds: where the plan comes from, what was frozen before it, and the rule by which it is judged."""

SHAPE: JSON = {**WRITTEN, **KNOWN}
FIXED = ("goal", *KNOWN)  # what no amendment may change: the measure of success is not moved after the start
PENDING = "PENDING"

TESTS = (
    *("tests/*", "*/tests/*", "test/*", "*/test/*"),
    *("test_*", "*/test_*", "*_test.py", "conftest.py", "*/conftest.py"),
)
"""Patterns of files that test the target; ``*`` stands for any characters, ``/`` among them."""

_TEST_NAME = re.compile(r"(^|/)(tests?(/|$)|test_|conftest\.py$)|_test\.py$", re.IGNORECASE)
_COMMENT = re.compile(r"\bCMT:|\bENDCMT\b|</?(?:cmt|comment)>", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\[To be ", re.IGNORECASE)
_TIME = re.compile(
    r"\b(?:\d+(?:[.,]\d+)?|half an?|two|three|four|five|six|seven|eight|nine|ten|few|several|couple of)[\s-]*"
    r"(?:working[\s-]|person[\s-]|man[\s-])?(?:minutes?|mins?|hours?|hrs?|h|days?|weeks?|months?|sprints?)\b(?![\s-]*(?:old|ago)\b)"
    r"|\b(?:an?|one)\s(?:hour|day|week|month|sprint)\b(?![\s-]*(?:old|ago)\b)|\bETA\b",
    re.IGNORECASE,
)


def problems(plan: Any) -> list[str]:
    """What is wrong with a plan, one line each; empty when it may be followed. Never raises, whatever it is given."""
    found = list(_misshapen(plan, SHAPE, ""))
    return found or [*_ids(plan), *_references(plan), *_order(plan), *_paths(plan), *_words(plan)]


def criteria(plan: JSON) -> list[str]:
    """Ids of the acceptance criteria, in order."""
    return [criterion["id"] for criterion in plan["criteria"]]


def boundary(plan: JSON) -> list[str]:
    """Patterns of the paths that a patch may change; what :func:`forbidden` names is out even so."""
    return list(plan["boundary"]["may_change"])


def forbidden(plan: JSON) -> list[str]:
    """Patterns of the paths that no patch may change, tests always among them."""
    return list(plan["boundary"]["may_not_change"])


def pending(plan: JSON) -> list[str]:
    """Ids of the decisions that wait for a person; no loop starts before they are made."""
    return [entry["id"] for entry in plan["pending_decisions"] if entry["status"].strip().upper() == PENDING]


def amendment_problems(old: JSON, new: Any) -> list[str]:
    """Why a plan may not take the place of another, one line each: it is wrong, moves what is fixed, or is the same."""
    found = problems(new)
    if found:
        return found
    moved = [f"{key}: an amendment cannot change it" for key in FIXED if new[key] != old.get(key)]
    undecided = [
        f"pending_decisions: {name} is PENDING; write what was decided"
        for name in pending(new)
        if name not in pending(old)
    ]
    same = [] if new != old else ["nothing in it differs from the plan in force"]
    return [*moved, *undecided, *same]


def changes(old: JSON, new: JSON) -> list[str]:
    """What an amendment does, one line each, criteria first: a person reads it before approving."""
    return [
        *_changed_entries("criterion", old["criteria"], new["criteria"]),
        *(f"boundary.{key} changes" for key in new["boundary"] if new["boundary"][key] != old["boundary"][key]),
        *_changed_entries("task", old["tasks"], new["tasks"]),
        *_changed_entries("milestone", old["milestones"], new["milestones"]),
        *(f"{key} change" for key in ("hints", "deliberation", "pending_decisions", "notes") if new[key] != old[key]),
    ]


def _changed_entries(what: str, old: list[JSON], new: list[JSON]) -> Iterator[str]:
    before, after = ({entry["id"]: entry for entry in entries} for entries in (old, new))
    yield from (f"{what} {name} is removed" for name in before if name not in after)
    yield from (f"{what} {name} is added" for name in after if name not in before)
    yield from (f"{what} {name} changes" for name in after if name in before and after[name] != before[name])


# --- shape -------------------------------------------------------------------------------------------------------


def _misshapen(value: Any, shape: Any, at: str) -> Iterator[str]:
    """Where a value is not of its shape."""
    where = at or "the plan"
    if isinstance(shape, dict):
        yield from _not_an_object(value, shape, at, where)
    elif isinstance(shape, Some):
        yield from _not_a_list(value, shape, where)
    elif not _is(value, shape):
        yield f"{where}: must be {_wanted(shape)}"


def _not_an_object(value: Any, shape: JSON, at: str, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: must be an object with {', '.join(shape)}"
        return
    prefix = f"{at}." if at else ""
    yield from (f"{prefix}{key}: is missing" for key in shape if key not in value)
    yield from (f"{where}: {key!r} is no key of it" for key in value if key not in shape)
    for key, inner in shape.items():
        if key in value:
            yield from _misshapen(value[key], inner, f"{prefix}{key}")


def _not_a_list(value: Any, shape: Some, where: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{where}: must be a list"
        return
    if len(value) < shape.least:
        yield f"{where}: needs at least {shape.least} {'entry' if shape.least == 1 else 'entries'}"
    for number, entry in enumerate(value):
        yield from _misshapen(entry, shape.item, f"{where}[{number}]")


def _is(value: Any, shape: Any) -> bool:
    if shape == OBJECT:
        return isinstance(value, dict)
    if shape == WHOLE:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not isinstance(value, str):
        return False
    if isinstance(shape, OneOf):
        return value in shape.words
    if isinstance(shape, Id):
        return re.fullmatch(shape.pattern, value) is not None
    return shape == STRING or bool(value.strip())


def _wanted(shape: Any) -> str:
    if isinstance(shape, OneOf):
        return f"one of {', '.join(shape.words)}"
    if isinstance(shape, Id):
        return f"a name such as {shape.example}"
    return "a text that is not empty" if shape == TEXT else str(shape)


# --- meaning -----------------------------------------------------------------------------------------------------


def _ids(plan: JSON) -> Iterator[str]:
    for part in ("criteria", "tasks", "milestones", "pending_decisions"):
        names = [entry["id"] for entry in plan[part]]
        twice = sorted({name for name in names if names.count(name) > 1})
        yield from (f"{part}: {name} is there more than once" for name in twice)


def _references(plan: JSON) -> Iterator[str]:
    """Tasks name criteria that exist and cover all of them; milestones name tasks."""
    known, covered = criteria(plan), set()
    for task in plan["tasks"]:
        covered.update(task["criteria"])
        yield from _unknown(f"tasks {task['id']}: criterion", task["criteria"], known)
    yield from (f"criteria: no task is about {name}" for name in known if name not in covered)
    tasks = [task["id"] for task in plan["tasks"]]
    for milestone in plan["milestones"]:
        yield from _unknown(f"milestones {milestone['id']}: task", milestone["tasks"], tasks)


def _unknown(what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    yield from (f"{what} {name} is not in the plan" for name in names if name not in known)


def _order(plan: JSON) -> Iterator[str]:
    """Dependencies exist and lead nowhere in a circle."""
    for part in ("tasks", "milestones"):
        needs = {entry["id"]: entry["depends_on"] for entry in plan[part]}
        for name, before in needs.items():
            yield from _unknown(f"{part} {name}: depends_on", before, needs)
        circle = _circle(needs)
        if circle:
            yield f"{part}: {', '.join(circle)} depend on each other in a circle"


def _circle(needs: dict[str, list[str]]) -> list[str]:
    """What is left once everything whose needs are met is taken away, again and again."""
    left = {name: {other for other in before if other in needs} for name, before in needs.items()}
    while ready := {name for name, before in left.items() if not before}:
        left = {name: before - ready for name, before in left.items() if name not in ready}
    return sorted(left)


def path_problem(pattern: str) -> str:
    """What is wrong with a pattern of paths that a patch may change; empty when nothing is."""
    if _leads_out(pattern):
        return f"{pattern!r} must be a path inside the checkout, without '..'"
    if _TEST_NAME.search(pattern.replace("*", "")):
        return f"{pattern!r} admits tests, which no patch may change"
    return ""


def _paths(plan: JSON) -> Iterator[str]:
    wrong = {pattern: path_problem(pattern) for pattern in boundary(plan)}
    yield from (f"boundary.may_change: {problem}" for problem in wrong.values() if problem)
    for pattern in filter(_leads_out, forbidden(plan)):
        yield f"boundary.may_not_change: {pattern!r} must be a path inside the checkout, without '..'"
    absent = [pattern for pattern in TESTS if pattern not in forbidden(plan)]
    if absent:
        yield f"boundary.may_not_change: tests are to be named there: add {', '.join(absent)}"


def _leads_out(pattern: str) -> bool:
    odd = pattern != pattern.strip() or any(not char.isprintable() for char in pattern)
    rooted = pattern.startswith(("/", "~")) or "\\" in pattern or re.match(r"[A-Za-z]:", pattern) is not None
    return odd or rooted or ".." in pattern.split("/")


def _words(plan: JSON) -> Iterator[str]:
    """No estimate of time in what is to be done in which order, and nothing in the text that is still to be done."""
    for part in ("milestones", "tasks"):
        for entry in plan[part]:
            if said := _TIME.search(entry["text"]):
                yield f"{part} {entry['id']}: {said.group()!r} is an estimate of time; say what must be done before"
    for where, text in _texts({key: plan[key] for key in (*WRITTEN, "draft")}, ""):
        if _COMMENT.search(text):
            yield f"{where}: a comment (CMT: … ENDCMT) is left in it; settle it first"
        if _PLACEHOLDER.search(text):
            yield f"{where}: a placeholder '[To be …' is left in it; fill it in"


def _texts(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """Every string of a document with its place."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{at}[{number}]")
