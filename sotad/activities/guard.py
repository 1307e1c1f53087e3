"""What a patch's code may do where it runs: serve and be tested, not look behind the measurement or change it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sotad import sandbox
from sotad.activities.context import Context
from sotad.harness import PACKAGES
from sotad.private import LOGINS, private
from sotad.there.guard import environments
from statemachine.state import JSON


def guarded(
    ctx: Context, framework: str, argv: tuple[str, ...], *, writable: Sequence[str], readable: Sequence[str] = ()
) -> tuple[str, ...]:
    """The command of a framework, in the sandbox when what it runs may be a patch; see docs/gates.md.

    Folders of ``writable`` are made when they are missing.
    """
    if not _may_be_patched(ctx.spec, framework) or ctx.tools.container:  # which holds it: it sees what is mounted
        return argv
    if not ctx.host.here:
        return _guarded_there(ctx, argv, writable, readable)
    if sandbox.available():
        return argv
    own, seen = list(map(Path, writable)), list(map(Path, readable))
    for folder in own:
        folder.mkdir(parents=True, exist_ok=True)
    return sandbox.guarded(
        argv,
        hidden=[ctx.state_dir, *private(Path.home(), LOGINS, [*own, *seen])],
        protected=protected(ctx),
        writable=own,
        readable=seen,
    )


def _may_be_patched(spec: JSON, framework: str) -> bool:
    about = spec["frameworks"][framework]
    return bool(about["role"] == "target" and about.get("checkout") and spec["implementer"]["sandbox"] == "auto")


def _guarded_there(
    ctx: Context, argv: tuple[str, ...], writable: Sequence[str], readable: Sequence[str]
) -> tuple[str, ...]:
    """The same on another host, which resolves the paths itself; of our root there nothing else is seen."""
    limits = {
        "writable": list(writable),
        "readable": list(readable),
        "hidden": [str(PurePosixPath(ctx.tools.files).parent)],
        "protected": [str(path) for path in _of_the_model(ctx.spec)] + [str(path) for path in _all_installed(ctx)],
        "programs": [program for framework in ctx.spec["frameworks"].values() for program in _programs(framework)],
    }
    return ctx.tools.program("sotad.there.guard", json.dumps(limits, sort_keys=True), "--", *argv)


def protected(ctx: Context) -> list[Path]:
    """All that is measured with or against: checkouts, environments, the model's files, the dataset, our own code."""
    spec = ctx.spec
    places = [Path(sys.prefix), *(Path(str(package.__file__)).parent for package in PACKAGES), *_all_installed(ctx)]
    for framework in spec["frameworks"].values():
        places += [Path(framework["checkout"])] if framework.get("checkout") else []
        places += environments(_programs(framework))
    dataset = spec["workload"].get("dataset")
    places += [*_of_the_model(spec), *([Path(dataset)] if dataset else [])]
    return [place for place in places if place != Path("/")]


def _of_the_model(spec: JSON) -> list[Path]:
    named = (spec["model"]["id"], spec["model"].get("tokenizer"))
    return [Path(path) for path in named if path and Path(path).is_absolute()]


def _all_installed(ctx: Context) -> list[Path]:
    """Where the code of installed frameworks was found at intake."""
    without = [name for name, framework in ctx.spec["frameworks"].items() if not framework.get("checkout")]
    found = [Path(ctx.c.workspaces.get(name, {}).get("repo", "")) for name in without]
    return [place for place in found if place.is_absolute()]


def _programs(framework: JSON) -> list[str]:
    """The programs that a framework's commands are."""
    return [framework["python"], *(framework.get("command") or [])[:1]]
