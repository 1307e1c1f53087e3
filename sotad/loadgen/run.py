"""Sends a whole workload: warm-up, then the measured requests, at most so many at a time."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import aiohttp
import orjson

from sotad.benchmark import workload
from sotad.loadgen.client import CANCELLED, Exchange, open_session, send
from sotad.loadgen.spec import LoadSpec


@dataclass
class Measurement:
    """What one run brought; `started_at_ns` is UTC, `begin_ns` the same moment as `time.perf_counter_ns`."""

    started_at_ns: int
    begin_ns: int
    exchanges: list[Exchange]
    warmup: list[Exchange]
    cpu_s: float
    interrupted: bool


async def measure(spec: LoadSpec) -> Measurement:
    """Every request was sent; or the calling task was cancelled, and the rest count as cancelled."""
    scenario = spec.scenario
    rehearsal = scenario.model_copy(update={"num_prompts": spec.warmup_requests})
    warm_bodies = _bodies(spec, workload.prompts(rehearsal, "warmup"))
    bodies = _bodies(spec, workload.prompts(scenario))
    due = workload.arrivals(len(bodies), spec.request_rate, scenario.seed)
    async with open_session(spec) as session:
        warmup = _exchanges([0.0] * len(warm_bodies))
        whole = await send_all(session, spec.url, warm_bodies, warmup, spec.max_concurrency)
        started_at, cpu, exchanges = time.time_ns(), time.process_time(), _exchanges(due)
        begin = exchanges[0].due_ns
        if whole:
            whole = await send_all(session, spec.url, bodies, exchanges, spec.max_concurrency)
    for exchange in exchanges:
        if not exchange.sent_ns:
            exchange.failure = CANCELLED
    return Measurement(started_at, begin, exchanges, warmup, time.process_time() - cpu, not whole)


async def send_all(
    session: aiohttp.ClientSession,
    url: str,
    bodies: Sequence[bytes],
    exchanges: Sequence[Exchange],
    at_once: int,
) -> bool:
    """Fills in the exchanges in order, `at_once` at a time; False when the calling task was cancelled."""
    queue = iter(zip(bodies, exchanges, strict=True))
    workers = [asyncio.create_task(_work(session, url, queue)) for _ in range(min(at_once, len(bodies)))]
    try:
        await asyncio.gather(*workers)
    except asyncio.CancelledError:
        await asyncio.gather(*workers, return_exceptions=True)
        return False
    return True


async def _work(session: aiohttp.ClientSession, url: str, queue: Iterator[tuple[bytes, Exchange]]) -> None:
    for body, exchange in queue:
        exchange.planned_ns = max(time.perf_counter_ns(), exchange.due_ns)
        ahead_ns = exchange.due_ns - time.perf_counter_ns()
        if ahead_ns > 0:
            await asyncio.sleep(ahead_ns / 1e9)
        await send(session, url, body, exchange)


def _bodies(spec: LoadSpec, prompts: list[list[int]]) -> list[bytes]:
    return [orjson.dumps(spec.body(prompt, spec.scenario.output_len)) for prompt in prompts]


def _exchanges(due: list[float]) -> list[Exchange]:
    begin = time.perf_counter_ns()
    return [Exchange(begin + round(offset * 1e9)) for offset in due]
