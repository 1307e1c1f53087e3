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
        self._limit = limit
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "ledger-writer")
        self._waiting: deque[_Waiting] = deque()
        self._in_line = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def append(self, drafts: Sequence[Draft], *, expect: Mapping[str, int] | None = None) -> list[Event]:
        """Write the drafts as one unit; they are on the disk when this returns. See ``Ledger.append``.

        Raises:
            InvalidEvent, Conflict, KeyReused, Deposed: refused, nothing was written.
            Unwritable: not acknowledged; retry under the same keys.
        """
        return await self.write(self._ledger.prepare(drafts, expect))

    async def write(self, request: Request) -> list[Event]:
        """Write what ``Ledger.prepare`` made; see ``append``."""
        while self._in_line >= self._limit:
            self._room.clear()
            await self._room.wait()
        if self._closing:
            raise Unwritable(f"{self._ledger.path}: the writer is closed; nothing was written")
        future: asyncio.Future[list[Event]] = self._loop.create_future()
        self._waiting.append((request, future))
        self._in_line += 1
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._next_group)
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
            await self._idle.wait()
            await self._in_thread(self._ledger.close)
            self._thread.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _next_group(self) -> None:
        """Runs after everybody who was ready to append has done so, and never while a group is being written."""
        if self._waiting:
            count = min(len(self._waiting), self._group)
            self._thread.submit(self._write, [self._waiting.popleft() for _ in range(count)])
        else:
            self._idle.set()

    def _write(self, group: Sequence[_Waiting]) -> None:
        """In the thread: one commit, and one message back for all who wait for it."""
        outcomes: Sequence[list[Event] | Exception]
        try:
            outcomes = self._ledger.append_group([request for request, _ in group])
        except Exception as error:
            outcomes = [_again(error) for _ in group]
        self._loop.call_soon_threadsafe(self._answer, group, outcomes)

    def _answer(self, group: Sequence[_Waiting], outcomes: Sequence[list[Event] | Exception]) -> None:
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._in_line -= len(group)
        self._room.set()
        self._loop.call_soon(self._next_group)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, call)


def _again(error: Exception) -> Exception:
    """One error for each who waits: raising one object in many places would mix up their tracebacks."""
    return type(error)(*error.args) if isinstance(error, LedgerError) else error
