"""The lease of a host, or of some of its GPUs, for one campaign."""

from __future__ import annotations

import asyncio
import gzip
import json

from sotad.activities.belongings import list_downloads
from sotad.activities.context import Context
from sotad.activities.gpu_look import leased_gpus, look
from sotad.hosts.gpus_lease import identities, leased, unfit
from sotad.hosts.gpus_reading import Reading
from statemachine.machine import IllegalEvent
from statemachine.state import JSON
from statemachine.table import HALTED

LOOK_AGAIN_S = 5.0


async def lease(ctx: Context) -> str:
    """Take the host, or its GPUs that the spec names, once nobody else uses them; wait for that up to the bound.

    Where GPUs are named, the lease says which these are by their uuids and what they hold: a later lease is of the
    same ones. Nobody is given fewer or other GPUs than asked for.
    """
    hardware = ctx.spec["hardware"]
    wanted = {"host": hardware["host"], "gpu_ids": hardware["gpu_ids"]}
    while not ctx.c.lease:
        if ctx.c.phase in HALTED:
            return "halted before the host was free"
        holder, reasons = _holder(ctx), list[str]()
        if not holder:
            reasons, found = await _looked(ctx)
            holder = "; ".join(reasons)
        if not holder:
            try:
                await ctx.once("lease.granted", {**wanted, **await _named(ctx, found)})
                break
            except IllegalEvent as taken:
                if taken.guard != "host_free":
                    raise
                holder = taken.missing
        if not await _wait(ctx, holder, reasons):
            return "the GPUs did not become free" if reasons else "another campaign kept the host"
    await list_downloads(ctx)
    return "granted"


async def _looked(ctx: Context) -> tuple[list[str], Reading | None]:
    """Why the GPUs of the spec cannot be leased now, and the reading of them; nothing where it names none."""
    ids = ctx.spec["hardware"]["gpu_ids"]
    if not ids:
        return [], None
    whole = await look(ctx, "gpus-lease")
    chosen = leased_gpus(ctx) or [gpu for gpu in identities(whole) if gpu["index"] in ids]
    absent = sorted(set(ids) - {gpu["index"] for gpu in chosen})
    why = f": {whole.problem}" if whole.problem else ""
    missing = [f"GPU {index} is missing{why}" for index in absent]
    return missing + unfit(whole, chosen), leased(whole, chosen)


def _holder(ctx: Context) -> str:
    """The campaign that has one of the GPUs: its processes are no foreign ones, so nobody looks; empty when none has.

    A lease of the whole host is left to the guard, which knows it all.
    """
    host, ids = ctx.spec["hardware"]["host"], set(ctx.spec["hardware"]["gpu_ids"])
    others = [c for c in ctx.journal.world.campaigns.values() if c.lease and c.id != ctx.campaign]
    for other in others if ids else ():
        taken = set(other.lease["gpu_ids"]) or ids
        if other.lease["host"] == host and taken & ids:
            return f"campaign {other.id}"
    return ""


async def _named(ctx: Context, found: Reading | None) -> JSON:
    """The GPUs as the lease names them: with the level of the first lease, which stays theirs."""
    if found is None:
        return {}
    text = json.dumps(found.to_json(), sort_keys=True)
    kept = await ctx.keep(gzip.compress(text.encode(), mtime=0), f"gpus/{ctx.job}.json.gz")
    return {"gpus": leased_gpus(ctx) or identities(found), "readings": kept}


async def _wait(ctx: Context, holder: str, reasons: list[str]) -> bool:
    """Wait for a change of the world; False when the time for waiting is over."""
    limit = float(ctx.spec["budget"]["resource_wait_s"])
    deadline = ctx.journal.clock() + int(limit * 1e9)
    started = await ctx.once("resource.wait_started", {"holder": holder, "deadline_ns": deadline})
    left = (started.payload["deadline_ns"] - ctx.journal.clock()) / 1e9
    if left <= 0:
        over = {"deadline_ns": started.payload["deadline_ns"], "reasons": reasons or None}
        await ctx.once("resource.wait_expired", over)
        return False
    await ctx.journal.changed(ctx.journal.world.seq, min(left, LOOK_AGAIN_S))
    if reasons:  # other campaigns' events come often, GPUs change seldom
        await asyncio.sleep(min(left, LOOK_AGAIN_S / 5))
    return True
