"""Mechanical gates on a commit: small checks over facts that the daemon itself establishes with git."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from sotad import git
from sotad.activities.context import Context


class Gate(NamedTuple):
    """The outcome of one gate, and what would satisfy it."""

    gate: str
    passed: bool
    detail: str
    satisfy: str


async def commit_gates(ctx: Context, repo: Path, folder: Path, branch: str) -> list[Gate]:
    """Every gate on the commit in the attempt's worktree, in the order in which they are reported."""
    base = ctx.c.attempt.base
    commit, on, clean = await git.head(folder), await git.branch(folder), await git.is_clean(folder)
    files = await git.changed_files(repo, base, commit)
    builds_on = await git.is_ancestor(repo, base, commit)
    return [
        commit_exists(base, commit, builds_on),
        clean_tree(clean),
        campaign_branch(branch, on),
        path_boundary(files, ctx.spec["frameworks"][ctx.c.target]["paths"]),
        await _harness(ctx),
    ]


def commit_exists(base: str, commit: str, builds_on: bool) -> Gate:
    """There is a commit, and it builds on the champion."""
    made = commit != base and builds_on
    detail = f"{commit[:12]} on {base[:12]}" if made else "no commit on top of the champion"
    return Gate("commit_exists", made, detail, "commit the change on top of the champion")


def clean_tree(clean: bool) -> Gate:
    """Nothing is left uncommitted."""
    return Gate("clean_tree", clean, "clean" if clean else "uncommitted changes", "commit or remove every change")


def campaign_branch(expected: str, found: str) -> Gate:
    """The worktree is still on the attempt's branch."""
    return Gate("campaign_branch", expected == found, f"on {found or 'no branch'}", f"commit on {expected}")


def path_boundary(files: list[str], allowed: list[str]) -> Gate:
    """Every changed file is inside the paths that the plan allows, and no test was changed."""
    outside = [name for name in files if not any(fnmatch(name, pattern) for pattern in allowed)]
    tests = [name for name in files if "tests/" in name or Path(name).name.startswith("test_")]
    wrong = sorted({*outside, *tests})
    detail = f"{len(files)} files, all allowed" if not wrong else f"not allowed: {', '.join(wrong)}"
    return Gate("path_boundary", bool(files) and not wrong, detail, f"change only {', '.join(allowed)}, and no tests")


async def _harness(ctx: Context) -> Gate:
    """Checkouts of competitors, and the target's own, are as they were when they were checked."""
    moved = []
    for name, checked in ctx.c.workspaces.items():
        if ctx.spec["frameworks"][name].get("checkout") is None:
            continue  # an installed package: no worktree of ours leads there
        repo = Path(checked["repo"])
        if await git.head(repo) != checked["commit"] or not await git.is_clean(repo):
            moved.append(name)
    detail = "every checkout as checked at intake" if not moved else f"changed since intake: {', '.join(moved)}"
    return Gate("harness_untouched", not moved, detail, "leave the checkouts alone; work in the worktree")
