"""The known fusions and overlaps of the serving frameworks, from fusion.yaml."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import yaml

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Group(NamedTuple):
    """Kernels that play one part in a chain: those of a category, and those with a matching name, less some names."""

    name: str
    category: str | None
    match: re.Pattern[str] | None
    without: re.Pattern[str] | None

    def holds(self, words: str, category: str) -> bool:
        """Whether a kernel of this category, with its name as `words_of` gives it, is one."""
        if self.without and self.without.search(words):
            return False
        return category == self.category or bool(self.match and self.match.search(words))


class Pattern(NamedTuple):
    """One fusion; fusion.yaml says what each field means."""

    id: str
    name: str
    framework: str
    active: tuple[re.Pattern[str], ...]
    chains: tuple[tuple[Group, ...], ...]
    context: frozenset[str]
    anchor: str
    certain: bool
    source: str
    knob: str | None
    models: tuple[str, ...]
    not_models: tuple[str, ...]
    needs_tp: bool
    min_share: float
    likely_share: float
    priority: int
    subsumes: tuple[str, ...]
    origin: str
    why: str

    def is_active(self, words: str) -> bool:
        """Whether a kernel's name shows this fusion at work."""
        return any(regex.search(words) for regex in self.active)


class Family(NamedTuple):
    """One known way to overlap work, and the kernels that it would hide."""

    name: str
    framework: str
    kernels: re.Pattern[str]
    knob: str


class Catalogue(NamedTuple):
    """All of fusion.yaml; caveats by framework."""

    patterns: tuple[Pattern, ...]
    families: tuple[Family, ...]
    caveats: dict[str, list[str]]


def words_of(name: str) -> str:
    """A kernel's name as the catalogue's regexes see it."""
    return _CAMEL.sub("_", name).lower()


@cache
def catalogue() -> Catalogue:
    """The shipped catalogue, read once."""
    loaded = yaml.safe_load(resources.files("sotad.analysis").joinpath("fusion.yaml").read_text())
    groups = {name: _group(name, entry) for name, entry in loaded["groups"].items()}
    return Catalogue(
        tuple(_pattern(entry, groups) for entry in loaded["patterns"]),
        tuple(Family(e["name"], e["framework"], re.compile(e["kernels"]), e["knob"]) for e in loaded["families"]),
        loaded["caveats"],
    )


def _group(name: str, entry: dict[str, str]) -> Group:
    match, without = (re.compile(entry[key]) if key in entry else None for key in ("match", "without"))
    return Group(name, entry.get("category"), match, without)


def _pattern(entry: dict[str, Any], groups: dict[str, Group]) -> Pattern:
    return Pattern(
        id=entry["id"],
        name=entry["name"],
        framework=entry["framework"],
        active=tuple(re.compile(regex) for regex in entry.get("active", [])),
        chains=tuple(tuple(groups[name] for name in chain) for chain in entry.get("chains", [])),
        context=frozenset(entry.get("context", [])),
        anchor=entry.get("anchor", "first"),
        certain=entry.get("certain", True),
        source=entry["source"],
        knob=entry.get("knob"),
        models=tuple(entry.get("models", [])),
        not_models=tuple(entry.get("not_models", [])),
        needs_tp=entry.get("needs_tp", False),
        min_share=entry["min_share"],
        likely_share=entry["likely_share"],
        priority=entry.get("priority", 0),
        subsumes=tuple(entry.get("subsumes", [])),
        origin=entry.get("origin", "mainline"),
        why=entry["why"],
    )


def families_of(kernel: str, framework: str | None) -> list[dict[str, str]]:
    """The known overlaps of the framework (of every one for None) that would hide this kernel."""
    words = words_of(kernel)
    return [
        {"name": family.name, "framework": family.framework, "knob": family.knob}
        for family in catalogue().families
        if framework in (None, family.framework) and family.kernels.search(words)
    ]
