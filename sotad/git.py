"""The few git commands that a campaign needs. Reads, adds branches and worktrees; never resets or pushes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

TIMEOUT_S = 60.0


class GitError(Exception):
    """git refused; the text is the command and its last line."""


async def git(folder: Path, *argv: str, check: bool = True) -> str:
    """Run git in a folder and return what it printed.

    Raises:
        GitError: it failed, hung, or is not installed.
    """
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            "-C",
            str(folder),
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except FileNotFoundError:
        raise GitError("git is not installed, or the folder does not exist: install git, check the path") from None
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except (TimeoutError, asyncio.CancelledError) as interrupted:
        process.kill()
        await process.wait()
        if isinstance(interrupted, asyncio.CancelledError):
            raise
        raise GitError(f"git {' '.join(argv)} in {folder}: no answer after {TIMEOUT_S:g} s") from None
    if check and process.returncode != 0:
        last = (err.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise GitError(f"git {' '.join(argv)} in {folder}: {last}")
    return out.decode(errors="replace")


async def head(folder: Path) -> str:
    """The commit that is checked out."""
    return (await git(folder, "rev-parse", "HEAD")).strip()


async def branch(folder: Path) -> str:
    """The branch that is checked out; empty when detached."""
    return (await git(folder, "branch", "--show-current")).strip()


async def is_clean(folder: Path) -> bool:
    """Whether nothing is modified, staged or untracked, ignored files apart."""
    return not (await git(folder, "status", "--porcelain")).strip()


async def changed_files(repo: Path, base: str, commit: str) -> list[str]:
    """Paths that differ between two commits."""
    return (await git(repo, "diff", "--name-only", base, commit)).split()


async def diff(repo: Path, base: str, commit: str) -> str:
    """The unified diff between two commits."""
    return await git(repo, "diff", base, commit)


async def is_ancestor(repo: Path, ancestor: str, commit: str) -> bool:
    """Whether ``commit`` builds on ``ancestor``."""
    return (await git(repo, "merge-base", ancestor, commit, check=False)).strip() == ancestor
