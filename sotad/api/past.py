"""The past of a ledger file: its events, chain checked, and the state as it was. Works with no daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from ledger.boundary import default_catalogue, event_of
from ledger.chain import GENESIS, row_hash
from ledger.errors import NotALedger
from ledger.events import Event
from ledger.export import HEADER
from ledger.replay import replay
from ledger.sources import ExportSource
from sotad.api.why import why
from sotad.errors import IntegrityFault, NotFound
from statemachine.fold import advance
from statemachine.machine import IllegalEvent
from statemachine.state import World


def events_in(path: Path) -> Iterator[Event]:
    """Yield every event of a ledger database or of its JSON Lines export, each after its hash was checked.

    Raises:
        NotFound, NotALedger, WrongSchema, Corrupt: of :mod:`ledger.errors`.
        IntegrityFault: an export's chain breaks.
    """
    try:
        yield from replay(path)
    except NotALedger:
        if not is_export(path):
            raise
        yield from _exported(path)


def is_export(path: Path) -> bool:
    """Say whether the file begins as an export does."""
    with path.open("rb") as file:
        return file.readline(len(HEADER) + 1).rstrip(b"\n") == HEADER


def _exported(path: Path) -> Iterator[Event]:
    catalogue, previous = default_catalogue(), GENESIS
    for number, row in enumerate(ExportSource(path).rows(), 1):
        if len(row) != 12 or row[0] != number or row_hash(previous, row[:10], row[10]) != row[11]:
            raise IntegrityFault(f"{path}: the chain breaks at event {number}")
        previous = row[11]
        yield event_of(row, catalogue)


def world_at(path: Path, wanted: Callable[[Event], bool] = lambda event: True) -> World:
    """The state after the last event before the first that is not wanted.

    Raises:
        IntegrityFault: an event stands there that the machine refuses.
        And as :func:`events_in`.
    """
    world = World()
    for event in takewhile(wanted, events_in(path)):
        _fold(path, world, event)
    return world


def _fold(path: Path, world: World, event: Event) -> None:
    try:
        advance(world, event)
    except (IllegalEvent, LookupError, TypeError, ValueError) as error:
        advice = f"run `sotactl ledger verify {path}`, or look at it as it was: ledger replay --until"
        raise IntegrityFault(f"{path}: event {event.seq} breaks this release's rules: {error}", advice) from None


def why_at(path: Path, seq: int) -> dict[str, Any]:
    """The reasons of event ``seq``, as :func:`sotad.api.why.why` gives them.

    Raises:
        NotFound: there is no such event.
        And as :func:`world_at`.
    """
    world = World()
    for event in events_in(path):
        if event.seq == seq:
            return why(event, world)
        _fold(path, world, event)
    raise NotFound(f"there is no event {seq} in {path}; the last one is {world.seq}", "see `sotactl events`")
