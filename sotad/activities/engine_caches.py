"""Which folder of compiled code a launch gets, and how it is recorded; see docs/sweeps.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from sotad.activities.context import Context
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.caches import cache_folder, variables
from sotad.hosts.runs import FILES
from statemachine import caches
from statemachine.state import JSON

REMOVE = "import shutil, sys; shutil.rmtree(sys.argv[1], ignore_errors=True)"


@dataclass(frozen=True, slots=True)
class EngineCaches:
    """A folder on the host (empty: the engine keeps its caches where it likes) and the variables that lead there."""

    folder: str = ""
    shared: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    set_by_hand: tuple[str, ...] = ()

    def recorded(self, ctx: Context) -> JSON:
        """What ``candidate.launched`` and a row say of it: nothing where nothing is known."""
        if not self.folder:
            return {}
        launch = ctx.c.launches.get(ctx.job)
        if launch is not None and launch.attempt == ctx.attempt:
            return dict(launch.caches)
        state = caches.state_of(ctx.c, self.folder, ctx.params["candidate"])
        return {"state": state, "folder": self.folder, "set_by_hand": list(self.set_by_hand)}


def engine_caches(ctx: Context, framework: str, commit: str) -> EngineCaches:
    """The caches of a launch: those of its commit where launches share them, else an empty folder of its own."""
    spec = ctx.spec["frameworks"][framework]
    known, by_hand = FRAMEWORKS[spec["kind"]].caches, spec.get("env") or {}
    if not known or caches.reuse(ctx.c) == "engine":
        return EngineCaches()
    shared = ctx.params.get("purpose") is not None and caches.shares(ctx.c, ctx.params["purpose"])
    own = f"{_once(ctx)}/{framework}-{commit[:12]}"
    folder = cache_folder(root(ctx), framework, commit, ctx.spec["hardware"], ctx.c.host) if shared else own
    named = tuple(name for name in known if name in by_hand)
    return EngineCaches(folder, shared, variables(known, folder, by_hand), named)


def root(ctx: Context) -> str:
    """The campaign's own folder for compiled code, on the host."""
    configured = ctx.spec.get("caches", {}).get("folder")
    if configured:
        return f"{configured}/{ctx.campaign}"
    beside_runs = PurePosixPath(ctx.host.path(ctx.campaign)).with_name(FILES)  # where nobody looks for runs
    return str(beside_runs / "caches" / ctx.campaign)


def _once(ctx: Context) -> str:
    """What this attempt compiles for itself alone."""
    return f"{root(ctx)}/once/{ctx.job}-{ctx.attempt}"


async def discard(ctx: Context, framework: str) -> None:
    """Remove what this attempt compiled for itself: no other will use it, and it may take gigabytes."""
    if engine_caches(ctx, framework, "").folder.startswith(_once(ctx)):
        await ctx.run("caches-removed", ctx.python("-c", REMOVE, _once(ctx), timeout_s=300))
