"""Rules about the search space of one framework."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.config.rules.families import PINNED, snake
from sotad.config.rules.finding import JSON, Finding, warning
from sotad.search.candidates import canonical, size


def space_rules(spec: JSON, framework: JSON) -> Iterator[Finding]:
    """No empty list, no value twice, no pinned knob, and what the budget leaves untried."""
    space = framework["search_space"]
    free = spec["search"]["tier"] == 3 or spec["search"]["capacity_study"]
    for flag, listed in space.items():
        key = f"search_space.{flag}"
        if not listed:
            yield Finding(key, "is an empty list: leave it out, or name values")
        if len(set(map(canonical, listed))) < len(listed):
            yield Finding(key, "holds a value twice")
        if snake(flag) in PINNED and not free:
            yield Finding(key, "is pinned: put it in options, or set search.tier 3 or search.capacity_study")
    if framework["untried"]:
        yield warning("search_space", _left_out(spec, framework))


def _left_out(spec: JSON, framework: JSON) -> str:
    values = "; ".join(f"{flag} {canonical(listed)}" for flag, listed in framework["untried"].items())
    budget = f"search.max_candidates is {spec['search']['max_candidates']}"
    return f"{size(framework['search_space'])} combinations, {budget}: never tried: {values}"
