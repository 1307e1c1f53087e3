"""What has to be known of a host that is not the daemon's own machine, before anything is measured there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sotad.activities.context import Context, RunLost
from sotad.activities.toolbox import MEASURING
from sotad.activities.traffic import model_files
from sotad.frameworks.interpreter import is_python, shebang
from sotad.hosts.base import RunStatus, clock_problem
from statemachine.state import JSON

IMPORTS = "import sotad.loadgen.program, sotad.benchmark.equivalence, sotad.capture.session"
TOOLS_S, SURVEY_S = 120.0, 60.0
OLDEST = (3, 9)


class NotFit(Exception):
    """The host cannot be measured on; ``check`` names what is wrong, the text says what to do."""

    def __init__(self, check: str, reason: str) -> None:
        super().__init__(reason)
        self.check = check


async def fitness(ctx: Context) -> JSON:
    """What goes on record about the host: what it is, its clock, and copies of the model's files there.

    Raises:
        NotFit: its clock is far off, or our programs cannot run there.
    """
    facts = await ctx.host.probe()
    _require_python(ctx, facts["python"])
    offset, uncertainty = await ctx.host.offset_ns()
    await _note_clock(ctx, offset, uncertainty)
    await _require_tools(ctx)
    found = await survey(ctx)
    return {
        **facts,
        "name": ctx.host.name,
        "clock_offset_ms": round(offset / 1e6, 3),
        "clock_uncertainty_ms": round(uncertainty / 1e6, 3),
        "model_files": {name: await _copied(ctx, name, about) for name, about in found["files"].items()},
    }


def _require_python(ctx: Context, version: str) -> None:
    """Raises: NotFit for an interpreter that is too old for the programs of ``sotad.there``."""
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise NotFit(
            "python", f"{ctx.tools.plain} on {ctx.host.name} is {version}: set python to {oldest} or later there"
        )


async def _note_clock(ctx: Context, offset_ns: int, uncertainty_ns: int) -> None:
    """Put a clock that is off on record. What is measured are durations on that clock alone, but its records mislead.

    Raises:
        NotFit: it is off by more than the host's definition allows.
    """
    problem = clock_problem(ctx.host.name, offset_ns, uncertainty_ns)
    if abs(offset_ns) > ctx.tools.max_clock_offset_s * 1e9:
        raise NotFit("clock", f"{problem}, or allow more with max_clock_offset_s in the host's definition")
    if problem:
        await ctx.once("note.recorded", {"text": problem}, "clock")


async def _require_tools(ctx: Context) -> None:
    """Raises: NotFit when the interpreter lacks what our programs import, or is too old for them."""
    status = await ctx.run("tools", ctx.python("-c", IMPORTS, timeout_s=TOOLS_S))
    if not status.succeeded:
        raise NotFit(
            "tools",
            f"the load generator does not run on {ctx.host.name} under {ctx.tools.python}: {await _why(ctx, status)}: "
            f"set tools in the host's definition to {MEASURING}",
        )


async def _why(ctx: Context, status: RunStatus) -> str:
    return status.message or await ctx.tail("tools", lines=1) or f"exit code {status.exit_code}"


async def survey(ctx: Context) -> JSON:
    """What the commands of the campaign are on the host, and which files its model has there; asked once a try."""
    commands = [framework.get("command") or [] for framework in ctx.spec["frameworks"].values()]
    programs = sorted({command[0] for command in commands if command})
    asked = json.dumps({"programs": programs, "files": model_files(ctx.spec)}).encode()
    program = ctx.program("sotad.there.survey", "asked.json", timeout_s=SURVEY_S, cwd=ctx.path("survey"))
    status = await ctx.run("survey", program, {"asked.json": asked})
    if not status.succeeded:
        raise RunLost(f"{ctx.host.name} could not be looked at: {await ctx.tail('survey')}")
    found: JSON = json.loads(await ctx.output("survey"))
    return found


async def interpreter_there(ctx: Context, command: Sequence[str]) -> str:
    """The Python that a command runs under on the host; empty when it is none."""
    if is_python(command[0]):
        return command[0]
    known = (await survey(ctx))["programs"].get(command[0])
    return shebang(known["head"]) if known else ""


async def _copied(ctx: Context, name: str, about: JSON) -> JSON:
    """A file of the model as an artifact, to the byte: what is made of it must be the same here and there."""
    data = await ctx.fetch("survey", name, about["sha256"])
    return {**about, **await asyncio.to_thread(_stored, ctx, data)}


def _stored(ctx: Context, data: bytes) -> JSON:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "file"
        place.write_bytes(data)
        return ctx.artifacts.put_file(place)
