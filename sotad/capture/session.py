"""Arm the profiler, send the traffic, disarm it, wait for the files: once for each stage."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp

from sotad.capture.plan import Call, CaptureSpec, Stage
from sotad.capture.probes import ProbeFailed, at_once, one_by_one, unique_bodies

JSON = dict[str, Any]
POLL_S = 0.2


class CaptureFailed(Exception):
    """There is no trace; the text says which stage and why."""


async def capture(spec: CaptureSpec) -> JSON:
    """Every stage of the capture: ``{"stages": [{"stage", "files", "streams", "seconds"}]}``.

    Raises:
        CaptureFailed: the server refused, the traffic broke, or no whole trace file appeared.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_read=spec.timeout_s, connect=30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        return {"stages": [await _stage(session, spec, stage) for stage in spec.stages]}


async def _stage(session: aiohttp.ClientSession, spec: CaptureSpec, stage: Stage) -> JSON:
    begun = time.monotonic()
    try:
        if stage.stage == "prefill":
            files = await _traced(session, spec, _prefill(session, spec, stage))
        else:
            files = await _decode(session, spec, stage)
    except ProbeFailed as failed:
        raise CaptureFailed(f"{stage.stage}: {failed}") from failed
    seconds = round(time.monotonic() - begun, 3)
    return {**stage.model_dump(), "files": [str(file) for file in files], "seconds": seconds}


async def _traced(session: aiohttp.ClientSession, spec: CaptureSpec, traffic: Coroutine[Any, Any, JSON]) -> list[Path]:
    """The files that come of traffic which arms and stops the profiler; whatever happens, it is stopped."""
    known = set(_files(spec))
    try:
        answer = await traffic
    except ProbeFailed:
        await _post(session, spec, spec.stop, quiet=True)
        raise
    return await _written(spec, known, answer)


async def _prefill(session: aiohttp.ClientSession, spec: CaptureSpec, stage: Stage) -> JSON:
    made = unique_bodies(spec, stage, stage.warmup + stage.active, "only")
    await one_by_one(session, spec, made[: stage.warmup])
    await _post(session, spec, spec.start)
    await one_by_one(session, spec, made[stage.warmup :])
    return await _post(session, spec, spec.stop)


async def _decode(session: aiohttp.ClientSession, spec: CaptureSpec, stage: Stage) -> list[Path]:
    """Armed in the steady state; streams that are too short to live through that are sent again, armed before."""
    try:
        return await _traced(session, spec, _steady(session, spec, stage))
    except ProbeFailed:
        return await _traced(session, spec, _armed_before(session, spec, stage))


async def _steady(session: aiohttp.ClientSession, spec: CaptureSpec, stage: Stage) -> JSON:
    async with at_once(session, spec, unique_bodies(spec, stage, stage.streams, "steady")) as streams:
        await streams.steady(stage.warmup, spec.timeout_s)
        await _post(session, spec, spec.start)
        await streams.advance(stage.active, spec.timeout_s)
        return await _post(session, spec, spec.stop)


async def _armed_before(session: aiohttp.ClientSession, spec: CaptureSpec, stage: Stage) -> JSON:
    made = unique_bodies(spec, stage, stage.streams, "armed before")
    await _post(session, spec, spec.start)
    async with at_once(session, spec, made) as streams:
        await streams.advance(min(stage.warmup + stage.active, stage.output_len), spec.timeout_s)
        return await _post(session, spec, spec.stop)


async def _post(session: aiohttp.ClientSession, spec: CaptureSpec, call: Call | None, quiet: bool = False) -> JSON:
    """Call the profiler; its answer where that is a JSON object."""
    if call is None:
        return {}
    try:
        async with session.post(spec.base_url.rstrip("/") + call.path, json=call.body) as answer:
            if answer.status != 200 and not (quiet or call.may_fail):
                raise CaptureFailed(f"{call.path} was answered {answer.status}: {(await answer.text())[:300]}")
            found = await answer.json(content_type=None) if answer.status == 200 else {}
            return found if isinstance(found, dict) else {}
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        if quiet or call.may_fail or isinstance(error, ValueError):
            return {}
        raise CaptureFailed(f"{call.path}: {error!r}") from error


def _files(spec: CaptureSpec) -> list[Path]:
    return sorted(Path(spec.folder).glob(spec.files)) if spec.files else []


async def _written(spec: CaptureSpec, known: set[Path], answer: JSON) -> list[Path]:
    """The new trace files, when all of them are whole."""
    deadline = time.monotonic() + spec.settle_s
    sizes: dict[Path, int] = {}
    while True:
        listed = [Path(name) for name in answer.get("files", [])]
        found = {file: file.stat().st_size for file in listed or _files(spec) if file not in known and file.exists()}
        if found and found == sizes and all([await asyncio.to_thread(whole, file) for file in found]):
            return sorted(found)
        if time.monotonic() > deadline:
            seen = f"{', '.join(map(str, found))} never became whole" if found else "no trace appeared"
            raise CaptureFailed(f"{seen} in {spec.folder} within {spec.settle_s:g} s of the stop")
        sizes = found
        await asyncio.sleep(POLL_S)


def whole(file: Path) -> bool:
    """Whether a trace file was written to its end, by its last bytes."""
    try:
        if file.suffix == ".gz":
            with gzip.open(file) as stream:
                tail = b""
                while block := stream.read(1 << 20):
                    tail = (tail + block)[-64:]
        else:
            with file.open("rb") as stream:
                stream.seek(max(0, file.stat().st_size - 64))
                tail = stream.read()
    except (OSError, EOFError, zlib.error):
        return False
    return tail.rstrip().endswith((b"}", b"]"))
