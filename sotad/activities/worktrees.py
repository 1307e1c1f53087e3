"""Worktrees of the campaign's repositories: what runs is what a commit holds.

They lie in the state directory and are ours: one that an interrupted git left half-made, or that somebody
changed, is made anew before anything runs in it. Checkouts of the user are never touched.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from sotad import git
from sotad.activities.context import ActivityFailed, Context
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


async def attempt_worktree(ctx: Context, attempt_id: str, base: str) -> tuple[Path, str]:
    """A worktree on a new branch at ``base`` for one try of an implementer, and the branch.

    Raises:
        ActivityFailed: the branch is there already, with commits that this campaign does not know.
    """
    name = attempt_id if ctx.attempt == 1 else f"{attempt_id}-try{ctx.attempt}"
    repo, folder, branch = _repo(ctx, ctx.c.target), _folder(ctx, name), f"{ctx.c.branch}-{name}"
    if not ctx.begun and not await _holds(folder, base):
        found = (await git.git(repo, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False)).strip()
        if found not in ("", base):
            raise ActivityFailed(f"branch {branch} in {repo} is of another campaign: rename or delete it")
        place = (str(folder), branch) if found else ("-b", branch, str(folder), base)
        await _make(repo, folder, *place)
    return folder, branch


def _repo(ctx: Context, framework: str) -> Path:
    return Path(ctx.spec["frameworks"][framework]["checkout"])


def _folder(ctx: Context, name: str) -> Path:
    return ctx.state_dir / "worktrees" / ctx.campaign / name


async def _holds(folder: Path, commit: str) -> bool:
    """Whether the folder is a worktree at the commit, with nothing changed, missing or added."""
    try:
        return folder.exists() and await git.head(folder) == commit and await git.is_clean(folder)
    except git.GitError:
        return False


async def _make(repo: Path, folder: Path, *place: str) -> None:
    await git.git(repo, "worktree", "remove", "--force", "--force", str(folder), check=False)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await git.git(repo, "worktree", "prune")
    folder.parent.mkdir(parents=True, exist_ok=True)
    await to_the_end(git.git(repo, "worktree", "add", "--quiet", *place))
