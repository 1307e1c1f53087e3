"""What kind of work a kernel does, by its name: ordered rules kept as data in categories.yaml."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import NamedTuple

import yaml

from sotad.analysis.canonical import canonical

OTHER = "other"
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_INDUCTOR = re.compile(r"^triton_(?P<kind>split_scan|[a-z]{3})_fused_?(?P<ops>.*?)_?\d*$")
_BEFORE, _AFTER = r"(?<![a-z0-9])", r"(?![a-z0-9])"


class Rule(NamedTuple):
    """Names in which `pattern` is found are of `category`, for the reason `why`."""

    category: str
    pattern: re.Pattern[str]
    why: str


class Rules(NamedTuple):
    """The rules for names, those for the operators in Inductor's names, and the category of each of its kinds."""

    names: tuple[Rule, ...]
    inductor: tuple[Rule, ...]
    kinds: dict[str, str]


@cache
def rules() -> Rules:
    """The rules of categories.yaml, read once."""
    text = resources.files("sotad.analysis").joinpath("categories.yaml").read_text()
    loaded = yaml.safe_load(text)
    return Rules(_compiled(loaded["rules"]), _compiled(loaded["inductor"]), loaded["kinds"])


def _compiled(entries: list[dict[str, str]]) -> tuple[Rule, ...]:
    return tuple(Rule(entry["category"], re.compile(_bounded(entry["regex"])), entry["why"]) for entry in entries)


def _bounded(regex: str) -> str:
    """`<` and `>` as token boundaries, but not those of a lookbehind."""
    return re.sub(r"(?<!\?)<", lambda _: _BEFORE, regex).replace(">", _AFTER)


@cache
def categorize(name: str) -> str:
    """The category of a kernel or copy; "other" when no rule knows its name."""
    text = canonical(name)
    inductor = _INDUCTOR.match(text)
    if inductor:
        return _first(rules().inductor, inductor["ops"]) or rules().kinds.get(inductor["kind"], OTHER)
    words = _CAMEL.sub("_", text).lower()
    return _first(rules().names, words) or OTHER


def _first(entries: tuple[Rule, ...], text: str) -> str | None:
    return next((rule.category for rule in entries if rule.pattern.search(text)), None)
