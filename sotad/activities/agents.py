"""Asking an implementer or a reviewer: one process a call, watched while it runs, and its outcome on record."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ledger.artifacts import Artifacts
from sotad import sandbox, shim
from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.agents import TOOLS, Call, NoAnswer
from sotad.agents.accounts import ABOUT, ENDED, CallRun, is_over, read
from sotad.agents.answers import schema_of
from sotad.agents.call import Command, Usage
from sotad.agents.desk import HOME, clear, desk_of, everyday, place
from sotad.agents.examine import version_of
from sotad.agents.flags import BadTool
from sotad.agents.prompts import WRITES
from sotad.config.sections import Agent
from sotad.daemon.journal import Journal
from sotad.hosts.base import Host, RunSpec
from sotad.private import LOGINS, STORES, installed_in, private
from sotad.redact import redactor, scrubber
from statemachine.state import JSON

POLL_S = (0.05, 0.5)  # the first and the longest pause between two looks
SHARE_OF_JOB = 0.9  # of a job's time that an agent may take; what it did has to be judged too
LONGEST_ERROR = 500


async def ask_agent(
    ctx: Context, role: str, request: JSON, folder: Path, schema: JSON | None = None, readable: Sequence[Path] = ()
) -> JSON:
    """Have an agent answer a request in a folder: the one JSON object that it gave.

    ``role`` is implementer or reviewer, the name of the run too: one call an attempt. ``schema`` is the answer's;
    left out, that of the request's action. ``readable``: what it sees beside the folder, even in the daemon's state.

    Raises:
        ActivityFailed: it cannot be run, failed, was ended, or gave no single JSON object.
        RunLost: its process vanished.
    """
    run_id, agent = ctx.run_id(role), Agent.model_validate(ctx.spec[role])
    if (await ctx.host.status(run_id)).phase == "absent":
        await _begin(ctx, role, agent, request, folder, schema or schema_of(request), readable)
    run = await CallRun.find(ctx.host, run_id)
    if run is None:
        raise ActivityFailed(f"{run_id} is no call of this release: its {ABOUT} is missing")
    await _attend(ctx, role, run, agent.silence_s)
    finished = await finish(ctx.journal, ctx.artifacts, run)
    if finished is None or finished["outcome"] == "interrupted":
        raise RunLost(f"{run_id} is gone and left no outcome")
    if finished["outcome"] != "exited":
        raise ActivityFailed(await _failure(ctx, role, run, finished["outcome"]))
    desk, result = desk_of(ctx.host.path(run_id)), run.tool.result
    scrub = scrubber(os.environ, agent.env_from)
    try:
        answer = await run.answer()
    except NoAnswer as gave:
        await asyncio.to_thread(clear, desk, scrub, [HOME])
        raise ActivityFailed(f"the {role} left no JSON object: it gave {gave}") from None
    clean: JSON = redactor(os.environ, agent.env_from)(answer)  # its words go on record, and stay on the desk
    if result:
        await asyncio.to_thread(shim.write_atomically, desk / result, json.dumps(clean).encode())
    await asyncio.to_thread(clear, desk, scrub, [result])
    return clean


async def finish(journal: Journal, artifacts: Artifacts, run: CallRun) -> JSON | None:
    """The ``agent.finished`` of a call, recorded now unless it was before; None when it is not over."""
    campaign, _, rest = run.run_id.partition("/")
    job, attempt, role = rest.rsplit("/", 2)
    key = f"{campaign}/{job}/{attempt}/agent-{role}"
    known, status = journal.find(key), await run.host.status(run.run_id)
    if known is None and status.phase in ("exited", "lost"):
        payload = await run.account(artifacts, status)
        dispatched = journal.world.campaigns[campaign].jobs.get(job)
        cause = dispatched.seq if dispatched else None
        known = await journal.record(campaign, "agent.finished", payload, cause=cause, key=key)
        scrub = scrubber(os.environ, Agent.model_validate(journal.world.campaigns[campaign].spec[role]).env_from)
        kept = [HOME, *([run.tool.result] if payload["outcome"] == "exited" else [])]  # its answer is yet to be read
        await asyncio.to_thread(clear, desk_of(run.host.path(run.run_id)), scrub, kept)
    return dict(known.payload) if known else None


async def finish_all(journal: Journal, host: Host, artifacts: Artifacts, attempt: str) -> None:
    """Put on record every call of an attempt (``CAMPAIGN/JOB/N``) whose runs were ended from outside."""
    for run_id in await host.list_runs(f"{attempt}/"):
        if (run := await CallRun.find(host, run_id)) is not None:
            await finish(journal, artifacts, run)


# --- beginning ---------------------------------------------------------------------------------------------


async def _begin(
    ctx: Context, role: str, agent: Agent, request: JSON, folder: Path, schema: JSON, readable: Sequence[Path]
) -> None:
    """Lay out the desk and start the process."""
    tool, desk = TOOLS[agent.driver], desk_of(ctx.host.path(ctx.run_id(role)))
    earlier = await _earlier(ctx, role, agent.driver, folder)
    home = Path(agent.home or earlier.get("home") or desk / HOME)
    call = Call(
        role=role,
        folder=str(folder),
        desk=str(desk),
        schema=tool.schema(schema),
        argv=tuple(agent.argv),
        model=agent.model,
        effort=agent.effort,
        money_usd=agent.budget.money_usd,
        writes=request.get("action") in WRITES,
        resume=earlier.get("session", ""),
        confined=not _unconfined(agent),
    )
    await asyncio.to_thread(place, call, request, home)
    command = tool.command(call)
    environment = everyday(desk, home) | ctx.visible
    about = {
        "driver": agent.driver,
        "version": await _version(agent.driver, command, environment, str(desk)),
        "action": request.get("action", ""),
        "folder": str(folder),
        "home": str(home),
        "resume": call.resume,
        "before": earlier.get("before") or asdict(Usage()),
        "unconfined": _unconfined(agent),
        "budget": agent.budget.model_dump(),
    }
    spec = RunSpec(
        argv=_confined(ctx, call, command, [desk, home, *agent.writable], readable),
        cwd=str(folder),
        env=environment,
        secrets=tuple(agent.env_from),
        timeout_s=min(agent.timeout_s, SHARE_OF_JOB * float(ctx.spec["budget"]["job_s"])),
    )
    await ctx.start(role, spec, {ABOUT: json.dumps(about, sort_keys=True).encode()})


def _unconfined(agent: Agent) -> str:
    """Why the kernel does not bound the agent; empty when it does."""
    return "the campaign switched the sandbox off" if agent.sandbox == "off" else sandbox.available()


async def _earlier(ctx: Context, role: str, driver: str, folder: Path) -> JSON:
    """What of the try before this one can be gone on with: its session, its home, and what it had used.

    A session is gone on with once: whatever is wrong with it would be wrong for good.
    """
    run = await CallRun.find(ctx.host, f"{ctx.campaign}/{ctx.job}/{ctx.attempt - 1}/{role}")
    if run is None or run.about["driver"] != driver or run.about["resume"] or not run.tool.resumes:
        return {}
    said, here = await run.said(), run.tool.moves or run.about["folder"] == str(folder)
    if not said.session or not here:
        return {}
    used = said.total if run.tool.counts_sessions else Usage()
    return {"session": said.session, "home": run.about["home"], "before": asdict(used)}


async def _version(driver: str, command: Command, environment: dict[str, str], folder: str) -> str:
    """Raises: ActivityFailed when the tool is not there, or lacks a flag."""
    try:
        return await version_of(driver, command, environment, folder)
    except BadTool as error:
        raise ActivityFailed(str(error)) from None


def _confined(
    ctx: Context, call: Call, command: Command, writable: list[Path], readable: Sequence[Path] = ()
) -> tuple[str, ...]:
    """The command with its input, in our sandbox: of the daemon's state it sees its folder, perhaps to read only.

    Of the user's logins it sees those in ``home`` and ``writable``: whoever names these lends them.

    Raises:
        ActivityFailed: what it may write to holds the daemon's state.
    """
    argv = _fed(command, call)
    if not call.confined:
        return argv
    folder = Path(call.folder)
    places = [*writable, folder] if call.writes else writable
    logins = private(Path.home(), (*LOGINS, *STORES), [*writable, folder])
    shown = [folder, *readable, *installed_in(logins, command.argv[0])]
    try:
        return sandbox.confined(argv, writable=places, readable=shown, hidden=[ctx.state_dir, *logins])
    except ValueError as error:
        raise ActivityFailed(f"home and writable of the {call.role}: {error}") from None


def _fed(command: Command, call: Call) -> tuple[str, ...]:
    """The command with its standard input from the desk: a prompt may be longer than an argument."""
    if not command.stdin:
        return command.argv
    return ("/bin/sh", "-c", 'exec < "$0" && exec "$@"', call.on_desk(command.stdin), *command.argv)


# --- watching ----------------------------------------------------------------------------------------------


async def _attend(ctx: Context, role: str, run: CallRun, silence_s: float | None) -> None:
    """Wait until the call is over; end it when it goes silent or has used more than it may."""
    listener, complaints, last = run.listener(), 0, time.monotonic()
    patience = silence_s or run.tool.silence_s
    pause, longest = POLL_S
    while True:
        status = await ctx.host.status(run.run_id)
        before = listener.read + complaints
        await run.catch_up(listener)
        complaints += len(await read(ctx.host, run.run_id, "stderr.log", complaints))
        if status.over:
            return
        if listener.read + complaints > before:
            last = time.monotonic()
        silent = patience is not None and time.monotonic() - last > patience
        if silent or is_over(listener.said, run.budget):
            await asyncio.to_thread(Path(ctx.path(role, ENDED)).write_text, "silent" if silent else "over budget")
            await ctx.stop(role)
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


async def _failure(ctx: Context, role: str, run: CallRun, outcome: str) -> str:
    """Why there is no answer, in the tool's own words where it has any."""
    status = await ctx.host.status(run.run_id)
    end = status.message or f"{status.reason}, exit code {status.exit_code}, signal {status.signal}"
    said = (await run.said()).error[:LONGEST_ERROR] or await ctx.tail(role) or "it said nothing"
    return f"the {role} failed ({end if outcome == 'failed' else outcome}): {said}"
