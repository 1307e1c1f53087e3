"""The journal: the folded state and the one way to change it, which is to record an event.

An event is redacted, checked against the catalogue, admitted by the machine, written durably, and only then
folded. Whoever awaits :meth:`Journal.record` may be cancelled; the event is then written or not, but the
state always equals the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ledger import catalogue
from ledger.events import Draft, Event
from ledger.store import Ledger
from ledger.writer import Writer
from statemachine.fold import advance
from statemachine.guards import Ask
from statemachine.machine import admit
from statemachine.shell import CampaignMachine
from statemachine.state import Campaign, World
from statemachine.table import FACTS


class Journal:
    """Owns the world. Appends for one campaign are in order; different campaigns share a sync."""

    def __init__(
        self,
        ledger: Ledger,
        writer: Writer,
        world: World,
        redact: Callable[[Any], Any] = lambda value: value,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.world = world
        self.clock = clock
        self._ledger = ledger
        self._reader = ledger.reader()
        self._writer = writer
        self._redact = redact
        self._machine = CampaignMachine()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiters: set[asyncio.Future[None]] = set()

    async def record(
        self,
        campaign: str,
        type_: str,
        payload: Mapping[str, Any],
        *,
        actor: str = "daemon",
        cause: int | None = None,
        key: str | None = None,
    ) -> Event:
        """Write one event, or return the one that is there under the same key.

        Raises:
            IllegalEvent: the machine refuses it; nothing was written.
            LedgerError: it could not be written.
        """
        draft = Draft(campaign=campaign, type=type_, payload=payload, actor=actor, cause=cause, key=key)
        return await asyncio.shield(asyncio.ensure_future(self._commit(draft)))

    def find(self, key: str) -> Event | None:
        """The event recorded under an idempotency key."""
        return self._reader.by_key(key)

    async def changed(self, after: int, timeout: float) -> int:
        """Wait until the head is beyond ``after``, or for ``timeout`` seconds; return the head."""
        if self.world.seq > after:
            return self.world.seq
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, timeout)
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)
        return self.world.seq

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Stop reading; the writer belongs to somebody else."""
        self._reader.close()

    async def _commit(self, draft: Draft) -> Event:
        async with self._locks[draft.campaign]:
            if draft.key is not None and (known := self.find(draft.key)) is not None:
                return known
            _, payload = catalogue.validate(draft.type, self._redact(dict(draft.payload)))
            self._admit(draft, payload)
            seen = self.world.campaigns.get(draft.campaign)
            expect = {draft.campaign: seen.campaign_seq if seen else 0} if draft.campaign else None
            final = Draft(
                campaign=draft.campaign,
                type=draft.type,
                payload=payload,
                actor=draft.actor,
                cause=draft.cause,
                key=draft.key,
            )
            (event,) = await self._writer.append([final], expect=expect)
            advance(self.world, event)
        self.wake()
        return event

    def _admit(self, draft: Draft, payload: Mapping[str, Any]) -> None:
        now = self.clock()
        if draft.campaign and draft.type not in FACTS:
            c = self.world.campaigns.get(draft.campaign) or Campaign(draft.campaign, created_ns=now)
            self._machine.fire(Ask(self.world, c, payload, now), draft.type)
        else:
            admit(self.world, draft.campaign, draft.type, payload, now)
