"""One serving process: its command, its start, its readiness, its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.worktrees import checkout
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.base import PORT, Value, split_known
from sotad.hosts.base import HostError, RunStatus
from sotad.hosts.local import free_port
from statemachine.state import JSON

POLL_S = 0.05
PORT_TAKEN = "address already in use"  # EADDRINUSE in the words of strerror(3)


class ServerFailed(Exception):
    """The server did not come up, or died; ``status`` is failed, oom or timeout."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Command:
    """A rendered launch: argv with ``{port}``, the checkout at the commit, and the flags left out."""

    argv: list[str]
    cwd: Path
    dropped: list[str]


async def render_launch(ctx: Context, framework: str, commit: str, flags: dict[str, Value]) -> Command:
    """The command for a candidate: fixed options, then its flags; what the help does not know is left out."""
    spec = ctx.spec["frameworks"][framework]
    kept, dropped = split_known({**spec["options"], **flags}, ctx.c.probes[framework]["flags"])
    driver = FRAMEWORKS[spec["kind"]]
    argv = driver.launch_command(spec["python"] or "python3", ctx.spec["model"], kept)
    return Command(argv, await checkout(ctx, framework, commit), dropped)


@dataclass(slots=True)
class Server:
    """A launched server of this attempt; ``name`` is its run."""

    ctx: Context
    kind: str
    command: Command
    port: int
    name: str = "server"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    async def start(cls, ctx: Context, kind: str, command: Command, name: str = "server") -> Server:
        """Start it, or find the one that an earlier entry started."""
        port = await _port(ctx, name)
        argv = tuple(part.replace(PORT, str(port)) for part in command.argv)
        lifetime = ctx.spec["budget"]["job_s"]
        spec = ctx.command(argv, timeout_s=lifetime, cwd=str(command.cwd), PYTHONDONTWRITEBYTECODE="1")
        await ctx.start(name, spec)
        return cls(ctx, kind, command, port, name)

    async def ready(self) -> float:
        """Wait until it answers; return the seconds since its start.

        Raises:
            ServerFailed: it ended first, or the time for it ran out.
            RunLost: it vanished.
        """
        limit = self.ctx.spec["budget"]["ready_s"]
        run = self.ctx.run_id(self.name)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                status = await self.ctx.host.status(run)
                await self.check(status)
                now = self.ctx.journal.clock()
                elapsed = (now - (status.started_ns or now)) / 1e9
                if await _healthy(session, f"{self.url}/health"):
                    return elapsed
                if elapsed > limit:
                    raise ServerFailed("timeout", f"not ready after {limit:g} s: {await self.ctx.tail(self.name)}")
                await asyncio.sleep(POLL_S)

    async def was_stopped(self) -> bool:
        """Whether we ended it, and it did not end by itself."""
        return (await self.ctx.host.status(self.ctx.run_id(self.name))).reason == "stopped"

    async def check(self, status: RunStatus | None = None) -> None:
        """Raise ServerFailed when it has ended; RunLost when that says nothing about the candidate."""
        run = self.ctx.run_id(self.name)
        status = status or await self.ctx.host.status(run)
        if status.phase == "lost":
            raise RunLost(f"{run} is gone and left no outcome")
        if status.phase == "exited":
            if status.reason == "stopped":
                raise RunLost(f"{run} was stopped before everything was measured")
            log = (await self.ctx.output(self.name, "stderr.log")).decode(errors="replace")
            if PORT_TAKEN in log.lower():
                raise RunLost(f"port {self.port} was taken by another program before {run} could listen")
            end = status.message or f"exit code {status.exit_code}, signal {status.signal}"
            kind = FRAMEWORKS[self.kind].failure_status(log)
            raise ServerFailed(kind, f"server ended: {end}: {await self.ctx.tail(self.name)}"[:2000])

    async def while_running(self, name: str) -> RunStatus:
        """Wait for another run of this attempt, but no longer than the server lives."""
        other = asyncio.ensure_future(self.ctx.host.wait(self.ctx.run_id(name), self.ctx.remaining_s))
        mine = asyncio.ensure_future(self.ctx.host.wait(self.ctx.run_id(self.name), self.ctx.remaining_s))
        try:
            await asyncio.wait({other, mine}, return_when=asyncio.FIRST_COMPLETED)
            if not other.done():
                await self.ctx.stop(name)
                await self.check()
            return await other
        finally:
            for waiting in (other, mine):
                waiting.cancel()
            await asyncio.gather(other, mine, return_exceptions=True)

    async def stop(self) -> JSON:
        """End it; return its log as an artifact."""
        await self.ctx.stop(self.name)
        log = await self.ctx.output(self.name, "stderr.log")
        return await self.ctx.keep(log, f"logs/{self.ctx.job}.log")


async def _port(ctx: Context, name: str) -> int:
    """The port of this attempt: chosen once, and found again by a later entry."""
    try:
        return int(await ctx.output(name, "port", 16))
    except HostError:  # there is no such file yet
        port = free_port()
        await ctx.host.put(ctx.run_id(name), "port", str(port).encode())
        return port


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def require(status: RunStatus, what: str, reason: str) -> None:
    """Raise ActivityFailed unless a run ended well."""
    if not status.succeeded:
        end = status.message or f"{status.reason}, exit code {status.exit_code}, signal {status.signal}"
        raise ActivityFailed(f"{what} failed ({end}): {reason}")
