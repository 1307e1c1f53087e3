"""The shape of an implementer's answers, as JSON schemas; a verdict's and a plan's come with their requests."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]
TEXT: JSON = {"type": "string"}
TEXTS: JSON = {"type": "array", "items": TEXT}


def _object(**properties: JSON) -> JSON:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _or_null(schema: JSON) -> JSON:
    return {"anyOf": [schema, {"type": "null"}]}


def _said(schema: JSON, description: str) -> JSON:
    return {**schema, "description": description}


CONTRACT = _object(
    objective=_said(TEXT, "what this round is for, in one line"),
    criteria=_said(TEXTS, "one or two ids of the plan's acceptance criteria"),
    success=_said(TEXT, "what will have been measured when it succeeded"),
    recovery=_or_null(
        _object(
            cause=_said(TEXT, "why the last rounds brought nothing"),
            flips=_said(TEXT, "what would make a reviewer say ADVANCED"),
        )
    ),
)
IDEA = _object(
    origin=_said(TEXT, "source code, pull request, paper, documentation, profile"),
    reference=_said(TEXT, "repository and path, number, or address"),
    licence=_said(TEXT, "of the source, or none when nothing is taken over"),
    applicability=_said(TEXT, "why it fits these rows, or why it does not"),
)
PROPOSAL = _object(
    decline=_said(TEXT, "why none of the rows can be improved; empty when there is a proposal"),
    rows=_said(TEXTS, "ids of the rows that the change goes after"),
    hypothesis=_said(TEXT, "what is slow, why, and what one change mends it"),
    contract=_or_null(CONTRACT),
    ideas={"type": "array", "items": IDEA},
    question=_said(TEXT, "for a person, when nothing else can decide; empty otherwise"),
)
SOURCE = _object(
    path=_said(TEXT, "file that something was taken over into"),
    source=_said(TEXT, "where it comes from: address, commit, path"),
    licence=TEXT,
)
IMPLEMENTATION = _object(
    summary=_said(TEXT, "what was changed and why, what was tried, what is left"),
    files=_said(TEXTS, "every file that the commits change, and no other"),
    tests=_said(TEXTS, "commands that were run, with their outcome"),
    provenance={"type": "array", "items": SOURCE},
    complete={"type": "boolean"},
    question=_said(TEXT, "for a person, when nothing else can decide; empty otherwise"),
)
ANSWERS: dict[str, JSON] = {"propose": PROPOSAL, "implement": IMPLEMENTATION, "finalize": IMPLEMENTATION}
"""By the request's ``action``."""
ANY_OBJECT: JSON = {"type": "object"}


def schema_of(request: JSON) -> JSON:
    """The schema of the answer to a request that came without one."""
    found: JSON = request.get("verdict_schema") or ANSWERS.get(request.get("action", ""), ANY_OBJECT)
    return found
