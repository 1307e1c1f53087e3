"""The hot path: one connection of HTTP/1.1 that stamps bytes when they arrive and keeps them unread.

While a reply arrives, only its head and the end of a piece that could be its last are looked at. Reading it
is left to `sotad.loadgen.http` and `sotad.loadgen.stream`, after the run.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import NamedTuple

from sotad.loadgen.exchange import Exchange, Failure
from sotad.loadgen.http import TAIL, Frame, NotHttp, frame, is_last

LARGEST_REPLY = 64 * 2**20  # bytes; a server that sends more than this for one request does not stop
Buffer = bytes | memoryview


class Patience(NamedTuple):
    """Seconds: for a whole request, and for a gap without a byte."""

    timeout_s: float
    stall_s: float


class Connection(asyncio.Protocol):
    """One connection, for one request at a time; `done(connection, exchange)` is called once for each.

    `reusable` says whether the next request may use it too. `fresh` is False once it lay idle: only then can a
    server, tired of waiting, have closed it just as a request was sent.
    """

    def __init__(self, patience: Patience, done: Callable[["Connection", Exchange], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience, self._done = patience, done
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._frame: Frame | None = None
        self._size = 0
        self._watch: asyncio.TimerHandle | None = None
        self.reusable = False
        self.fresh = True
        self.idle_since_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.reusable = transport, True
        self.idle_since_ns = perf_counter_ns()

    def send(self, exchange: Exchange, request: Buffer) -> None:
        """Write a request; what comes back goes to `exchange`."""
        assert self._transport is not None and self._exchange is None
        self._exchange, self._frame, self._size = exchange, None, 0
        self._watch = self._loop.call_later(min(self._patience), self._look_at_the_clock)
        self._transport.write(request)
        exchange.written_ns = perf_counter_ns()

    def data_received(self, data: bytes) -> None:
        now = perf_counter_ns()
        exchange = self._exchange
        if exchange is None:
            self._drop()  # nobody asked: what follows could be taken for the next reply
            return
        exchange.arrivals.append((now, data))
        self._size += len(data)
        found = self._frame
        if found is not None and found.chunked and len(data) > 3 and data[-4:] != b"\r\n\r\n":
            if self._size > LARGEST_REPLY:
                self._too_large()
            return
        self._look(exchange)

    def _look(self, exchange: Exchange) -> None:
        """What only matters at the head and at the possible end of a reply."""
        if self._size > LARGEST_REPLY:
            self._too_large()
            return
        if self._frame is None:
            try:
                self._frame = frame(b"".join(data for _, data in exchange.arrivals))
            except NotHttp as error:
                self._end(Failure("garbage", str(error)))
                return
        if self._frame and self._complete(self._frame, exchange):
            self._end(None, keep=self._frame.keep)

    def _complete(self, found: Frame, exchange: Exchange) -> bool:
        body = self._size - found.body_at
        if found.chunked:
            return is_last(_tail(exchange, min(TAIL, body)))
        return found.length is not None and body >= found.length

    def _too_large(self) -> None:
        self._end(Failure("garbage", f"the reply is larger than {LARGEST_REPLY} bytes"))

    def eof_received(self) -> None:
        """Closing follows, and says the rest."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._exchange is None:
            return
        if exc is None and self._frame and not self._frame.chunked and self._frame.length is None:
            self._end(None)  # such a reply ends with its connection
        else:
            self._end(Failure("closed_early", f"the connection ended before the reply{f': {exc}' if exc else ''}"))

    def _look_at_the_clock(self) -> None:
        """Fail a request that has used up its patience; look again when it could have."""
        exchange = self._exchange
        assert exchange is not None
        heard_ns = exchange.arrivals[-1][0] if exchange.arrivals else exchange.written_ns
        now = perf_counter_ns()
        left = self._patience.timeout_s - (now - exchange.sent_ns) / 1e9
        quiet = self._patience.stall_s - (now - heard_ns) / 1e9
        if left <= 0:
            self._end(Failure("timeout", f"not complete after {self._patience.timeout_s:g} s"))
        elif quiet <= 0:
            self._end(Failure("stalled", f"no byte arrived for {self._patience.stall_s:g} s"))
        else:
            self._watch = self._loop.call_later(min(left, quiet), self._look_at_the_clock)

    def fail(self, failure: Failure) -> None:
        """End what is under way, if anything is."""
        if self._exchange is not None:
            self._end(failure)

    def close(self) -> None:
        """Give the connection up."""
        self._drop()

    def _end(self, failure: Failure | None, keep: bool = False) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None and self._watch is not None
        self._watch.cancel()
        exchange.ended_ns = exchange.arrivals[-1][0] if failure is None and exchange.arrivals else perf_counter_ns()
        exchange.failure = failure
        self.idle_since_ns = exchange.ended_ns
        if not keep:
            self._drop()
        self._done(self, exchange)

    def _drop(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()


def _tail(exchange: Exchange, size: int) -> bytes:
    """The last `size` bytes of a reply."""
    parts: list[bytes] = []
    missing = size
    for _, data in reversed(exchange.arrivals):
        if missing <= 0:
            break
        parts.append(data[-missing:])
        missing -= len(parts[-1])
    return b"".join(reversed(parts))
