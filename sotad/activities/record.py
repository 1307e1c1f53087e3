"""The checkpoint of what a round learned, and the ledgers of the loop as files beside it."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Mapping
from pathlib import Path

from ledger.durable import sync_folder
from ledger.reader import Reader
from sotad import git
from sotad.activities.context import Context
from sotad.report.checkpoint import checkpoint_json
from sotad.report.facts import Facts
from sotad.report.ledgers import ledger_files
from statemachine.state import Campaign

CHECKPOINT = "model-loop-checkpoint.json"


async def checkpoint(ctx: Context) -> str:
    """Write what a resume needs, and move the campaign branch to the champion.

    The ledgers come first: where a checkpoint is on record, its files are there.
    """
    repo = Path(ctx.spec["frameworks"][ctx.c.target]["checkout"])
    await git.git(repo, "update-ref", f"refs/heads/{ctx.c.branch}", ctx.c.champion)
    if not ctx.recorded("checkpoint.written"):
        files = await asyncio.to_thread(_files, ctx, copy.deepcopy(ctx.c))
        await asyncio.to_thread(write_files, ctx.state_dir / "ledgers" / ctx.campaign, files)
        document = await ctx.keep(files[CHECKPOINT], f"humanize/checkpoint-r{ctx.c.round}.json")
        await ctx.once("checkpoint.written", {"round": ctx.c.round, "commit": ctx.c.champion, "document": document})
    return ctx.c.champion


def _files(ctx: Context, c: Campaign) -> dict[str, bytes]:
    """Every ledger, and the checkpoint, from the events that the state was folded from."""
    with Reader(ctx.state_dir / "ledger.db") as reader:
        events = [event for event in reader.events(campaign=ctx.campaign) if event.seq <= c.seq]
    facts = Facts(c, events, ctx.artifacts.read)
    return {**ledger_files(facts), CHECKPOINT: checkpoint_json(facts)}


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    """Put each file in its place whole: whoever reads one meanwhile sees the old or the new, never a part."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    for folder in {(root / name).parent for name in files}:
        sync_folder(folder)
