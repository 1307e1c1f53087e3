"""One serving process: its command, its start, its readiness, its end."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

import aiohttp

from sotad.activities import gpu_watch
from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.engine_caches import EngineCaches, engine_caches
from sotad.activities.guard import guarded
from sotad.activities.worktrees import checkout
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.base import HOST, PORT
from sotad.frameworks.help import Help, parse_help
from sotad.frameworks.render import Rendered, Value
from sotad.hosts.base import RunStatus
from statemachine import evidence
from statemachine.state import JSON

POLL_S = 0.05
STATUS_S = 0.5  # between two looks at the process of a starting server
OUTPUTS = ("traces",)  # what of its run a server writes; how the run ended is not its to say
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError)
PORT_TAKEN = "address already in use"  # EADDRINUSE in the words of strerror(3)


class ServerFailed(Exception):
    """The server did not come up, or died; ``status`` is failed, oom or timeout."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Command:
    """A rendered launch: argv with ``{port}`` and what became of the flags, the folder on the host, the variables."""

    framework: str
    rendered: Rendered
    cwd: str
    environment: JSON
    caches: EngineCaches = field(default_factory=EngineCaches)

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
    caches = engine_caches(ctx, framework, commit)
    return Command(framework, rendered, folder, {**caches.environment, **environment(spec)}, caches)


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
        """The server's address for what runs beside it, on its host."""
        return f"http://{HOST}:{self.port}"

    async def reach(self) -> str:
        """Its address for the daemon."""
        return await self.ctx.host.forward(self.port)

    @property
    def model(self) -> str:
        """The model's name in requests."""
        return FRAMEWORKS[self.kind].served_model(self.ctx.spec["model"])

    @classmethod
    async def start(cls, ctx: Context, kind: str, command: Command, name: str = "server") -> Server:
        """Start it, or find the one that an earlier entry started."""
        port = await _port(ctx, name)
        argv = tuple(part.replace(PORT, str(port)) for part in command.argv)
        own = [command.caches.folder] if command.caches.folder else []
        writable = [*(ctx.path(name, part) for part in OUTPUTS), *own]
        within = guarded(ctx, command.framework, argv, readable=[command.cwd], writable=writable)
        lifetime = ctx.spec["budget"]["job_s"]
        spec = ctx.command(within, timeout_s=lifetime, cwd=command.cwd, **command.environment)
        spec = replace(spec, grace_s=ctx.spec["budget"].get("grace_s", spec.grace_s))
        await ctx.start(name, await ctx.serving(name, spec, command.cwd, *own))
        return cls(ctx, kind, command, port, name)

    async def ready(self) -> float:
        """Wait until it answers; return the seconds since its start.

        Raises:
            ServerFailed: it ended first, or the time for it ran out.
            RunLost: it vanished.
        """
        limit = self.ctx.spec["budget"]["ready_s"]
        began_ns, looked = await self._began_ns(), 0.0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                if time.monotonic() - looked > STATUS_S:
                    await self.check()
                    looked = time.monotonic()
                elapsed = (self.ctx.journal.clock() - began_ns) / 1e9
                if await _healthy(session, await self.reach() + FRAMEWORKS[self.kind].ready_path):
                    await self.check()  # it was this server that answered
                    return elapsed
                if elapsed > limit:
                    raise ServerFailed("timeout", f"not ready after {limit:g} s: {await self.ctx.tail(self.name)}")
                await asyncio.sleep(POLL_S)

    async def _began_ns(self) -> int:
        """When it was started, by the daemon's clock."""
        started_ns = (await self.ctx.host.status(self.ctx.run_id(self.name))).started_ns
        if started_ns is None:
            return self.ctx.journal.clock()
        return started_ns - (await self.ctx.host.offset_ns())[0]

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
        """The text of an answer with status 200; empty otherwise.

        Raises:
            HostUnreachable: it was not the server that did not answer.
        """
        with suppress(*NO_ANSWER):
            return await _text(await self.reach() + path)
        await self.ctx.host.status(self.ctx.run_id(self.name))  # connects anew where the way to it was lost
        with suppress(*NO_ANSWER):
            return await _text(await self.reach() + path)
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
            if status.reason == "timeout":
                raise RunLost(f"{run} came to the end of its time, budget.job_s, before everything was measured")
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
    await gpu_watch.until_idle(ctx, name)
    server = await Server.start(ctx, target["kind"], await render_launch(ctx, ctx.c.target, commit, flags), name)
    await server.ready()
    await server.metrics()  # as before a measurement: nothing may tell the server which of the two follows
    return server


async def _port(ctx: Context, name: str) -> int:
    """The port of this attempt: chosen once, and found again by a later entry."""
    known = await ctx.find(name, "port", 16)
    if known is not None:
        return int(known)
    port = await ctx.host.free_port()
    await ctx.host.put(ctx.run_id(name), "port", str(port).encode())
    return port


async def _text(url: str) -> str:
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
        return await response.text() if response.status == 200 else ""


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except NO_ANSWER:
        return False


async def written(ctx: Context, name: str) -> bytes:
    """What a program of ours wrote that is told what to do and prints the digest of its output."""
    digest = (await ctx.output(name)).decode(errors="replace").strip()
    return await ctx.fetch(name, "out.json", digest)


def require(status: RunStatus, what: str, reason: str) -> None:
    """Raise ActivityFailed unless a run ended well."""
    if not status.succeeded:
        end = status.message or f"{status.reason}, exit code {status.exit_code}, signal {status.signal}"
        raise ActivityFailed(f"{what} failed ({end}): {reason}")
