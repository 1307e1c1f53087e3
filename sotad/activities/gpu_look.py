"""Looking at the host's GPUs from an activity: each look is a run of its own, so that it is made where they are."""

from __future__ import annotations

import json

from sotad.activities.context import Context, RunLost
from sotad.activities.toolbox import MEASURING
from sotad.hosts.base import RunSpec
from sotad.hosts.gpus_reading import Reading
from statemachine.state import JSON

LOOK_S = 60.0


def leased_gpus(ctx: Context) -> list[JSON]:
    """The GPUs that the campaign leased, as they were found then; none where it asked for none."""
    return list(ctx.c.gpus.values())


async def look(ctx: Context, name: str) -> Reading:
    """The host's GPUs as they are now; what an earlier entry saw under this name is old.

    Raises:
        RunLost: nothing could be read.
    """
    run = await ctx.unused(name)
    status = await ctx.run(run, looker(ctx, timeout_s=LOOK_S))
    try:
        return Reading.from_json(json.loads(await printed(ctx, run)))
    except ValueError:
        why = status.message or f"exit code {status.exit_code}: {await ctx.tail(run)}"
        hint = "" if ctx.host.here else f"; tools in the host's definition must be {MEASURING}"
        raise RunLost(f"{run}: no reading of the GPUs under {ctx.tools.python}: {why}{hint}") from None


def looker(ctx: Context, *argv: str, timeout_s: float) -> RunSpec:
    """The command that looks at all GPUs of the host: at others, too, for processes of ours that strayed there."""
    return ctx.python("-m", "sotad.hosts.gpus", *argv, timeout_s=timeout_s)


async def printed(ctx: Context, run: str) -> str:
    """All that a run that is over printed, however long."""
    return (await ctx.fetch(run, "stdout.log")).decode(errors="replace")
