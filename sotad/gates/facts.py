"""What is known of a commit and of what surrounds it, and what a gate answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

JSON = dict[str, Any]
SHOWN = 5


class Gate(NamedTuple):
    """The outcome of one gate, and what would satisfy it."""

    gate: str
    passed: bool
    detail: str
    satisfy: str


class Change(NamedTuple):
    """What the commits since the base do to one file: lines added, its largest size in bytes, whether it is binary.

    ``before`` is its size at the base, ``net`` whether base and last commit differ in it.
    """

    path: str
    lines: int = 0
    size: int = 0
    before: int = 0
    binary: bool = False
    net: bool = True


class Added(NamedTuple):
    """A line that one of the commits adds; ``path`` is empty for a line of the commit itself, or a file's name."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the daemon found after an implementer was done; nothing of it is what the implementer says.

    Except for ``claimed`` and ``sources``, which are its words, to be compared.

    Attributes:
        trouble: why its commit cannot be taken over; empty when it was.
        dirty: paths that differ from the commit, or are in no commit.
        allowed: lists of patterns, of which each has to have one that matches a changed file.
        forbidden: patterns of files that may not change.
        links: symbolic links and submodules that the commit adds or changes.
        moved: what of the harness is not as it was checked.
        refs: refs that are not as before, each with what happened to it.
        known: lines about licences that stand in the base already.
        secrets: values that were given to the agent or are the daemon's, by name.
        alive: processes that are left.
        confinement: what the kernel enforced; ``unconfined`` why it did not.
    """

    base: str
    commit: str
    builds_on: bool
    trouble: str = ""
    dirty: Sequence[str] = ()
    branch: str
    on: str
    changes: Sequence[Change] = ()
    allowed: Sequence[Sequence[str]] = ()
    forbidden: Sequence[str] = ()
    links: Sequence[str] = ()
    claimed: Sequence[str] = ()
    sources: Sequence[JSON] = ()
    moved: Sequence[str] = ()
    refs: Sequence[str] = ()
    added: Sequence[Added] = ()
    known: frozenset[str] = frozenset()
    secrets: Mapping[str, str] = field(default_factory=dict)
    alive: Sequence[str] = ()
    confinement: str = ""
    unconfined: str = ""

    @property
    def files(self) -> list[str]:
        """Paths in which the commit differs from its base."""
        return [change.path for change in self.changes if change.net]


def count(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(found: Sequence[str]) -> str:
    """The first of many, for a detail."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more
