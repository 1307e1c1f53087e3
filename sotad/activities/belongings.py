"""What a campaign has on its host: its folders, what its servers download, and the question what is there now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sotad.activities.context import Context, RunLost
from sotad.activities.workspace import workspaces
from sotad.there import belongings
from statemachine.state import JSON, Campaign

LOOK_S = 600.0  # a cache may hold a million files
RECORD = "the record of its runs"
MODELS = "models--"  # how folders of the Hugging Face hub begin
HUB = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")


async def ask(ctx: Context, name: str, **request: object) -> JSON:
    """The answer of `sotad.there.belongings` about this campaign; ``request`` is what that file says.

    Raises:
        RunLost: there was none.
    """
    asked = {"runs": ctx.host.path(ctx.campaign), **request}
    command = ctx.program("sotad.there.belongings", "request.json", timeout_s=LOOK_S, cwd=ctx.path(name))
    status = await ctx.run(name, command, {"request.json": json.dumps(asked, sort_keys=True).encode()})
    try:
        found: JSON = json.loads(await ctx.output(name, limit=1 << 26))
    except ValueError:
        raise RunLost(f"{name}: exit code {status.exit_code}: {await ctx.tail(name)}") from None
    return found


async def ask_home(ctx: Context, **request: object) -> JSON:
    """The answer about the daemon's own machine where that is another one, and nothing where it is not."""
    home = ctx.at_home()
    if home is ctx:
        return {"processes": [], "folders": [], "problems": []}
    runs = home.host.path(ctx.campaign)
    return await asyncio.to_thread(belongings.answer, {"runs": runs, "folders": [runs], **request})


def here(ctx: Context) -> list[Path]:
    """The campaign's folders in the state directory that hold no result of it."""
    return [ctx.state_dir / "worktrees" / ctx.campaign, workspaces(ctx)]


async def measured_here(ctx: Context, *, remove: bool = False) -> tuple[list[JSON], list[str]]:
    """What these folders hold, after they were removed when that is asked for, and why one could not be."""

    def work() -> tuple[list[JSON], list[str]]:
        problems = [belongings.remove(folder) for folder in here(ctx)] if remove else []
        found = [{"path": str(folder), **belongings.measured(folder)} for folder in here(ctx)]
        return found, [problem for problem in problems if problem]

    return await asyncio.to_thread(work)


# --- downloads ----------------------------------------------------------------------------------------------


async def list_downloads(ctx: Context) -> None:
    """Record, before anything is served, which of the models' places in the download caches are empty still."""
    places = sorted(set(download_places(ctx.spec)))
    if places and not ctx.c.downloads:
        found = (await ask(ctx, "downloads", folders=places))["folders"]
        listed = [{"path": each["path"], "there": each["there"]} for each in found]
        await ctx.once("downloads.listed", {"folders": listed})


def download_places(spec: JSON) -> Iterator[str]:
    """Where the Hugging Face hub keeps the model and its tokenizer, for every framework that would fetch them.

    A place that a variable names whose value is not recorded is nobody's business here.
    """
    names = {name for name in (spec["model"]["id"], spec["model"].get("tokenizer")) if name and _is_hub_id(name)}
    for framework in spec["frameworks"].values():
        if framework["kind"] != "reference" and (hub := _hub(framework)):
            yield from (f"{hub}/{MODELS}{name.replace('/', '--')}" for name in names)


def _is_hub_id(name: str) -> bool:
    """As the hub has them: at most an owner and a name, and no path."""
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1


def _hub(framework: JSON) -> str:
    env: Mapping[str, str] = framework.get("env") or {}
    if {*HUB, "HF_HOME", "XDG_CACHE_HOME"} & set(framework.get("env_from") or ()):
        return ""
    for name in HUB:
        if env.get(name):
            return env[name]
    home = env.get("HF_HOME") or f"{env.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return f"{home}/hub"


def _beside(c: Campaign, spec: JSON) -> bool:
    """Whether a campaign is yet to be served on the same host."""
    return c.phase != "closed" and bool(c.spec["hardware"]["host"] == spec["hardware"]["host"])


def downloaded(ctx: Context, found: Sequence[JSON]) -> tuple[list[str], dict[str, str]]:
    """Places that the campaign filled and that are to be removed, and why other filled ones are kept, by path."""
    absent = {each["path"] for each in ctx.c.downloads if not each["there"]}
    filled = [each["path"] for each in found if each["there"] and each["path"] in absent]
    if ctx.spec.get("cleanup", {}).get("downloads") != "remove":
        return [], dict.fromkeys(filled, "kept: cleanup.downloads")
    others = [c for c in ctx.journal.world.campaigns.values() if c.id != ctx.campaign and _beside(c, ctx.spec)]
    shared = {place: c.id for c in others for place in download_places(c.spec)}
    kept = {place: f"kept: campaign {shared[place]} uses it" for place in filled if place in shared}
    return [place for place in filled if place not in kept], kept
