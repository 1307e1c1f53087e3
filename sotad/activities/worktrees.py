"""Worktrees of the campaign's repositories on its host: what runs is what a commit holds.

They are ours: one that an interrupted git left half-made, or that somebody changed, is made anew before anything runs
in it. Checkouts of the user are never touched. Another host gets the files of the commit instead of a worktree of git;
see :mod:`sotad.activities.trees`.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from sotad import git
from sotad.activities import trees
from sotad.activities.context import Context
from sotad.daemon.journal import to_the_end


async def checkout(ctx: Context, framework: str, commit: str) -> str:
    """A folder on the host that holds a commit of the framework's repository and nothing else.

    An attempt that has started a process keeps the folder as it is: something may be running in it. A framework
    without a checkout is an installed package, and runs in an empty folder.
    """
    repo = ctx.spec["frameworks"][framework].get("checkout")
    if not ctx.host.here:
        return await trees.lay_out(ctx, Path(repo) if repo else None, framework, commit)
    if repo is None:
        folder = _folder(ctx, framework)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)
    folder = _folder(ctx, f"{framework}-{commit[:12]}")
    if not (folder.exists() and await ctx.begun()) and not await _holds(folder, commit):
        await _make(Path(repo), folder, "--detach", str(folder), commit)
    return str(folder)


def _folder(ctx: Context, name: str) -> Path:
    return ctx.state_dir / "worktrees" / ctx.campaign / name


async def remove(ctx: Context) -> None:
    """No worktree of the campaign is left, on its host and here. They hold no work of their own: every attempt is a
    commit on a branch of the checkout.
    """
    if not ctx.host.here:
        await trees.remove(ctx)
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


async def _holds(folder: Path, commit: str) -> bool:
    """Whether the folder is a worktree at the commit, with nothing changed, missing or added, ignored files included.

    An index of our own is compared with the files: the worktree's may say of a file not to look at it. What is ignored
    may run, too: bytecode comes before its source.
    """
    if not folder.exists():
        return False
    with TemporaryDirectory() as place:
        own = {"GIT_INDEX_FILE": str(Path(place) / "index")}
        try:
            await git.run(folder, "read-tree", commit, env=own)
            found = await git.git(folder, "status", "--porcelain", "--ignored", "--untracked-files=all", env=own)
            return not found.strip() and await git.head(folder) == commit
        except git.GitError:
            return False


async def _make(repo: Path, folder: Path, *place: str) -> None:
    await git.git(repo, "worktree", "remove", "--force", "--force", str(folder), check=False)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await git.git(repo, "worktree", "prune")
    folder.parent.mkdir(parents=True, exist_ok=True)
    await to_the_end(git.git(repo, "worktree", "add", "--quiet", *place))
