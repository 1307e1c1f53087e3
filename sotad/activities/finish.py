"""The end of a campaign: end what it started, show that nothing is left, write the report."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import psutil

from ledger.reader import Reader
from sotad import git
from sotad.activities.context import Context
from sotad.activities.workspace import workspaces
from sotad.agents.desk import HOME, desk_of
from sotad.report import build
from statemachine.state import JSON

LAST_BREATH_S = 5.0


async def clean_up(ctx: Context) -> str:
    """End every run of this campaign that still lives, remove its worktrees and homes; record before and after."""
    before = await _listing(ctx)
    for run in await ctx.host.list_runs(f"{ctx.campaign}/"):
        status = await ctx.host.status(run)
        if not status.over or status.phase == "lost":
            await ctx.host.stop(run)
        await asyncio.to_thread(shutil.rmtree, desk_of(ctx.host.path(run)) / HOME, ignore_errors=True)
    await _remove_worktrees(ctx)
    await asyncio.to_thread(shutil.rmtree, workspaces(ctx), ignore_errors=True)
    if not ctx.recorded("cleanup.finished"):
        await ctx.once("cleanup.finished", {"before": before, "after": await _left(ctx)})
    return "clean"


async def _left(ctx: Context) -> list[JSON]:
    """What is left for good: a shim that has written its outcome takes a moment to go."""
    deadline = time.monotonic() + LAST_BREATH_S
    while (left := await _listing(ctx)) and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    return left


async def _listing(ctx: Context) -> list[JSON]:
    """Processes whose command line or folder belongs to a run of this campaign."""
    marker = str(Path(ctx.host.path(ctx.campaign)))
    return await asyncio.to_thread(_processes, marker)


def _processes(marker: str) -> list[JSON]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        text = " ".join(process.info["cmdline"] or [])
        if marker in text or (process.info["cwd"] or "").startswith(marker):
            found.append({"pid": process.info["pid"], "command": text[:300]})
    return found


async def _remove_worktrees(ctx: Context) -> None:
    """Worktrees hold no work of their own: every attempt is a commit on a branch of the checkout."""
    folder = (ctx.state_dir / "worktrees" / ctx.campaign).resolve()  # as git names it
    for framework in ctx.spec["frameworks"].values():
        repo = Path(framework.get("checkout") or "/")
        if not (repo / ".git").exists():
            continue
        listed = await git.git(repo, "worktree", "list", "--porcelain", check=False)
        for line in listed.splitlines():
            place = Path(line.removeprefix("worktree "))
            if line.startswith("worktree ") and place.is_relative_to(folder):
                await git.git(repo, "worktree", "remove", "--force", str(place), check=False)


async def report(ctx: Context) -> str:
    """Build the report from the ledger, keep every file by digest, and lay the tree out on disk."""
    files = await asyncio.to_thread(_build, ctx)
    root = ctx.state_dir / "reports" / ctx.campaign
    kept = []
    for name, data in sorted(files.items()):
        path = root / name
        await asyncio.to_thread(_write, path, data)
        kept.append(await ctx.keep(data, f"reports/{name}"))
    if not ctx.recorded("report.published"):
        await ctx.once("report.published", {"files": kept})
    return str(root / "final_report.md")


def _build(ctx: Context) -> dict[str, bytes]:
    with Reader(ctx.state_dir / "ledger.db") as reader:
        events = list(reader.events(campaign=ctx.campaign))
    return build(ctx.c, events, ctx.artifacts.read)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
