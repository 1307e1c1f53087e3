"""Before anything is measured: the lease on the host, the workspaces, the frameworks."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sotad import git
from sotad.activities.context import Context, RunLost
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.base import flags_in
from statemachine.machine import IllegalEvent
from statemachine.state import JSON

HELP_TIMEOUT_S = 60.0


async def lease(ctx: Context) -> str:
    """Take the host (its GPUs) for this campaign; wait while another campaign holds it, up to the bound."""
    hardware = ctx.spec["hardware"]
    wanted = {"host": hardware["host"], "gpu_ids": hardware["gpu_ids"]}
    while True:
        try:
            if not ctx.c.lease:
                await ctx.once("lease.granted", wanted)
            return "granted"
        except IllegalEvent as taken:
            if taken.guard != "host_free":
                raise
            if not await _wait(ctx, taken.missing):
                return "another campaign kept the host"


async def _wait(ctx: Context, holder: str) -> bool:
    """Wait for a change of the world; False when the time for waiting is over."""
    limit = float(ctx.spec["budget"]["resource_wait_s"])
    deadline = ctx.journal.clock() + int(limit * 1e9)
    started = await ctx.once("resource.wait_started", {"holder": holder, "deadline_ns": deadline})
    left = (started.payload["deadline_ns"] - ctx.journal.clock()) / 1e9
    if left <= 0:
        await ctx.once("resource.wait_expired", {"deadline_ns": started.payload["deadline_ns"]})
        return False
    await ctx.journal.changed(ctx.journal.world.seq, min(left, 5.0))
    return True


async def preflight(ctx: Context) -> str:
    """Check every workspace and probe every framework; pass, or say which check failed."""
    for name, framework in ctx.spec["frameworks"].items():
        problem = await _workspace(ctx, name, framework)
        if problem:
            failed = {"check": f"workspace {name}", "reason": problem}
            await ctx.once("preflight.failed", failed, "outcome")
            return problem
        await _probe(ctx, name, framework)
    try:
        facts = await ctx.host.probe()
        if not ctx.recorded("outcome"):
            await ctx.once("preflight.passed", {"host": facts}, "outcome")
    except IllegalEvent as refused:
        if refused.guard == "lease_held":  # given back while the campaign was paused: tried again with a new one
            raise
        why = "; ".join(f"{name} is unsupported: {reason}" for name, reason in ctx.c.unsupported.items())
        failed = {"check": refused.guard, "reason": f"missing: {refused.missing}" + (f" ({why})" if why else "")}
        await ctx.once("preflight.failed", failed, "outcome")
        return refused.missing
    return "passed"


async def _workspace(ctx: Context, name: str, framework: JSON) -> str:
    """Record the state of a checkout; return what is wrong with it, or an empty string."""
    repo = Path(framework["checkout"])
    if not await asyncio.to_thread((repo / ".git").exists):
        return f"{repo} is no git checkout: clone the framework there"
    try:
        clean, commit, branch = await git.is_clean(repo), await git.head(repo), await git.branch(repo)
    except git.GitError as error:
        return str(error)
    checked = {"framework": name, "repo": str(repo), "commit": commit, "branch": branch, "clean": clean}
    await ctx.once("workspace.checked", checked, f"workspace-{name}")
    if not clean:
        return f"{repo} has uncommitted changes: commit or stash them (sotad never resets a checkout)"
    if framework["role"] == "target" and branch != framework["base_branch"]:
        return f"{repo} is on {branch or 'a detached commit'}, not on base_branch {framework['base_branch']}"
    return ""


async def _probe(ctx: Context, name: str, framework: JSON) -> None:
    """Capture version and help in the target environment, or record why the framework is unsupported."""
    if ctx.recorded(f"probe-{name}"):
        return
    driver = FRAMEWORKS[framework["kind"]]
    python = framework["python"] or "python3"
    try:
        text = await _ask(ctx, f"help-{name}", driver.help_command(python), framework["checkout"])
        version = await _ask(ctx, f"version-{name}", driver.version_command(python), framework["checkout"])
    except _ProbeError as error:
        await ctx.once("framework.unsupported", {"framework": name, "reason": str(error)}, f"probe-{name}")
        return
    probed = {
        "framework": name,
        "kind": framework["kind"],
        "version": version.decode(errors="replace").strip(),
        "commit": ctx.c.workspaces[name]["commit"],
        "help": await ctx.keep(text, f"help/{name}.txt"),
        "flags": flags_in(text.decode(errors="replace")),
    }
    await ctx.once("framework.probed", probed, f"probe-{name}")


class _ProbeError(Exception):
    """A framework could not say its help or version."""


async def _ask(ctx: Context, run: str, argv: tuple[str, ...], cwd: str) -> bytes:
    try:
        status = await ctx.run(run, ctx.command(argv, timeout_s=HELP_TIMEOUT_S, cwd=cwd, PYTHONDONTWRITEBYTECODE="1"))
    except RunLost as lost:
        raise _ProbeError(str(lost)) from None
    if not status.succeeded:
        end = status.message or f"exit code {status.exit_code}"
        raise _ProbeError(f"{' '.join(argv)}: {end}: {await ctx.tail(run)}")
    return await ctx.output(run)
