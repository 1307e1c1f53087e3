"""Profiles of both sides at the slow scenario's shape, and what explains the difference."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp

from sotad.activities.context import ActivityFailed, Context
from sotad.activities.server import Server, ServerFailed, render_launch, require
from sotad.activities.traffic import load_spec
from sotad.analysis.explain import statement
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.help import Help
from sotad.hosts.base import HostError
from statemachine.state import JSON

PROFILE_SEED = 77
NOTE = "note"  # a folder beside the runs


async def profile(ctx: Context) -> str:
    """Capture one side: same commit and flags as compared, every step of one pass of the slow scenario.

    Raises:
        ActivityFailed: no usable trace; the reason is on record as profile.rejected.
    """
    p = ctx.params
    artifact = await _noted(ctx) or await _profile(ctx)
    await ctx.stop("server")
    known = {key: p[key] for key in ("side", "framework", "commit")}
    await ctx.once("profile.captured", {**known, "round": ctx.c.round, "trace": artifact}, "captured")
    return str(artifact["sha256"])


async def _noted(ctx: Context) -> JSON | None:
    """The trace that an earlier entry kept, when it came that far."""
    try:
        found: JSON = json.loads(await ctx.output(NOTE, "trace.json"))
    except HostError:  # there is no such file
        return None
    return found


async def _profile(ctx: Context) -> JSON:
    """Capture, keep the trace, and note that this is done."""
    p = ctx.params
    kind = ctx.spec["frameworks"][p["framework"]]["kind"]
    folder = Path(ctx.host.path(ctx.run_id("server"))) / "traces"
    how = FRAMEWORKS[kind].profiler(str(folder), Help({}))
    flags = {**p["flags"], **(how.flags if how else {})}
    server = await Server.start(ctx, kind, await render_launch(ctx, p["framework"], p["commit"], flags))
    try:
        await server.ready()
        trace = await _capture(ctx, server, p["scenario"])
    except (ServerFailed, ActivityFailed, aiohttp.ClientError, TimeoutError) as error:
        rejected = {"round": ctx.c.round, "side": p["side"], "reason": str(error)}
        await ctx.once("profile.rejected", rejected, "rejected")
        raise ActivityFailed(f"profile of the {p['side']}: {error}") from None
    artifact = await ctx.keep(trace.read_bytes(), f"profiles/{p['side']}-r{ctx.c.round}{''.join(trace.suffixes[-2:])}")
    await ctx.host.put(ctx.run_id(NOTE), "trace.json", json.dumps(artifact).encode())
    return artifact


async def _capture(ctx: Context, server: Server, scenario: str) -> Path:
    """Warm up, then one traced pass of the scenario; unique prompts, so that no cache hides the prefill.

    Load generator and capture outlive a daemon: a pass that an earlier entry began is waited for, not repeated.
    """
    begun = (await ctx.host.status(ctx.run_id("traced"))).phase != "absent"
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=False) as session:
        if not begun:
            await _pass(ctx, server, scenario, "warmup", PROFILE_SEED + ctx.attempt * 1000)
            await _post(session, f"{server.url}/start_profile")
        await _pass(ctx, server, scenario, "traced", PROFILE_SEED + ctx.attempt * 1000 + 1)
        answer = await _post(session, f"{server.url}/stop_profile")
    files = [Path(name) for name in answer.get("files", [])]
    if not files or not files[0].is_file():
        raise ActivityFailed(f"the server wrote no trace: {answer}")
    return files[0]


async def _post(session: aiohttp.ClientSession, url: str) -> JSON:
    async with session.post(url, json={}) as response:
        if response.status != 200:
            raise ActivityFailed(f"{url} answered {response.status}: {(await response.text())[:300]}")
        answer: JSON = await response.json()
        return answer


async def _pass(ctx: Context, server: Server, scenario: str, name: str, seed: int) -> None:
    workload = load_spec(ctx.spec, server.url, server.model, scenario, seed)
    out = ctx.path(name, "out.json")
    argv = ("-m", "sotad.loadgen", "spec.json.in", str(out))
    spec = ctx.python(*argv, timeout_s=300, cwd=ctx.host.path(ctx.run_id(name)))
    await ctx.start(name, spec, {"spec.json.in": json.dumps(workload).encode()})
    require(await server.while_running(name), "load generator", await ctx.tail(name))


async def explain(ctx: Context) -> str:
    """Tables of both traces, the layer notes, and the root cause with the rows that it rests on."""
    c = ctx.c
    files = {side: c.profiles[side]["trace"] for side in ("target", "leader")}
    inputs = {f"{side}{_suffix(trace['path'])}": ctx.artifacts.read(trace["sha256"]) for side, trace in files.items()}
    argv = ("-m", "sotad.analysis.explain", *inputs, "found.json")
    folder = ctx.host.path(ctx.run_id("tables"))
    status = await ctx.run("tables", ctx.python(*argv, timeout_s=600, cwd=folder), inputs)
    require(status, "trace analysis", await ctx.tail("tables"))
    found: JSON = json.loads(await ctx.output("tables", "found.json", 1 << 26))
    about = {"round": c.round, "commit": c.champion}
    tables = await ctx.keep_json(found, f"analysis/tables-r{c.round}.json")
    await ctx.once("tables.produced", {**about, "rows": found["rows"], "tables": tables})
    layers = await ctx.keep_json(layer_report(found), f"analysis/layer-pipeline-r{c.round}.json")
    await ctx.once("pipeline.written", {**about, "document": layers})
    sentence = statement(found, c.target, c.gaps[-1]["leader"])
    document = await ctx.keep(root_cause_text(found, sentence).encode(), f"analysis/root-cause-r{c.round}.md")
    cause = {**about, "stage": found["stage"], "rows": found["cited"], "statement": sentence, "document": document}
    if not ctx.recorded("rootcause.written"):
        await ctx.once("rootcause.written", cause)
    return sentence


def _suffix(path: str) -> str:
    return "".join(Path(path).suffixes[-2:])


def layer_report(found: JSON) -> JSON:
    """Time of the slow stage by annotated part of the layer, both sides; the seed of the pipeline report."""
    parts: dict[str, JSON] = {}
    for row in found["rows"]:
        if row["stage"] == found["stage"] and row["name"] != "step":
            part = parts.setdefault(row["annotation"] or "(no annotation)", {"time_ms": 0.0, "leader_time_ms": 0.0})
            part["time_ms"] = round(part["time_ms"] + row["time_ms"], 4)
            part["leader_time_ms"] = round(part["leader_time_ms"] + row["leader_time_ms"], 4)
    return {"stage": found["stage"], "steps": found["stages"], "parts": parts}


def root_cause_text(found: JSON, sentence: str) -> str:
    """The root cause as Markdown: the sentence, then the cited rows."""
    lines = ["# Root cause", "", sentence, "", "| row | extra ms | ms | leader ms | share % | count | leader count |"]
    lines.append("|---|---|---|---|---|---|---|")
    cited = set(found["cited"])
    for row in found["rows"]:
        if row["row_id"] in cited:
            numbers = (row["extra_ms"], row["time_ms"], row["leader_time_ms"], row["share"])
            cells = [f"`{row['row_id']}`", *(f"{n:.2f}" for n in numbers), str(row["count"]), str(row["leader_count"])]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
