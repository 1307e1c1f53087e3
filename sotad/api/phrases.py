"""Phrases that reasons are made of: rules, samples, numbers, and what a payload says as it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from statemachine.state import JSON, Campaign

Words = tuple[list[str], list[str]]
"""The reasons of an event, and what would have changed it."""

LONGEST = 400
"""Characters of a payload's value that are printed; ``--json`` has all of it."""


def payload_lines(payload: JSON) -> Iterator[str]:
    """Every value of a payload on a line, cut where it is long."""
    for key, value in payload.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield f"{key}: {cut(text)}"


def cut(text: str) -> str:
    """A text that is not too long to print."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def decision_rule(c: Campaign) -> str:
    """The rule of the campaign's comparisons."""
    rule = c.spec.get("decision", {})
    return "rule fixed before anything was measured: " + ", ".join(f"{k} {v}" for k, v in rule.items())


def samples(decisions: JSON) -> list[str]:
    """Every number of every scenario's decision; g > 0 means behind, percent."""
    return [line for name, found in decisions.items() for line in _sample(name, found)]


def _sample(name: str, found: JSON) -> Iterator[str]:
    plain = {key: value for key, value in found.items() if isinstance(value, int | float)}
    yield f"{name}: {found.get('verdict')}; " + ", ".join(f"{k} {number(v)}" for k, v in plain.items())
    for reason in found.get("reasons", ()):
        yield f"{name}: {reason}"


def number(value: Any) -> str:
    """A number in four figures; a whole one in all of its own."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return f"{value:.0f}" if isinstance(value, float) else str(value)
