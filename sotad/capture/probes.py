"""The traffic of a capture: unique prompts of exact length, streamed, each stream's tokens counted as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from sotad.benchmark.workload import Scenario, requests
from sotad.capture.plan import CaptureSpec, Stage
from sotad.loadgen.requests import Body, bodies, scenario_tokenizer
from sotad.loadgen.spec import Target

POLL_S = 0.005
QUIET_S = 3.0  # without a new stream: the server runs as many as it can


class ProbeFailed(Exception):
    """The traffic did not go as the capture needs it; the text says what happened."""


@dataclass
class Streams:
    """Streams that run at once, and how many pieces each has received."""

    counts: list[int]
    running: list[asyncio.Task[None]] = field(default_factory=list)

    async def steady(self, tokens: int, timeout_s: float) -> None:
        """Wait until every stream that runs has so many tokens, and nothing more is going to start soon.

        A server may run fewer streams at once than were sent; the others begin when some end.

        Raises:
            ProbeFailed: the streams broke or ended before, or the time ran out.
        """
        started, since = 0, time.monotonic()

        def reached() -> bool:
            nonlocal started, since
            begun = [count for count in self.counts if count]
            if len(begun) != started:
                started, since = len(begun), time.monotonic()
            waited = len(begun) == len(self.counts) or time.monotonic() - since > QUIET_S
            return bool(begun) and waited and min(begun) >= tokens

        await self._until(reached, f"{tokens} tokens of every stream", timeout_s)

    async def advance(self, tokens: int, timeout_s: float) -> None:
        """Wait until some stream has received so many more tokens.

        Raises:
            ProbeFailed: as for `steady`.
        """
        before = list(self.counts)

        def gained() -> bool:
            return max(now - then for now, then in zip(self.counts, before, strict=True)) >= tokens

        await self._until(gained, f"{tokens} more tokens", timeout_s)

    async def _until(self, reached: Callable[[], bool], what: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    for task in self.running:
                        if task.done() and (cause := task.exception()):
                            raise ProbeFailed(str(cause))
                    if all(task.done() for task in self.running):
                        raise ProbeFailed(f"the streams ended before there were {what}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ProbeFailed(f"no {what} within {timeout_s:g} s") from None


def unique_bodies(spec: CaptureSpec, stage: Stage, count: int, stream: str) -> list[Body]:
    """Requests of the stage's shape with prompts that no other stage, try or run of this seed has."""
    scenario = Scenario(
        name=stage.stage,
        num_prompts=count,
        input_len=stage.input_len,
        output_len=stage.output_len,
        seed=spec.seed,
        first_token=spec.first_token,
        last_token=spec.last_token,
        tokenizer=spec.tokenizer,  # type: ignore[arg-type]
    )
    target = Target(base_url=spec.base_url, endpoint=spec.endpoint, model=spec.model, extra_body=spec.extra_body)
    made = requests(scenario, f"{stage.stage}/{stream}")
    return bodies(target, made, scenario_tokenizer(scenario))


async def one_by_one(session: aiohttp.ClientSession, spec: CaptureSpec, made: Sequence[Body]) -> None:
    """Send each request when the one before it is answered.

    Raises:
        ProbeFailed: one was refused, or answered nothing.
    """
    for body in made:
        streams = Streams([0])
        await _stream(session, spec, body, streams, 0)
        if not streams.counts[0]:
            raise ProbeFailed("a request was answered without a token")


@asynccontextmanager
async def at_once(session: aiohttp.ClientSession, spec: CaptureSpec, made: Sequence[Body]) -> AsyncIterator[Streams]:
    """All of them at the same time; what still runs at the end is hung up."""
    streams = Streams([0] * len(made))
    streams.running = [
        asyncio.create_task(_stream(session, spec, body, streams, index)) for index, body in enumerate(made)
    ]
    try:
        yield streams
    finally:
        for task in streams.running:
            task.cancel()
        await asyncio.gather(*streams.running, return_exceptions=True)


async def _stream(session: aiohttp.ClientSession, spec: CaptureSpec, body: Body, streams: Streams, index: int) -> None:
    try:
        async with session.post(spec.base_url.rstrip("/") + spec.endpoint, json=body) as answer:
            if answer.status != 200:
                raise ProbeFailed(f"a request was answered {answer.status}: {(await answer.text())[:300]}")
            async for line in answer.content:
                if line.startswith(b"data:") and b'"choices":[]' not in line and b"[DONE]" not in line:
                    streams.counts[index] += 1
    except aiohttp.ClientError as error:
        raise ProbeFailed(f"a stream broke: {error}") from error
