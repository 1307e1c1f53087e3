"""Signed heads and folded states: with them the next start is quick, and a ledger whose end was cut off shows."""

from __future__ import annotations

import time
from collections.abc import Callable

from ledger.keys import Signer
from ledger.writer import Writer
from sotad.daemon.journal import Journal
from sotad.daemon.start import machine_digest
from sotad.paths import StateDir
from statemachine.state import World, to_json


async def anchor(journal: Journal, writer: Writer, paths: StateDir) -> None:
    """Sign the head and keep the folded state."""
    state, seq = to_json(journal.world).encode(), journal.world.seq
    await writer.checkpoint(Signer.load_or_create(paths.keys))
    await writer.save_snapshot(seq, state, machine_digest())


async def anchoring(journal: Journal, writer: Writer, paths: StateDir, interval_s: Callable[[], float]) -> None:
    """Anchor the ledger on an interval while it grows, and when a campaign closed: then somebody may take it away."""
    seen, anchored, closed, due = journal.world.seq, 0, _closed(journal.world), time.monotonic() + interval_s()
    while True:
        left = due - time.monotonic()
        seen = await journal.changed(seen, left) if left > 0 else seen
        if time.monotonic() < due and _closed(journal.world) == closed:
            continue
        closed, due = _closed(journal.world), time.monotonic() + interval_s()
        if journal.world.seq != anchored:
            anchored = journal.world.seq
            await anchor(journal, writer, paths)


def _closed(world: World) -> int:
    return sum(1 for c in world.campaigns.values() if c.phase == "closed")
