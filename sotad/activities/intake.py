"""Before anything is measured: the workspaces and the frameworks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

from sotad import git
from sotad.activities.away import NotFit, fitness, interpreter_there
from sotad.activities.context import Context, RunLost
from sotad.activities.server import environment
from sotad.activities.worktrees import checkout
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.base import Framework
from sotad.frameworks.help import parse_help
from sotad.frameworks.identity import SCRIPT, identity_command
from sotad.harness import harness_digest
from sotad.hosts.base import HostError, HostUnreachable
from statemachine.evidence import digest
from statemachine.machine import IllegalEvent
from statemachine.state import JSON

Result = TypeVar("Result")
HELP_TIMEOUT_S = 300.0  # real engines import torch before they print a word


async def preflight(ctx: Context) -> str:
    """Check every workspace and probe every framework; pass, or say which check failed."""
    hardware = ctx.spec["hardware"]
    if hardware.get("gpu_count") and not hardware["gpu_ids"]:
        reason = f"{hardware['gpu_count']} GPUs are asked for, but hardware.gpu_ids does not say which"
        await ctx.once("preflight.failed", {"check": "hardware", "reason": reason}, "outcome")
        return reason
    try:
        facts = await ctx.host.probe() if ctx.host.here else await fitness(ctx)
    except HostUnreachable:
        raise
    except (NotFit, HostError) as unfit:
        check = unfit.check if isinstance(unfit, NotFit) else f"host {ctx.host.name}"
        await ctx.once("preflight.failed", {"check": check, "reason": str(unfit)}, "outcome")
        return str(unfit)
    frameworks = ctx.spec["frameworks"]
    for name, framework in frameworks.items():
        problem = await _workspace(ctx, name, framework)
        if problem:
            failed = {"check": f"workspace {name}", "reason": problem}
            await ctx.once("preflight.failed", failed, "outcome")
            return problem
    for type_, payload in await _all(*(_probe(ctx, name, frameworks[name]) for name in frameworks)):
        await ctx.once(type_, payload, f"probe-{payload['framework']}")
    try:
        if not ctx.recorded("outcome"):
            harness = await asyncio.to_thread(harness_digest)
            await ctx.once("preflight.passed", {"host": facts, "harness": harness}, "outcome")
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
    if framework.get("checkout") is None:
        return await _installed(ctx, name, framework)
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


async def _installed(ctx: Context, name: str, framework: JSON) -> str:
    """Record what is installed, by the hashes that its installer recorded; return what is wrong with it."""
    driver = FRAMEWORKS[framework["kind"]]
    command = driver.command(framework.get("command"), framework["python"])
    ask = await _identity_command(ctx, driver, command)
    if ask:
        try:
            found = json.loads(await _ask(ctx, f"identity-{name}", framework, ask))
        except (_ProbeError, ValueError) as error:
            return f"{name}: what is installed cannot be told: {error}"
        if not found["package"]:
            return f"{name}: {found['error']}: install it, or set python or command to where it is"
    else:
        found = {"location": command[0], "version": "", "record_sha256": digest(command), "modified_count": 0}
    record = (found["record_sha256"] or "no-record")[:12]
    commit = found["vcs_commit"] if found.get("editable") else f"{found['version']}+{record}"
    checked = {"framework": name, "repo": found["location"], "commit": commit, "branch": found["version"]}
    clean = not found["modified_count"]
    await ctx.once("workspace.checked", {**checked, "clean": clean}, f"workspace-{name}")
    if not clean:
        edited = ", ".join(found["modified_files"][:3])
        count = found["modified_count"]
        return f"{name}: {count} installed files were edited ({edited}): reinstall it, or give a checkout"
    return ""


async def _identity_command(ctx: Context, driver: Framework, command: Sequence[str]) -> list[str]:
    if ctx.host.here:
        return identity_command(driver, command)
    python = await interpreter_there(ctx, command) if command and driver.packages else ""
    script = await ctx.host.place(SCRIPT.name, await asyncio.to_thread(SCRIPT.read_bytes)) if python else ""
    return identity_command(driver, command, python, script)


async def _probe(ctx: Context, name: str, framework: JSON) -> tuple[str, JSON]:
    """Capture version and help in the target environment: the event that says them, or why it is unsupported."""
    if known := ctx.recorded(f"probe-{name}"):
        return known.type, known.payload
    driver = FRAMEWORKS[framework["kind"]]
    command = driver.command(framework.get("command"), framework["python"])
    refusal = driver.unsupported(framework["options"])
    try:
        if refusal:
            raise _ProbeError(refusal)
        folder = await _folder(ctx, name, framework)
        python = None if ctx.host.here or not command else await interpreter_there(ctx, command)
        helps = driver.help_commands(command)
        version, *texts = await _all(
            _ask(ctx, f"version-{name}", framework, driver.version_command(command, python), folder),
            *(_ask_help(ctx, name, about, framework, argv, folder) for about, argv in helps.items()),
        )
    except _ProbeError as error:
        return "framework.unsupported", {"framework": name, "reason": str(error)}
    text = dict(zip(helps, texts, strict=True)).get("server", b"")
    probed = {
        "framework": name,
        "kind": framework["kind"],
        "version": (version.decode(errors="replace").strip().splitlines() or [""])[-1],
        "commit": ctx.c.workspaces[name]["commit"],
        "help": await ctx.keep(text, f"help/{name}.txt"),
        "flags": parse_help(text.decode(errors="replace")).names(),
    }
    return "framework.probed", probed


async def _all(*works: Awaitable[Result]) -> list[Result]:
    """Their results, when each has come to its end: nothing that one of them started runs on beside a measurement.

    Raises:
        Exception: that of the first of them that failed, in their order.
    """
    begun = [asyncio.ensure_future(work) for work in works]
    await asyncio.gather(*begun, return_exceptions=True)
    return [each.result() for each in begun]


class _ProbeError(Exception):
    """A framework could not say its help or version."""


async def _folder(ctx: Context, name: str, framework: JSON) -> str:
    """Where the framework's commands run: in its checkout, or in a copy of its commit on another host."""
    if ctx.host.here or not framework.get("checkout"):
        return framework.get("checkout") or "/"
    return await checkout(ctx, name, ctx.c.workspaces[name]["commit"])


async def _ask_help(ctx: Context, name: str, about: str, framework: JSON, argv: Sequence[str], folder: str) -> bytes:
    """The help of the server or of its benchmark client, for the record and for the flags; empty when it fails.

    A server without a help is not given up here: a missing one fails to say its version too.
    """
    try:
        text = await _ask(ctx, f"help-{name}-{about}", framework, argv, folder)
    except _ProbeError:
        return b""
    if about != "server":
        await ctx.keep(text, f"help/{name}-{about}.txt")
    return text


async def _ask(ctx: Context, run: str, framework: JSON, argv: Sequence[str], cwd: str = "/") -> bytes:
    """What a command of the framework prints in its own environment; nothing where there is no command."""
    if not argv:
        return b""
    script = argv[1].rpartition("/")[0] if len(argv) > 1 else ""  # a file of ours, where it is one
    spec = ctx.command(tuple(argv), timeout_s=HELP_TIMEOUT_S, cwd=cwd, **environment(framework))
    folders = [place for place in (cwd, script) if place.startswith("/") and place != "/"]
    try:
        status = await ctx.run(run, await ctx.serving(run, spec, *folders))
    except RunLost as lost:
        raise _ProbeError(str(lost)) from None
    if not status.succeeded:
        end = status.message or f"exit code {status.exit_code}"
        raise _ProbeError(f"{' '.join(argv)}: {end}: {await ctx.tail(run)}")
    return await ctx.output(run)
