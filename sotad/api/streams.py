"""Events as they happen: server-sent events that resume where the caller left off."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from ledger.events import Event
from sotad.api.query import whole
from sotad.api.service import Service
from sotad.client import HEARTBEAT_S
from sotad.errors import HostFault

BATCH = 500
MAX_STREAMS = 64
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}


def wants_stream(request: web.Request) -> bool:
    """Whether the caller asked for server-sent events."""
    return "text/event-stream" in request.headers.get("Accept", "")


class Streams:
    """The open streams of one daemon."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: set[asyncio.Task[Any]] = set()

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/events with ``Accept: text/event-stream``: each event after ``after`` once, in order.

        ``Last-Event-ID`` wins over ``after``, so that a reconnecting browser misses and repeats nothing.

        Raises:
            BadInput: not a number.
            HostFault: too many streams are open.
        """
        after = whole(request.headers.get("Last-Event-ID") or request.query.get("after", "0"), "after")
        if len(self._open) >= MAX_STREAMS:
            raise HostFault(f"{MAX_STREAMS} event streams are open", "close one")
        response = web.StreamResponse(headers=HEADERS)
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await response.prepare(request)
            await self._pump(response, after, request.query.get("campaign"))
        except ConnectionError:
            pass  # the caller left
        finally:
            self._open.discard(task)
        return response

    async def close(self, app: web.Application) -> None:
        """End every stream: the daemon is stopping."""
        for task in self._open:
            task.cancel()

    async def _pump(self, response: web.StreamResponse, after: int, campaign: str | None) -> None:
        """``seen`` is how far the ledger was looked at, which another campaign's events move too."""
        seen = after
        while True:
            head = await self._service.changed(seen, HEARTBEAT_S)
            if head <= seen:
                await response.write(b": still here\n\n")
                continue
            seen = await self._send(response, seen, head, campaign)

    async def _send(self, response: web.StreamResponse, seen: int, head: int, campaign: str | None) -> int:
        batch = await asyncio.to_thread(self._service.events, seen, campaign, BATCH)
        if batch:
            await response.write(b"".join(_frame(event) for event in batch))
        return batch[-1].seq if len(batch) == BATCH else max(head, batch[-1].seq if batch else 0)


def _frame(event: Event) -> bytes:
    data = orjson.dumps(event._asdict())
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.type.encode(), data)
