"""Watches the load generator's own event loop: how busy it is, and how late it gets to things."""

import asyncio
import selectors
from time import perf_counter_ns

TICK_S = 0.01


class MeteredSelector(selectors.EpollSelector):
    """An epoll selector that adds up the time during which there was nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.idle_ns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        begin = perf_counter_ns()
        found = super().select(timeout)
        self.idle_ns += perf_counter_ns() - begin
        return found


class MeteredLoop(asyncio.SelectorEventLoop):
    """An event loop that knows its idle time."""

    def __init__(self) -> None:
        self.meter = MeteredSelector()
        super().__init__(self.meter)


class Lag:
    """How late a timer fires, every 10 ms; the timer itself may be 1 ms late, which is its resolution."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time() + TICK_S
        self._handle = self._loop.call_at(self._next, self._tick)
        self.lags_ms: list[float] = []

    def _tick(self) -> None:
        now = self._loop.time()
        self.lags_ms.append((now - self._next) * 1e3)
        self._next = now + TICK_S
        self._handle = self._loop.call_at(self._next, self._tick)

    def stop(self) -> None:
        """No more ticks; one that is overdue by now counts too."""
        self._handle.cancel()
        overdue = self._loop.time() - self._next
        if overdue > 0:
            self.lags_ms.append(overdue * 1e3)
