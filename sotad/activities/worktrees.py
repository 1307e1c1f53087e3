"""Worktrees of the campaign's repositories: what runs is what a commit holds.

They lie in the state directory and are ours: one that an interrupted git left half-made, or that somebody
changed, is made anew before anything runs in it. Checkouts of the user are never touched.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from sotad import git
from sotad.activities.context import Context
from sotad.daemon.journal import to_the_end


async def checkout(ctx: Context, framework: str, commit: str) -> Path:
    """A worktree of the framework's repository that holds a commit and nothing else.

    An attempt that has started a process keeps the folder as it is: something may be running in it. A framework
    without a checkout is an installed package, and runs in an empty folder.
    """
    if ctx.spec["frameworks"][framework].get("checkout") is None:
        folder = _folder(ctx, framework)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = _folder(ctx, f"{framework}-{commit[:12]}")
    if not (ctx.begun and folder.exists()) and not await _holds(folder, commit):
        await _make(_repo(ctx, framework), folder, "--detach", str(folder), commit)
    return folder


def _repo(ctx: Context, framework: str) -> Path:
    return Path(ctx.spec["frameworks"][framework]["checkout"])


def _folder(ctx: Context, name: str) -> Path:
    return ctx.state_dir / "worktrees" / ctx.campaign / name


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
