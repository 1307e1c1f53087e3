"""The journal: the folded state and the one way to change it, which is to record an event.

An event is redacted, checked against the catalogue, admitted by the machine, written durably, and only then
folded. Whoever awaits :meth:`Journal.record` may be cancelled, which takes effect once the event is written and
folded: the state always equals the ledger, and nothing is written behind anybody's back.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

from ledger.errors import Deposed, LedgerError, Refused
from ledger.events import Draft, Event
from ledger.planning import Request
from ledger.store import Ledger
from ledger.writer import Writer
from statemachine.fold import advance
from statemachine.guards import Ask
from statemachine.machine import admit
from statemachine.shell import CampaignMachine
from statemachine.state import Campaign, World
from statemachine.table import FACTS

T = TypeVar("T")
SHARED = frozenset({"lease.granted"})
"""Events whose guards look at other campaigns: one at a time in the whole daemon."""


async def to_the_end(work: Awaitable[T]) -> T:
    """What comes of the work. Cancelling takes effect after its end, so that nothing goes on unseen."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def is_fatal(error: BaseException) -> bool:
    """Whether a daemon must stop: it may not, or cannot, write any more. A refused event harms nobody else."""
    return isinstance(error, LedgerError) and (isinstance(error, Deposed) or not isinstance(error, Refused))


class Journal:
    """Owns the world. Appends for one campaign are in order; different campaigns share a sync.

    ``failure`` is why nothing can be written any more; whoever saw it first, the daemon has to stop.
    """

    def __init__(
        self,
        ledger: Ledger,
        writer: Writer,
        world: World,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.world = world
        self.clock = clock
        self.failure: LedgerError | None = None
        self._ledger = ledger
        self._reader = ledger.reader()
        self._writer = writer
        self._machine = CampaignMachine()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._shared = asyncio.Lock()
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
        return await to_the_end(self._commit(draft))

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
            await asyncio.wait([waiter], timeout=timeout)  # wait_for may lose a cancel that meets the change (3.11)
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
        async with self._shared if draft.type in SHARED else nullcontext():
            return await self._commit_in_turn(draft)

    async def _commit_in_turn(self, draft: Draft) -> Event:
        async with self._locks[draft.campaign]:
            if draft.key is not None and (known := self.find(draft.key)) is not None:
                return known
            seen = self.world.campaigns.get(draft.campaign)
            expect = {draft.campaign: seen.campaign_seq if seen else 0} if draft.campaign else None
            request = self._ledger.prepare([draft], expect)
            ((_, _, payload),) = request.contents
            self._admit(draft, payload)
            event = await self._append(request)
            advance(self.world, event)
        self.wake()
        return event

    async def _append(self, request: Request) -> Event:
        try:
            (event,) = await self._writer.write(request)
        except LedgerError as error:
            if is_fatal(error):
                self.failure = error
                self.wake()
            raise
        return event

    def _admit(self, draft: Draft, payload: Mapping[str, Any]) -> None:
        now = self.clock()
        if draft.campaign and draft.type not in FACTS:
            c = self.world.campaigns.get(draft.campaign) or Campaign(draft.campaign, created_ns=now)
            self._machine.fire(Ask(self.world, c, payload, now, draft.actor), draft.type)
        else:
            admit(self.world, draft.campaign, draft.type, payload, now, draft.actor)
