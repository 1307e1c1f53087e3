"""The GPUs around a measurement: idle before the launch, ours alone while it is measured."""

from __future__ import annotations

import asyncio
import json
from itertools import count

from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.hosts.gpus_judge import disturbances, occupied
from sotad.hosts.gpus_reading import Reading

WATCH_S = 1.0
POLL_S = 2.0


def watched(ctx: Context) -> list[int]:
    """The GPUs of the campaign; none where it serves on the CPU."""
    ids: list[int] = ctx.spec["hardware"]["gpu_ids"]
    return ids


async def until_idle(ctx: Context) -> None:
    """Wait for the campaign's GPUs to be free of everybody else, up to the budget for that.

    Raises:
        ActivityFailed: they stayed in use, with who uses them.
    """
    if not watched(ctx):
        return
    deadline = ctx.journal.clock() + int(float(ctx.spec["budget"]["resource_wait_s"]) * 1e9)
    for number in count():
        reasons = occupied(await _look(ctx, f"gpus-idle-{number}"))
        if not reasons:
            return
        if ctx.journal.clock() > deadline:
            raise ActivityFailed(f"the GPUs are not ours alone: {'; '.join(reasons)}")
        await asyncio.sleep(POLL_S)


async def begin(ctx: Context, name: str) -> None:
    """Watch the GPUs from now on, beside the measurement ``name``."""
    if watched(ctx):
        argv = ("-m", "sotad.hosts.gpus", "--ids", _ids(ctx), "--watch", str(WATCH_S))
        await ctx.start(f"{name}-gpus", ctx.python(*argv, timeout_s=float(ctx.spec["budget"]["job_s"])))


async def end(ctx: Context, name: str, server: str) -> list[str]:
    """Stop watching; return why what was measured meanwhile does not count."""
    if not watched(ctx):
        return []
    ours = await ctx.host.processes(ctx.run_id(server))
    await ctx.stop(f"{name}-gpus")
    text = (await ctx.output(f"{name}-gpus")).decode(errors="replace")
    readings = [Reading.from_json(json.loads(line)) for line in text.splitlines()]
    if len(readings) < 2:
        return ["the GPUs were looked at less than twice"]
    await ctx.keep(text.encode(), f"benchmark/gpus/{ctx.job}/{name}.jsonl")
    return disturbances(readings[0], readings[1:-1], readings[-1], set(ours))


async def _look(ctx: Context, name: str) -> Reading:
    status = await ctx.run(name, ctx.python("-m", "sotad.hosts.gpus", "--ids", _ids(ctx), timeout_s=60))
    try:
        return Reading.from_json(json.loads(await ctx.output(name)))
    except ValueError:
        raise RunLost(f"{name}: no reading of the GPUs, exit code {status.exit_code}: {await ctx.tail(name)}") from None


def _ids(ctx: Context) -> str:
    return ",".join(map(str, watched(ctx)))
