"""Campaigns for the tests of mirrors: of an old release, and of the simulation under the present rules."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ledger.boundary import default_catalogue, event_of
from ledger.events import Event
from ledger.export import HEADER, parse_line
from ledger.keys import Checkpoint
from sotad.humanize.mirror import SHOWS, tree
from statemachine.fold import advance
from statemachine.state import Campaign, World

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS / "statemachine"))
from simulation import Simulation  # noqa: E402

JSON = dict[str, Any]
SCRIPTS: dict[str, JSON] = {
    "plain": {},
    "amended": {"operator": {70: "amend"}, "finalize": "changed"},
    "findings": {"review": {0: "blocking", 2: "queued"}, "patch": {0: "faster"}, "outputs": {1: "differ"}},
    "stalls": {"review": "stalled", "patch": "same"},
    "stopped": {"review": {0: "unusable", 1: "stop"}, "propose": {0: "asks", 1: "declines_one"}},
    "cancelled": {"operator": {330: "pause", 400: "cancel"}},
    "rounds": {"patch": "same", "review": "queued"},
    "wonder": {"patch": {0: "wonder"}, "word": {0: "no"}},
}


@cache
def golden() -> list[Event]:
    """The events of release 0.1.0's golden ledger, whose artifacts are not kept."""
    lines = gzip.decompress((TESTS / "golden" / "0.1.0.jsonl.gz").read_bytes()).splitlines()
    rows = [row for line in lines if line != HEADER and (row := parse_line(line)) is not None]
    catalogue = default_catalogue()
    return [event_of(row, catalogue) for row in rows if not isinstance(row, Checkpoint)]


@cache
def simulated(name: str) -> list[Event]:
    """The events of a scripted campaign."""
    return Simulation(SCRIPTS[name]).run().events


def campaigns() -> dict[str, Callable[[], list[Event]]]:
    """Every campaign by name."""
    return {"golden": golden} | {name: lambda name=name: simulated(name) for name in SCRIPTS}  # type: ignore[misc]


def folded(events: list[Event]) -> Campaign:
    """The campaign after these events."""
    world = World()
    for event in events:
        advance(world, event)
    return world.campaigns["demo"]


def nothing(digest: str) -> bytes:
    """A store whose artifacts are gone."""
    raise FileNotFoundError(digest)


def mirrors(events: list[Event]) -> Iterator[tuple[Campaign, list[Event], dict[str, str]]]:
    """The campaign, its events and its mirror after every event that shows."""
    world, seen = World(), []
    for event in events:
        advance(world, event)
        seen.append(event)
        if event.type in SHOWS:
            c = world.campaigns["demo"]
            yield c, seen, tree(c, seen, nothing)


def by_name(files: dict[str, str]) -> dict[str, str]:
    """The files by their names alone."""
    return {Path(name).name: text for name, text in files.items()}
