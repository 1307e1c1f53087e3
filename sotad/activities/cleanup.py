"""The end of a campaign: end and remove what it started, made and downloaded, and nothing else; show that it is so."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sotad.activities import trees, worktrees
from sotad.activities.belongings import MODELS, RECORD, ask, ask_home, downloaded, measured_here
from sotad.activities.context import Context, RunLost
from sotad.activities.engine_caches import root
from sotad.activities.gpu_look import leased_gpus, look
from sotad.activities.server import require
from sotad.agents.desk import HOME, desk_of
from sotad.containers import listing, removal
from sotad.hosts.gpus_lease import holders, leased, unreturned
from sotad.hosts.gpus_reading import Reading
from sotad.there.runs import look as look_at_runs
from statemachine.state import JSON

LAST_BREATH_S = 5.0
LEFT = "left"
LOOK_S = 120.0
REMOVALS, REMOVAL_PAUSE_S = 3, 1.0
RELEASE_S = 60.0  # for a driver to take back the memory of processes that are gone
POLL_S = 2.0


async def clean_up(ctx: Context) -> str:
    """End every run of this campaign that still lives, remove its folders and downloads; record before and after.

    What was there before is on record first: a daemon that dies half-way leaves it to the next one.
    """
    before = await _started(ctx)
    runs, boxes = await _ended_runs(ctx)
    await worktrees.remove(ctx)
    at_home, problems = await measured_here(ctx, remove=True)
    spent, kept = downloaded(ctx, before["folders"])
    away = [root(ctx), *_trees(ctx), *spent]
    ending = {"end": True, "patience_s": LAST_BREATH_S}
    after = await ask(ctx, "after", folders=_places(ctx), remove=away, **ending)
    own = await ask_home(ctx, **ending)
    gpus, holding = await _given_back(ctx, before["gpus"], {each["pid"] for each in after["processes"]})
    gone, found = {*away, *(each["path"] for each in at_home)}, {each["path"]: each for each in before["folders"]}
    measured = [*after["folders"], *at_home, *own["folders"]]
    folders = [_fate(found[each["path"]], each, gone, kept) for each in measured]
    alive = [*after["processes"], *own["processes"]]
    left = [f"pid {each['pid']} of {each['run']}: {each['command']}" for each in alive]
    left += [*boxes, *problems, *after["problems"], *holding]
    left += [f"{each['path']} is still there" for each in folders if each["fate"] == LEFT]
    finished = {"before": before["processes"], "after": alive, "gpus": gpus, "folders": folders}
    await ctx.once("cleanup.finished", {**finished, "runs": runs, "left": left})
    return "; ".join(left) or "clean"


async def _started(ctx: Context) -> JSON:
    """What was there before anything was ended or removed, as it is on record."""
    if not ctx.c.cleanup:
        found, own = await ask(ctx, "before", folders=_places(ctx)), await ask_home(ctx)
        gpus = _levels(ctx, await _read(ctx, "gpus-before")) if leased_gpus(ctx) else []
        folders = [*found["folders"], *(await measured_here(ctx))[0], *own["folders"]]
        processes = [*found["processes"], *own["processes"]]
        await ctx.once("cleanup.started", {"processes": processes, "folders": folders, "gpus": gpus})
    return ctx.c.cleanup


def _places(ctx: Context) -> list[str]:
    """The folders on the host that the campaign wrote to or may have: its runs, its caches, its downloads."""
    return [ctx.host.path(ctx.campaign), root(ctx), *_trees(ctx), *(each["path"] for each in ctx.c.downloads)]


def _trees(ctx: Context) -> list[str]:
    """Where another host keeps the checkouts; here they lie in the state directory."""
    return [] if ctx.host.here else [trees.root(ctx)]


async def _ended_runs(ctx: Context) -> tuple[dict[str, int], list[str]]:
    """End what runs, sweep up after what was lost, remove agents' homes; how many runs ended how, and what is left."""
    ends, left = Counter[str](), list[str]()
    for place in ctx.everywhere():
        found = await _runs(place)
        unfinished = [f"{ctx.campaign}/{run}" for run in found["open"]]
        stopped = await asyncio.gather(*(place.host.stop(run) for run in unfinished))
        ends.update(found["ends"])
        ends.update(status.reason or status.phase for status in stopped)
        left += await _remove_containers(place)
    home = ctx.at_home().host
    for run in await home.list_runs(f"{ctx.campaign}/"):
        await asyncio.to_thread(shutil.rmtree, desk_of(home.path(run)) / HOME, ignore_errors=True)
    return dict(ends), left


async def _runs(ctx: Context) -> JSON:
    """How the campaign's runs on a machine ended, and which did not: found there in one look, not one by one."""
    folder = ctx.host.path(ctx.campaign)
    if ctx.host.here:
        return await asyncio.to_thread(look_at_runs, Path(folder), ctx.job)
    status = await ctx.run("runs", ctx.program("sotad.there.runs", folder, ctx.job, timeout_s=LOOK_S, cwd="/"))
    require(status, "looking for unfinished runs", await ctx.tail("runs"))
    found: JSON = json.loads(await ctx.output("runs"))
    return found


async def _remove_containers(ctx: Context) -> list[str]:
    """Remove the campaign's containers, which outlive clients that were killed; what is left of them, and why."""
    box = ctx.tools.container
    if box is None or box.mode != "run":
        return []
    why = "it came back"
    for tried in range(REMOVALS + 1):
        listed, names = await _asked(ctx, "containers", listing(box, ctx.host.path(ctx.campaign)))
        if not listed:
            return [f"containers could not be listed: {names}"]
        if not names or tried == REMOVALS:
            break
        removed, said = await _asked(ctx, "no-containers", removal(box, *names.split()))
        if not removed:  # podman refuses while what was killed is still being put away
            why = said
            await asyncio.sleep(REMOVAL_PAUSE_S)
    return [f"container {name} is still there: {why}" for name in names.split()]


async def _asked(ctx: Context, name: str, argv: Sequence[str]) -> tuple[bool, str]:
    """Whether the container runtime did it, and what it printed, or why it did not."""
    run = await ctx.unused(name)
    status = await ctx.run(run, ctx.command(tuple(argv), timeout_s=LOOK_S))
    if status.succeeded:
        return True, (await ctx.output(run)).decode(errors="replace")
    return False, status.message or await ctx.tail(run) or f"exit code {status.exit_code}"


def _fate(before: JSON, after: JSON, gone: Collection[str], kept: Mapping[str, str]) -> JSON:
    """What became of a folder: removed, left although it was to go, or kept and why."""
    path = before["path"]
    if path in gone:
        fate = LEFT if after["there"] else "removed" if before["there"] else "was not there"
    else:
        fate = kept.get(path) or _kept(before)
    return {"path": path, "bytes_before": before["bytes"], "bytes_after": after["bytes"], "fate": fate}


def _kept(folder: JSON) -> str:
    """Why a folder stays that is neither ours to remove nor kept by choice."""
    if not folder["path"].rpartition("/")[2].startswith(MODELS):
        return f"kept: {RECORD}"
    return "kept: it was there before" if folder["there"] else "was not there"


# --- GPUs -----------------------------------------------------------------------------------------------------


def _levels(ctx: Context, found: Reading) -> list[JSON]:
    levels = {gpu["uuid"]: gpu["level_mib"] for gpu in leased_gpus(ctx)}
    return [
        {
            "index": gpu.index,
            "uuid": gpu.uuid,
            "level_mib": levels[gpu.uuid],
            "memory_mib": gpu.memory_used_mib,
            "holders": holders(gpu),
        }
        for gpu in leased(found, leased_gpus(ctx)).gpus
    ]


async def _read(ctx: Context, name: str) -> Reading:
    """The GPUs; a driver that does not answer any more keeps no campaign from its end."""
    try:
        return await look(ctx, name)
    except RunLost as lost:
        return Reading(time_ns=ctx.journal.clock(), source="none", problem=str(lost))


def _unreturned(ctx: Context, found: Reading, ours: set[int]) -> list[str]:
    unknown = [f"GPU {index} could not be read: {found.problem}" for index in leased(found, leased_gpus(ctx)).missing]
    return unknown + unreturned(found, leased_gpus(ctx), ours)


async def _given_back(ctx: Context, before: Sequence[JSON], ours: set[int]) -> tuple[list[JSON], list[str]]:
    """The GPUs before and after, and who still holds what we took; they get a moment to give their memory back.

    Without a lease they are somebody else's by now, and what is on them is none of ours.
    """
    if not leased_gpus(ctx):
        return [], []
    deadline = ctx.journal.clock() + int(RELEASE_S * 1e9)
    while True:
        found = await _read(ctx, "gpus-after")
        holding = _unreturned(ctx, found, ours) if ctx.c.lease else []
        if not holding or ctx.journal.clock() > deadline:
            break
        await asyncio.sleep(POLL_S)
    then = {gpu["uuid"]: gpu["memory_mib"] for gpu in before}
    now = _levels(ctx, found)
    for gpu in now:
        gpu |= {"before_mib": then.get(gpu["uuid"]), "after_mib": gpu.pop("memory_mib")}
    return now, holding
