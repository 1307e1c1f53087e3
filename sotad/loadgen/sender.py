"""Sends one process's share of a plan: each request at its moment, on whatever connection is free."""

import asyncio
import gc
from dataclasses import dataclass
from time import perf_counter_ns, process_time_ns

from sotad.loadgen.exchange import CANCELLED, Exchange, Failure
from sotad.loadgen.meter import Lag, MeteredLoop
from sotad.loadgen.plan import Plan, Shared
from sotad.loadgen.pool import Pool
from sotad.loadgen.wire import Connection

SPIN_NS = 1_500_000  # how long before a moment the loop stops sleeping: epoll may oversleep by 1 ms
SENT_AT_ONCE = 4  # requests; more in one turn of the loop would keep it from the replies to the first
RESERVE_NS = 50_000_000  # how long before a moment a connection is made ready


@dataclass
class Effort:
    """What sending took of this process; `idle_ns` is None where the loop does not measure it."""

    wall_ns: int
    cpu_ns: int
    idle_ns: int | None
    spin_ns: int
    lags_ms: list[float]
    opened: int
    retried: int
    exhausted: int


class Sender:
    """Takes tickets while it has slots free. `sent` has what it took, in order."""

    def __init__(self, plan: Plan, share: int) -> None:
        self._plan, self._shared = plan, Shared(plan, share)
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(plan.base_url, plan.patience, self._ended)
        self._slots = self._free = plan.slots[share]
        self._free_since_ns = self._begin_ns = 0
        self._waiting: asyncio.Handle | None = None
        self._drained = self._stopped = False
        self._finished = self._loop.create_future()
        self._connecting: dict[Exchange, asyncio.Task[None]] = {}
        self._spin_began_ns = self._spin_ns = self._retried = 0
        self.sent: list[Exchange] = []

    async def prepare(self) -> None:
        """Open the connections that the first moment needs, and clear up before it."""
        due = self._plan.due_ns
        at_once = sum(1 for moment in due[: self._slots] if moment == due[0])
        await self._pool.open_ahead(min(self._slots, at_once))
        gc.collect()
        gc.freeze()
        gc.disable()  # what is kept here has no cycles, and a collection stops the clock for all streams

    async def run(self, begin_ns: int) -> Effort:
        """Send until no ticket is left and everything has ended, or `stop` was called."""
        self._begin_ns = self._free_since_ns = begin_ns
        try:
            return await self._measured()
        finally:
            gc.enable()
            gc.unfreeze()
            self._pool.close()

    async def _measured(self) -> Effort:
        wall, cpu, idle, lag = perf_counter_ns(), process_time_ns(), self._idle_ns(), Lag()
        self._pump()
        await self._finished
        lag.stop()
        return Effort(
            wall_ns=perf_counter_ns() - wall,
            cpu_ns=process_time_ns() - cpu,
            idle_ns=None if idle is None else (self._idle_ns() or 0) - idle,
            spin_ns=self._spin_ns,
            lags_ms=lag.lags_ms,
            opened=self._pool.opened,
            retried=self._retried,
            exhausted=self._pool.exhausted,
        )

    def _idle_ns(self) -> int | None:
        return self._loop.meter.idle_ns if isinstance(self._loop, MeteredLoop) else None

    def stop(self) -> None:
        """Send nothing more, and cancel what is under way."""
        self._drained = self._stopped = True
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
            self._free += 1
        for task in list(self._connecting.values()):
            task.cancel()
        for connection in self._pool.open_connections():
            connection.fail(CANCELLED)
        self._pump()

    def _pump(self) -> None:
        """Take tickets as long as there is a slot, and nothing to wait for; replies are read in between."""
        for _ in range(SENT_AT_ONCE):
            if not self._free or self._waiting or self._drained:
                break
            index = self._shared.next()
            if index is None:
                self._drained = True
                break
            exchange = Exchange(index, self._begin_ns + self._plan.due_ns[index])
            exchange.planned_ns = max(exchange.due_ns, self._free_since_ns)
            self.sent.append(exchange)
            self._free -= 1
            self._when_due(exchange)
        else:
            self._loop.call_soon(self._pump)
        if self._drained and self._free == self._slots and not self._finished.done():
            self._finished.set_result(None)

    def _when_due(self, exchange: Exchange) -> None:
        """Start a request at its moment: sleep, make a connection ready, sleep again, then poll."""
        ahead = exchange.due_ns - perf_counter_ns()
        if ahead > RESERVE_NS:
            self._waiting = self._loop.call_later((ahead - RESERVE_NS) / 1e9, self._reserve, exchange)
        elif ahead > SPIN_NS:
            self._waiting = self._loop.call_later((ahead - SPIN_NS) / 1e9, self._spin, exchange)
        elif ahead > 0:
            self._waiting = self._loop.call_soon(self._spin, exchange)
        else:
            self._start(exchange)

    def _reserve(self, exchange: Exchange) -> None:
        self._waiting = None
        if connection := self._pool.take():
            self._pool.put(connection)
        else:
            self._spare = self._loop.create_task(self._pool.open_ahead(1))
        self._when_due(exchange)
        self._pump()

    def _spin(self, exchange: Exchange) -> None:
        """Go round without sleeping until the moment; sockets are read in every round."""
        now = perf_counter_ns()
        self._spin_began_ns = self._spin_began_ns or now
        if now < exchange.due_ns:
            self._waiting = self._loop.call_soon(self._spin, exchange)
            return
        self._spin_ns += now - self._spin_began_ns
        self._spin_began_ns = 0
        self._waiting = None
        self._start(exchange)
        self._pump()

    def _start(self, exchange: Exchange) -> None:
        exchange.sent_ns = perf_counter_ns()
        if connection := self._pool.take():
            connection.send(exchange, self._shared.request(exchange.index))
        else:
            self._connect(exchange)

    def _connect(self, exchange: Exchange) -> None:
        self._connecting[exchange] = self._loop.create_task(self._open_and_send(exchange))

    async def _open_and_send(self, exchange: Exchange) -> None:
        try:
            connection = await self._pool.connect()
        except asyncio.CancelledError:
            exchange.failure = CANCELLED
        except TimeoutError:
            exchange.failure = Failure("connect", "nobody answered in time")
        except OSError as error:
            exchange.failure = Failure("connect", str(error))
        finally:
            del self._connecting[exchange]
        if exchange.failure is None:
            connection.send(exchange, self._shared.request(exchange.index))
        else:
            exchange.ended_ns = perf_counter_ns()
            self._release(exchange)

    def _ended(self, connection: Connection, exchange: Exchange) -> None:
        idled = not connection.fresh
        self._pool.put(connection)
        if idled and _closed_unheard(exchange) and not self._stopped:
            self._retried += 1  # as RFC 9112, 9.3.1 expects of a client: the server had already closed
            exchange.failure = None
            self._connect(exchange)
        else:
            self._release(exchange)

    def _release(self, exchange: Exchange) -> None:
        """A request has ended and frees its slot."""
        self._shared.count(exchange.failure is not None)
        if self._free == 0:
            self._free_since_ns = perf_counter_ns()
        self._free += 1
        self._pump()


def _closed_unheard(exchange: Exchange) -> bool:
    return exchange.failure is not None and exchange.failure.kind == "closed_early" and not exchange.arrivals
