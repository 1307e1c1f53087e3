"""``Writer``: append from asyncio. One thread writes; appends that wait at the same time share one sync."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from ledger.errors import LedgerError, Unwritable
from ledger.events import Draft, Event
from ledger.keys import Checkpoint, Signer
from ledger.planning import Request
from ledger.store import Ledger

T = TypeVar("T")
_Waiting = tuple[Request, "asyncio.Future[list[Event]]"]


class Writer:
    """Owns the ledger from here on; make it on a running event loop, end it with ``close`` or ``async with``.

    At most ``limit`` appends wait in line; further callers wait to get into it. Cancelling an ``append`` stops
    the waiting, not the writing: the events may be there afterwards.
    """

    def __init__(self, ledger: Ledger, *, limit: int = 1024, group: int = 256) -> None:
        self._ledger = ledger
        self._group = group
        self._room = asyncio.Semaphore(limit)
        self._waiting: deque[_Waiting] = deque()
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "ledger-writer")
        self._closing = False
        self._pump = asyncio.create_task(self._write_groups(), name="ledger-writer")

    async def append(self, drafts: Sequence[Draft], *, expect: Mapping[str, int] | None = None) -> list[Event]:
        """Write the drafts as one unit; they are on the disk when this returns. See ``Ledger.append``.

        Raises:
            InvalidEvent, Conflict, KeyReused, Deposed: refused, nothing was written.
            Unwritable: not acknowledged; retry under the same keys.
        """
        async with self._room:
            if self._closing:
                raise Unwritable(f"{self._ledger.path}: the writer is closed; nothing was written")
            future: asyncio.Future[list[Event]] = asyncio.get_running_loop().create_future()
            self._waiting.append((Request(drafts, expect), future))
            self._work.set()
            return await future

    async def checkpoint(self, signer: Signer) -> Checkpoint | None:
        """Sign the head, between two groups. See ``Ledger.checkpoint``."""
        return await self._in_thread(lambda: self._ledger.checkpoint(signer))

    async def save_snapshot(self, seq: int, state: bytes, machine_digest: str) -> None:
        """Keep a folded state, between two groups. See ``Ledger.save_snapshot``."""
        await self._in_thread(lambda: self._ledger.save_snapshot(seq, state, machine_digest))

    async def close(self) -> None:
        """Write everything that waits, then close the ledger. Closing twice is fine."""
        if not self._closing:
            self._closing = True
            self._work.set()
            await self._pump
            await self._in_thread(self._ledger.close)
            self._thread.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _write_groups(self) -> None:
        while self._waiting or not self._closing:
            if count := min(len(self._waiting), self._group):
                await self._write_group([self._waiting.popleft() for _ in range(count)])
            else:
                self._work.clear()
                await self._work.wait()
            await asyncio.sleep(0)  # everybody who is ready to append joins the next group

    async def _write_group(self, group: Sequence[_Waiting]) -> None:
        requests = [request for request, _ in group]
        try:
            outcomes = await self._in_thread(lambda: self._ledger.append_group(requests))
        except Exception as error:
            for _, future in group:
                _answer(future, _again(error))
        else:
            for (_, future), outcome in zip(group, outcomes, strict=True):
                _answer(future, outcome)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _answer(future: asyncio.Future[list[Event]], outcome: list[Event] | Exception) -> None:
    if future.done():  # its caller was cancelled
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _again(error: Exception) -> Exception:
    """One error for each who waits: raising one object in many places would mix up their tracebacks."""
    return type(error)(*error.args) if isinstance(error, LedgerError) else error
