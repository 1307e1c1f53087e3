"""From a state directory to a folded world: open, fence, check the chain, fold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import statemachine
from ledger.replay import START, replay
from ledger.store import Ledger
from sotad.errors import IntegrityFault
from statemachine.fold import advance
from statemachine.machine import IllegalEvent
from statemachine.state import World, from_json
from statemachine.table import digest


@dataclass(frozen=True, slots=True)
class Started:
    """The world as the ledger has it, and how many events were folded to get there."""

    world: World
    folded: int


@cache
def machine_digest() -> str:
    """Names the rules: the table's digest, and a digest of the code that folds, as it was when first asked."""
    code = hashlib.sha256()
    for path in sorted(Path(statemachine.__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    return hashlib.sha256(f"{digest()}{code.hexdigest()}".encode()).hexdigest()


def load_world(ledger: Ledger) -> Started:
    """Fold the ledger, from its snapshot when there is one that fits; the chain is checked on the way.

    Raises:
        Corrupt: the chain is broken.
        IntegrityFault: an event stands in it that the machine would have refused.
    """
    snapshot = ledger.load_snapshot(machine_digest())
    world = from_json(snapshot.state) if snapshot else World()
    folded = 0
    for event in replay(ledger.path, snapshot.anchor if snapshot else START):
        try:
            advance(world, event)
        except (IllegalEvent, KeyError, ValueError) as error:
            raise IntegrityFault(f"event {event.seq} ({event.type}) cannot have been written: {error}") from None
        folded += 1
    return Started(world, folded)
