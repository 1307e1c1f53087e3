"""The few git commands that a campaign needs. Reads, adds branches and worktrees; never resets or pushes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 60.0
PLAIN = ("--no-ext-diff", "--no-textconv", "--no-renames")  # a diff that runs nothing and names both ends of a rename
NEUTRAL = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
"""Nobody's configuration: for repositories that are ours alone."""


class GitError(Exception):
    """git refused; the text is the command and its last line."""


async def run(folder: Path, *argv: str, data: bytes = b"", check: bool = True, env: Mapping[str, str] = {}) -> bytes:
    """Run git in a folder with ``data`` as its input, and return what it printed.

    Raises:
        GitError: it failed, hung, or is not installed.
    """
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **env}
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            "-C",
            str(folder),
            *argv,
            stdin=asyncio.subprocess.PIPE if data else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except FileNotFoundError:
        raise GitError("git is not installed, or the folder does not exist: install git, check the path") from None
    try:
        out, err = await asyncio.wait_for(process.communicate(data or None), TIMEOUT_S)
    except (TimeoutError, asyncio.CancelledError) as interrupted:
        process.kill()
        await process.wait()
        if isinstance(interrupted, asyncio.CancelledError):
            raise
        raise GitError(f"git {' '.join(argv)} in {folder}: no answer after {TIMEOUT_S:g} s") from None
    if check and process.returncode != 0:
        last = (err.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise GitError(f"git {' '.join(argv)} in {folder}: {last}")
    return out


async def git(folder: Path, *argv: str, check: bool = True, env: Mapping[str, str] = {}) -> str:
    """Run git in a folder and return what it printed, as text.

    Raises:
        GitError: it failed, hung, or is not installed.
    """
    return (await run(folder, *argv, check=check, env=env)).decode(errors="replace")


async def head(folder: Path) -> str:
    """The commit that is checked out."""
    return (await git(folder, "rev-parse", "HEAD")).strip()


async def branch(folder: Path) -> str:
    """The branch that is checked out; empty when detached."""
    return (await git(folder, "branch", "--show-current")).strip()


async def is_clean(folder: Path) -> bool:
    """Whether nothing is modified, staged or untracked, ignored files apart."""
    return not (await git(folder, "status", "--porcelain")).strip()


async def tip(repo: Path, ref: str) -> str:
    """The commit that a ref names; empty when there is no such ref."""
    return (await git(repo, "rev-parse", "--verify", "--quiet", ref, check=False)).strip()


async def refs(repo: Path) -> dict[str, str]:
    """Every ref and what it names, and what HEAD is."""
    found = await git(repo, "for-each-ref", "--format=%(refname) %(objectname)")
    named = dict(line.split(" ", 1) for line in found.splitlines())
    return {**named, "HEAD": (await git(repo, "symbolic-ref", "--quiet", "HEAD", check=False)).strip()}


async def changed_files(repo: Path, base: str, commit: str, env: Mapping[str, str] = {}) -> list[str]:
    """Paths that differ between two commits, both ends of a rename among them."""
    listed = await run(repo, "diff", *PLAIN, "--name-only", "-z", base, commit, env=env)
    return [path.decode(errors="replace") for path in listed.split(b"\0") if path]


async def diff(repo: Path, base: str, commit: str) -> str:
    """The unified diff between two commits."""
    return await git(repo, "diff", *PLAIN, base, commit)


async def is_ancestor(repo: Path, ancestor: str, commit: str, env: Mapping[str, str] = {}) -> bool:
    """Whether ``commit`` builds on ``ancestor``."""
    return (await git(repo, "merge-base", ancestor, commit, check=False, env=env)).strip() == ancestor
