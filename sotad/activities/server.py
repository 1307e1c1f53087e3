"""One serving process: its command, its start, its readiness, its end."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.guard import guarded
from sotad.activities.worktrees import checkout
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.base import PORT
from sotad.frameworks.help import Help, parse_help
from sotad.frameworks.render import Rendered, Value
from sotad.hosts.base import HostError, RunStatus
from sotad.hosts.local import free_port
from statemachine import evidence
from statemachine.state import JSON

POLL_S = 0.05
OUTPUTS = ("traces",)  # what of its run a server writes; how the run ended is not its to say
PORT_TAKEN = "address already in use"  # EADDRINUSE in the words of strerror(3)


class ServerFailed(Exception):
    """The server did not come up, or died; ``status`` is failed, oom or timeout."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Command:
    """A rendered launch: argv with ``{port}`` and what became of the flags, the folder to run in, the variables."""

    framework: str
    rendered: Rendered
    cwd: Path
    environment: JSON

    @property
    def argv(self) -> list[str]:
        return self.rendered.argv


async def render_launch(ctx: Context, framework: str, commit: str, flags: dict[str, Value]) -> Command:
    """The command for a candidate: fixed options, then its flags; what the help does not know is left out.

    Raises:
        BadFlag: the server would refuse a flag's value.
    """
    spec = ctx.spec["frameworks"][framework]
    driver = FRAMEWORKS[spec["kind"]]
    help = await target_help(ctx, framework)
    command = driver.command(spec.get("command"), spec["python"])
    rendered = driver.launch(command, ctx.spec["model"], {**spec["options"], **flags}, help)
    folder = await checkout(ctx, framework, commit)
    return Command(framework, rendered, folder, environment(spec))


def environment(framework: JSON) -> JSON:
    """What a framework's commands see beside the everyday variables, as arguments of ``Context.command``.

    Bytecode written into a checkout would make it look changed; an installed package starts slowly without it.
    """
    clean = {"PYTHONDONTWRITEBYTECODE": "1"} if framework.get("checkout") else {}
    return {**clean, **(framework.get("env") or {}), "secrets": tuple(framework.get("env_from") or ())}


async def target_help(ctx: Context, framework: str) -> Help:
    """What the target environment's help said at intake."""
    text = await asyncio.to_thread(ctx.artifacts.read, ctx.c.probes[framework]["help"]["sha256"])
    return parse_help(text.decode(errors="replace"))


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

    @property
    def model(self) -> str:
        """The model's name in requests."""
        return FRAMEWORKS[self.kind].served_model(self.ctx.spec["model"])

    @classmethod
    async def start(cls, ctx: Context, kind: str, command: Command, name: str = "server") -> Server:
        """Start it, or find the one that an earlier entry started."""
        port = await _port(ctx, name)
        argv = tuple(part.replace(PORT, str(port)) for part in command.argv)
        within = guarded(
            ctx, command.framework, argv, readable=[command.cwd], writable=[ctx.path(name, part) for part in OUTPUTS]
        )
        lifetime = ctx.spec["budget"]["job_s"]
        spec = ctx.command(within, timeout_s=lifetime, cwd=str(command.cwd), **command.environment)
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
                if await _healthy(session, self.url + FRAMEWORKS[self.kind].ready_path):
                    return elapsed
                if elapsed > limit:
                    raise ServerFailed("timeout", f"not ready after {limit:g} s: {await self.ctx.tail(self.name)}")
                await asyncio.sleep(POLL_S)

    async def metrics(self) -> str:
        """What it tells of itself in the Prometheus format; empty when it does not."""
        return await self._get(FRAMEWORKS[self.kind].metrics_path)

    async def info(self) -> JSON:
        """Its own description of how it serves; empty where it has none."""
        for path in FRAMEWORKS[self.kind].info_paths:
            with suppress(ValueError):
                found = json.loads(await self._get(path) or "null")
                if isinstance(found, dict):
                    return found
        return {}

    async def _get(self, path: str) -> str:
        """The text of an answer with status 200; empty otherwise."""
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self.url + path) as response:
                return await response.text() if response.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
            return ""

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
            log = (await self.log()).decode(errors="replace")
            if PORT_TAKEN in log.lower():
                raise RunLost(f"port {self.port} was taken by another program before {run} could listen")
            end = status.message or f"exit code {status.exit_code}, signal {status.signal}"
            failure = FRAMEWORKS[self.kind].failure(log)
            why = failure.line or await self.ctx.tail(self.name)
            raise ServerFailed(failure.status, f"server ended: {end}: {why}"[:2000])

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
        return await self.ctx.keep(await self.log(), f"logs/{self.ctx.job}.log")

    async def log(self) -> bytes:
        """Everything it printed: some log to stdout, some to stderr."""
        return await self.ctx.output(self.name) + await self.ctx.output(self.name, "stderr.log")


async def serve_target(ctx: Context, commit: str, name: str) -> Server:
    """The target at a commit, as the first scenario's candidate, up and answering.

    Raises:
        ServerFailed: it did not come up.
    """
    target = ctx.spec["frameworks"][ctx.c.target]
    candidate = evidence.target_candidate(ctx.c, ctx.c.scenarios[0])
    flags = next(entry["flags"] for entry in target["candidates"] if entry["id"] == candidate)
    server = await Server.start(ctx, target["kind"], await render_launch(ctx, ctx.c.target, commit, flags), name)
    await server.ready()
    await server.metrics()  # as before a measurement: nothing may tell the server which of the two follows
    return server


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
