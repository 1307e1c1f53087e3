"""The GPUs around a measurement: idle before the launch, ours alone while it is measured."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sotad.activities.context import ActivityFailed, Context
from sotad.activities.gpu_look import leased_gpus, look, looker, printed
from sotad.hosts.gpus_judge import disturbances
from sotad.hosts.gpus_lease import leased, strayed, unfit
from sotad.hosts.gpus_reading import Reading
from sotad.hosts.gpus_sample import host_cpu, longest_gap_s, summary, until
from statemachine.machine import IllegalEvent
from statemachine.state import JSON
from statemachine.table import HALTED

WATCH_S = 1.0
BLIND_S = 30.0  # without a reading for this long a watcher has missed what it was for
FIRST_READING_S = 60.0
SETTLING = 2  # looks: a driver takes a moment to take memory back, and its load is a mean over the last second
POLL_S = (2.0, 15.0)  # the first and the longest pause between two looks


@dataclass(frozen=True, slots=True)
class Watched:
    """What the readings of a sample show: ``reasons`` why it does not count, ``evidence`` as its event carries it."""

    reasons: list[str]
    evidence: JSON | None = None


# --- before -------------------------------------------------------------------------------------------------


async def until_idle(ctx: Context, server: str = "server") -> list[JSON]:
    """Wait for the campaign's GPUs to be free of everybody and back at their level; return what they hold.

    Nothing is looked at once the run ``server`` has begun: it has them. The wait has the budget for that, and its
    deadline is on record. Then the campaign is blocked for want of resources: resumed, it goes on where it was.

    Raises:
        ActivityFailed: they stayed in use, with who uses them; or the campaign was halted meanwhile.
    """
    gpus, name = leased_gpus(ctx), f"{server}-gpus-idle"
    if not gpus or (await ctx.host.status(ctx.run_id(server))).phase != "absent":
        return []
    looks, (pause, longest) = 0, POLL_S
    while reasons := unfit(found := await look(ctx, name), gpus):
        if ctx.c.phase in HALTED or leased_gpus(ctx) != gpus:  # a halt may be over again; the lease went with it
            raise ActivityFailed(f"halted while the GPUs were in use: {'; '.join(reasons)}")
        looks += 1
        if looks > SETTLING and await _deadline(ctx, name, reasons) < ctx.journal.clock():
            await _blocked(ctx, reasons)
            raise ActivityFailed(f"the GPUs did not become free: {'; '.join(reasons)}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)
    await _waited(ctx, name)
    return _held(found, gpus)


def _held(found: Reading, gpus: Sequence[JSON]) -> list[JSON]:
    levels = {gpu["uuid"]: gpu["level_mib"] for gpu in gpus}
    return [
        {"index": gpu.index, "uuid": gpu.uuid, "memory_mib": gpu.memory_used_mib, "level_mib": levels[gpu.uuid]}
        for gpu in leased(found, gpus).gpus
    ]


async def _deadline(ctx: Context, name: str, reasons: Sequence[str]) -> int:
    """When the waiting is over, as the ledger says."""
    limit = int(float(ctx.spec["budget"]["resource_wait_s"]) * 1e9)
    asked = {"holder": "; ".join(reasons), "deadline_ns": ctx.journal.clock() + limit}
    return int((await ctx.once("resource.wait_started", asked, f"{name}-wait")).payload["deadline_ns"])


async def _waited(ctx: Context, name: str) -> None:
    """That a wait is over, when there was one."""
    if started := ctx.recorded(f"{name}-wait"):
        waited = (ctx.journal.clock() - started.time_ns) / 1e9
        await ctx.once("resource.wait_ended", {"waited_s": round(waited, 3)}, f"{name}-waited")


async def _blocked(ctx: Context, reasons: Sequence[str]) -> None:
    """Block the campaign, unless it was halted or stopped meanwhile."""
    reason = f"the GPUs did not become free: {'; '.join(reasons)}"
    then = f"free them, then: sotactl resume {ctx.campaign}"
    blocked = {"kind": "resources", "reason": reason, "next": then}
    try:
        await ctx.journal.record(ctx.campaign, "campaign.blocked", blocked, key=ctx.key("gpus-blocked"))
    except IllegalEvent:
        pass


# --- during and after ---------------------------------------------------------------------------------------


async def begin(ctx: Context, name: str) -> None:
    """Watch the GPUs from now on, beside the measurement ``name``; the reading before it is there on return.

    Raises:
        ActivityFailed: nothing was read in time.
    """
    if not leased_gpus(ctx):
        return
    run = f"{name}-gpus"
    limit = float(ctx.spec["budget"]["job_s"])
    status = await ctx.start(run, looker(ctx, "--watch", str(WATCH_S), timeout_s=limit))
    for _ in range(int(FIRST_READING_S / 0.1)):
        if b"\n" in (await ctx.find(run, "stdout.log") or b""):
            return
        if (status := await ctx.host.status(ctx.run_id(run))).over:
            break
        await asyncio.sleep(0.1)
    raise ActivityFailed(f"the GPUs could not be looked at ({status.phase}): {await ctx.tail(run)}")


async def abandon(ctx: Context, name: str) -> None:
    """Stop watching something that came to nothing."""
    if leased_gpus(ctx):
        await ctx.stop(f"{name}-gpus")


async def end(ctx: Context, name: str, server: str) -> Watched:
    """Stop watching; return why what was measured meanwhile does not count, and the evidence for either."""
    gpus = leased_gpus(ctx)
    if not gpus:
        return Watched([])
    ours = set(await ctx.host.processes(ctx.run_id(server)))
    await ctx.stop(f"{name}-gpus")
    text = await printed(ctx, f"{name}-gpus")
    raw = await ctx.keep(gzip.compress(text.encode(), mtime=0), f"benchmark/gpus/{ctx.job}/{name}.jsonl.gz")
    ended = (await ctx.host.status(ctx.run_id(name))).ended_ns
    readings = until([*_readings(text)], ended)
    own = [leased(reading, gpus) for reading in readings]
    evidence = {"raw": raw, "readings": len(readings), "gpus": summary(own, ours), "cpu": host_cpu(readings)}
    return Watched(_reasons(readings, own, gpus, ours), evidence)


def _readings(text: str) -> list[Reading]:
    """Every whole line; a watcher that was killed may have left half of one."""
    return [Reading.from_json(json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _reasons(readings: list[Reading], own: list[Reading], gpus: Sequence[JSON], ours: set[int]) -> list[str]:
    if len(own) < 2:
        return ["the GPUs were looked at less than twice"]
    found = disturbances(own[0], own[1:-1], own[-1], ours) + strayed(readings, gpus, ours)
    if (blind := longest_gap_s(own)) > BLIND_S:
        found.append(f"the GPUs were not looked at for {blind:.0f} s")
    return found
