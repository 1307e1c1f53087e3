"""The sequence limit of one framework covers every scenario, in the options and in every value searched."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.config.expand import longest
from sotad.config.rules.finding import JSON, Finding
from sotad.config.rules.written import written
from sotad.frameworks import FRAMEWORKS


def length_rules(spec: JSON, framework: JSON) -> Iterator[Finding]:
    """One finding per value that is too short for the longest scenario."""
    limit, needed = FRAMEWORKS[framework["kind"]].context_flag, longest(spec)
    if not limit or needed is None:
        return
    for key, _, value in written(framework, limit):
        if not isinstance(value, int) or isinstance(value, bool):
            yield Finding(key, f"must be a whole number of tokens, not {value!r}")
        elif value < needed:
            yield Finding(key, f"is {value}, but the longest scenario needs {needed} tokens")
