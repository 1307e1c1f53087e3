"""What a patch's code may do where it runs: serve and be tested, not look behind the measurement or change it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sotad.activities.context import Context
from sotad.agents import sandbox
from sotad.agents.private import LOGINS, private
from sotad.harness import PACKAGES
from statemachine.state import JSON


def guarded(
    ctx: Context, framework: str, argv: tuple[str, ...], *, writable: Sequence[Path], readable: Sequence[Path] = ()
) -> tuple[str, ...]:
    """The command of a framework, in the sandbox when what it runs may be a patch; see docs/gates.md.

    Folders of ``writable`` are made when they are missing.
    """
    if not _is_patched(ctx, framework):
        return argv
    for folder in writable:
        folder.mkdir(parents=True, exist_ok=True)
    return sandbox.guarded(
        argv,
        hidden=[ctx.state_dir, *private(Path.home(), LOGINS, [*writable, *readable])],
        protected=protected(ctx),
        writable=writable,
        readable=readable,
    )


def _is_patched(ctx: Context, framework: str) -> bool:
    spec = ctx.spec["frameworks"][framework]
    wanted = spec["role"] == "target" and spec.get("checkout") and ctx.spec["implementer"]["sandbox"] == "auto"
    return bool(wanted) and not sandbox.available()


def protected(ctx: Context) -> list[Path]:
    """All that is measured with or against: checkouts, environments, the model's files, the dataset, our own code."""
    spec = ctx.spec
    places = [Path(sys.prefix), *(Path(str(package.__file__)).parent for package in PACKAGES)]
    for name, framework in spec["frameworks"].items():
        places += [Path(framework["checkout"])] if framework.get("checkout") else _installed(ctx, name)
        places += _environment(framework)
    named = (spec["workload"].get("dataset"), spec["model"]["id"], spec["model"].get("tokenizer"))
    places += [Path(path) for path in named if path and Path(path).is_absolute()]
    return [place for place in places if place != Path("/")]


def _installed(ctx: Context, name: str) -> list[Path]:
    """Where an installed framework's code was found at intake."""
    found = Path(ctx.c.workspaces.get(name, {}).get("repo", ""))
    return [found] if found.is_absolute() else []


def _environment(framework: JSON) -> list[Path]:
    """The virtual environments that a framework's commands come from."""
    programs = [Path(framework["python"]), *map(Path, (framework.get("command") or [])[:1])]
    folders = [program.parent.parent for program in programs if program.is_absolute()]
    return [folder for folder in folders if (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir()]
