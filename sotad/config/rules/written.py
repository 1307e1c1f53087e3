"""Every place of a framework's section in which a flag gets a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sotad.config.rules.families import snake
from sotad.config.rules.finding import JSON
from sotad.search.candidates import canonical


class Written(NamedTuple):
    """A value of a flag, and its key in the file."""

    key: str
    flag: str
    value: Any


def written(framework: JSON, *names: str) -> Iterator[Written]:
    """Values of the named flags (in snake_case; of all flags without names), each once per place."""
    for found in _all(framework):
        if not names or snake(found.flag) in names:
            yield found


def _all(framework: JSON) -> Iterator[Written]:
    yield from (Written(f"options.{flag}", flag, value) for flag, value in framework["options"].items())
    space = framework["search_space"]
    yield from (Written(f"search_space.{flag}", flag, value) for flag, listed in space.items() for value in listed)
    searched = {(flag, canonical(value)) for flag, listed in space.items() for value in listed}
    for candidate in framework["candidates"]:
        for flag, value in candidate["flags"].items():
            if (flag, canonical(value)) not in searched:
                yield Written(f"candidates.{candidate['id']}.flags.{flag}", flag, value)
