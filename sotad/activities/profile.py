"""Profiles of both sides at the slow scenario's shape, and what explains the difference."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

import aiohttp

from ledger.reader import Reader
from sotad.activities import gpu_watch
from sotad.activities.context import ActivityFailed, Context
from sotad.activities.engine_caches import discard
from sotad.activities.server import Server, ServerFailed, render_launch, require, target_help, written
from sotad.activities.traffic import CONFIG, Files, files_here, files_there, load_spec, shape_of
from sotad.analysis.statement import root_cause_text, statement
from sotad.capture.plan import ACTIVE, WARMUP, Call, CaptureSpec, Expected, Stage, stages_of
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.base import Call as DriverCall
from sotad.frameworks.base import Framework, Profiler
from sotad.frameworks.render import BadFlag
from statemachine import evidence
from statemachine.state import JSON

PROFILE_SEED = 77
NOTE = "note"  # a folder beside the runs
CAPTURE_S = 900.0
CONTEXT = WARMUP + ACTIVE  # output tokens at least that every stream has when a decode step is captured


async def profile(ctx: Context) -> str:
    """Capture one side: same commit and flags as compared, at the slow scenario's shape.

    Raises:
        ActivityFailed: no usable trace; the reason is on record as profile.rejected.
    """
    p = ctx.params
    traces = await _noted(ctx) or await _profile(ctx)
    known = {key: p[key] for key in ("side", "framework", "commit")}
    captured = {**known, "round": ctx.c.round, "trace": _plain(traces[0]), "traces": traces}
    await ctx.once("profile.captured", captured, "captured")
    return ", ".join(str(trace["sha256"]) for trace in traces)


def _plain(trace: JSON) -> JSON:
    return {key: value for key, value in trace.items() if key != "stage"}


async def _noted(ctx: Context) -> list[JSON] | None:
    """The traces that an earlier entry kept, when it came that far."""
    known = await ctx.find(NOTE, "traces.json")
    return None if known is None else list(json.loads(known))


async def _profile(ctx: Context) -> list[JSON]:
    """Capture, keep the traces, and note that this is done."""
    try:
        files = await _files(ctx)
    except (ServerFailed, ActivityFailed, BadFlag) as error:
        rejected = {"round": ctx.c.round, "side": ctx.params["side"], "reason": str(error)[:2000]}
        await ctx.once("profile.rejected", rejected, "rejected")
        raise ActivityFailed(f"profile of the {ctx.params['side']}: {error}") from None
    traces = [await _keep(ctx, trace, number) for number, trace in enumerate(files)]
    await discard(ctx, ctx.params["framework"])
    await ctx.host.put(ctx.run_id(NOTE), "traces.json", json.dumps(traces).encode())
    return traces


async def _keep(ctx: Context, trace: Trace, number: int) -> JSON:
    """Bring a trace over from the host, whole, as an artifact."""
    stage, file = trace.stage, trace.file
    part = f"-{stage}-{number}" if stage else ""
    name = f"profiles/{ctx.params['side']}{part}-r{ctx.c.round}{''.join(PurePosixPath(file).suffixes[-2:])}"
    data = await ctx.fetch(trace.run, file, (await _digests(ctx, trace))[file]["sha256"])
    return {**await ctx.keep(data, name), "stage": stage}


async def _digests(ctx: Context, trace: Trace) -> JSON:
    """Digest and size of a trace, as its host has it."""
    run = f"digest-{sha256(f'{trace.run}/{trace.file}'.encode()).hexdigest()[:12]}"
    program = ctx.program("sotad.there.digests", trace.file, timeout_s=CAPTURE_S, cwd=ctx.path(trace.run))
    require(await ctx.run(run, program), "the trace's digest", await ctx.tail(run))
    found: JSON = json.loads(await ctx.output(run))
    return found


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace file, as a path below the folder of the run that wrote it."""

    stage: str
    run: str
    file: str


def _below(ctx: Context, stage: str, run: str, path: str) -> Trace:
    """Raises: ActivityFailed for a file that lies elsewhere."""
    folder = ctx.path(run)
    if not path.startswith(f"{folder}/"):
        raise ActivityFailed(f"the server wrote its trace to {path}, not below {folder}")
    return Trace(stage, run, path.removeprefix(f"{folder}/"))


async def _files(ctx: Context) -> list[Trace]:
    """Every trace: one server for all stages, or one each where the engine needs that."""
    driver = FRAMEWORKS[ctx.spec["frameworks"][ctx.params["framework"]]["kind"]]
    if driver.traces_whole_pass:
        return await _traced(ctx, [], "server")
    shape = await asyncio.to_thread(_shape, ctx, ctx.params["scenario"])
    stages = stages_of(shape, ctx.spec["model"].get("max_context"))
    if driver.counts_own_steps:
        return [file for stage in stages for file in await _traced(ctx, [stage], f"server-{stage.stage}")]
    return await _traced(ctx, stages, "server")


def _shape(ctx: Context, name: str) -> JSON:
    """The scenario with its requests' lengths in tokens; a dataset's are the medians of the target's last row."""
    shape = shape_of(ctx.spec, name)
    if shape["input_len"] and shape["output_len"]:
        return shape
    rows = [row for launch in ctx.c.launches.values() if launch.framework == ctx.c.target for row in launch.rows]
    seq = max(row["seq"] for row in rows if row["scenario"] == name and row["status"] == "ok")
    with Reader(ctx.state_dir / "ledger.db") as reader:
        event = reader.event(seq)
    assert event is not None, "the state was folded from it"
    measured = event.payload["row"]["workload"]
    lengths = {key: shape[key] or measured[f"{key}_p50"] for key in ("input_len", "output_len")}
    if missing := [key for key, length in lengths.items() if not length]:
        raise ActivityFailed(f"scenario {name}: the server does not say the {', '.join(missing)} of its requests")
    return {**shape, **{key: round(length) for key, length in lengths.items()}}


async def _traced(ctx: Context, stages: list[Stage], name: str) -> list[Trace]:
    """What one server lifetime yields; without stages, the trace of one pass of the whole scenario.

    It is noted before the server is ended: a later entry finds the files, and no server to ask.
    """
    known = await ctx.find(NOTE, f"{name}.json")
    if known is None:
        files = await _serve_and_capture(ctx, stages, name)
        await ctx.host.put(ctx.run_id(NOTE), f"{name}.json", json.dumps([asdict(file) for file in files]).encode())
    else:
        files = [Trace(**file) for file in json.loads(known)]
    await ctx.stop(name)
    return files


async def _serve_and_capture(ctx: Context, stages: list[Stage], name: str) -> list[Trace]:
    """Raises: ActivityFailed when the server does not do what its flags say."""
    p = ctx.params
    kind = ctx.spec["frameworks"][p["framework"]]["kind"]
    driver, folder = FRAMEWORKS[kind], ctx.path(name, "traces")
    how = driver.profiler(folder, await target_help(ctx, p["framework"]), _steps(driver, stages), "sotad")
    if how is None:
        raise ActivityFailed(f"{kind} cannot be profiled: sotad knows no way to make it write a trace")
    command = await render_launch(ctx, p["framework"], p["commit"], {**p["flags"], **how.flags})
    command = replace(command, environment={**command.environment, **how.env})
    await gpu_watch.until_idle(ctx, name)
    server = await Server.start(ctx, kind, command, name)
    await server.ready()
    files = await (_capture(ctx, server, how, folder, stages) if stages else _whole_pass(ctx, server, how))
    if lost := driver.fell_back((await server.log()).decode(errors="replace"), command.rendered.passed):
        await ctx.stop(name)
        raise ActivityFailed("the server does not do what its flags say: " + "; ".join(lost))
    return files


def _steps(driver: Framework, stages: list[Stage]) -> int | None:
    return stages[0].active if driver.counts_own_steps and stages else None


async def _capture(ctx: Context, server: Server, how: Profiler, folder: str, stages: list[Stage]) -> list[Trace]:
    """Each stage apart, by a process of its own, which outlives a daemon."""
    run = "capture-" + "-".join(stage.stage for stage in stages)
    spec = _capture_spec(ctx, server, how, folder, stages, await files_there(ctx))
    argv = ("-m", "sotad.capture", "spec.json.in", "out.json")
    command = ctx.python(*argv, timeout_s=CAPTURE_S, cwd=ctx.path(run))
    await ctx.start(run, command, {"spec.json.in": spec.model_dump_json().encode()})
    require(await server.while_running(run), "capture", await ctx.tail(run))
    done: list[JSON] = json.loads(await written(ctx, run))["stages"]
    traces = [_below(ctx, stage["stage"], server.name, file) for stage in done for file in stage["files"]]
    if wrong := [f"{each['stage']}: {problem}" for each in done for problem in each.get("problems", ())]:
        raise ActivityFailed("the trace does not show what was asked for: " + "; ".join(wrong))
    if any("problems" not in each for each in done):
        await _judge_here(ctx, traces, spec)
    return traces


async def _judge_here(ctx: Context, traces: list[Trace], spec: CaptureSpec) -> None:
    """The host lacks what reads traces: they are judged on the daemon's machine, by a process of its own.

    Raises:
        ActivityFailed: a trace does not show what was asked for.
    """
    home = ctx.at_home()
    for stage in spec.stages:
        own = [trace for trace in traces if trace.stage == stage.stage]
        files = {PurePosixPath(trace.file).name: await ctx.fetch(trace.run, trace.file) for trace in own}
        asked = {"stage": stage.model_dump(), "expected": spec.expected.model_dump(), "files": list(files)}
        run = f"judge-{stage.stage}"
        command = home.python("-m", "sotad.capture.check", "asked.json", timeout_s=CAPTURE_S, cwd=home.path(run))
        status = await home.run(run, command, {**files, "asked.json": json.dumps(asked).encode()})
        require(status, "judging the trace", await home.tail(run))
        if wrong := json.loads(await home.output(run)):
            raise ActivityFailed(f"the trace does not show what was asked for: {stage.stage}: {'; '.join(wrong)}")


def _capture_spec(
    ctx: Context, server: Server, how: Profiler, folder: str, stages: list[Stage], files: Files
) -> CaptureSpec:
    seed = PROFILE_SEED + ctx.attempt
    workload = load_spec(ctx.spec, server.url, server.model, ctx.params["scenario"], seed, files=files)
    scenario = workload["scenario"]
    graphs = FRAMEWORKS[server.kind].replays_graphs(server.command.rendered.passed)
    tokens = {key: scenario[key] for key in ("first_token", "last_token", "tokenizer") if key in scenario}
    return CaptureSpec(
        base_url=server.url,
        model=server.model,
        endpoint=workload["endpoint"],
        extra_body=workload["extra_body"],
        folder=folder,
        start=_call(how.start),
        stop=_call(how.stop),
        files=how.files,
        settle_s=how.settle_s,
        timeout_s=ctx.spec["workload"]["request_timeout_s"],
        stages=stages,
        expected=Expected(gpu=bool(ctx.c.lease.get("gpu_ids")), graphs=graphs),
        seed=scenario["seed"],
        **tokens,
    )


def _call(call: DriverCall | None) -> Call | None:
    if call is None:
        return None
    return Call(path=call.path, body=None if call.body is None else dict(call.body), may_fail=call.may_fail)


async def _whole_pass(ctx: Context, server: Server, how: Profiler) -> list[Trace]:
    """Warm up, then one traced pass of the scenario; unique prompts, so that no cache hides the prefill.

    Load generator and capture outlive a daemon: a pass that an earlier entry began is waited for, not repeated.
    """
    assert how.start and how.stop, "the reference engine's profiler is started and stopped"
    begun = (await ctx.host.status(ctx.run_id("traced"))).phase != "absent"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
            if not begun:
                await _pass(ctx, server, "warmup", PROFILE_SEED + ctx.attempt * 1000)
                with suppress(ActivityFailed):  # there is one to end only where an earlier entry began it
                    await _post(session, await server.reach(), how.stop)
                await _post(session, await server.reach(), how.start)
            await _pass(ctx, server, "traced", PROFILE_SEED + ctx.attempt * 1000 + 1)
            answer = await _post(session, await server.reach(), how.stop)
    except (aiohttp.ClientError, TimeoutError) as error:
        await server.check()  # raises HostUnreachable where it was not the server that did not answer
        raise ActivityFailed(f"the profiler could not be driven: {error!r}") from error
    if not answer.get("files"):
        raise ActivityFailed(f"the server wrote no trace: {answer}")
    return [_below(ctx, "", server.name, answer["files"][0])]


async def _post(session: aiohttp.ClientSession, url: str, call: DriverCall) -> JSON:
    async with session.post(url + call.path, json=dict(call.body or {})) as response:
        if response.status != 200:
            raise ActivityFailed(f"{call.path} answered {response.status}: {(await response.text())[:300]}")
        answer: JSON = await response.json()
        return answer


async def _pass(ctx: Context, server: Server, name: str, seed: int) -> None:
    files = await files_there(ctx)
    workload = load_spec(ctx.spec, server.url, server.model, ctx.params["scenario"], seed, files=files)
    argv = ("-m", "sotad.loadgen", "spec.json.in", "out.json")
    spec = ctx.python(*argv, timeout_s=300, cwd=ctx.path(name))
    await ctx.start(name, spec, {"spec.json.in": json.dumps(workload).encode()})
    require(await server.while_running(name), "load generator", await ctx.tail(name))


async def explain(ctx: Context) -> str:
    """Tables of both sides' traces, the layer report, and the root cause with the rows that it rests on."""
    c = ctx.c
    inputs = await asyncio.to_thread(_inputs, ctx)
    argv = ("-m", "sotad.analysis.explain", "asked.json", "found.json")
    status = await ctx.run("tables", ctx.python(*argv, timeout_s=900, cwd=ctx.path("tables")), inputs)
    require(status, "trace analysis", await ctx.tail("tables"))
    found: JSON = json.loads(await ctx.output("tables", "found.json", 1 << 28))
    about = {"round": c.round, "commit": c.champion}
    tables = await ctx.keep_json(found, f"analysis/tables-r{c.round}.json")
    await ctx.once("tables.produced", {**about, "rows": found["rows"], "tables": tables})
    layers = await ctx.keep_json(layer_report(found), f"analysis/layer-pipeline-r{c.round}.json")
    await ctx.once("pipeline.written", {**about, "document": layers, "limit": found["limit"]})
    sentence = statement(found, c.target, c.gaps[-1]["leader"])
    document = await ctx.keep(root_cause_text(found, sentence).encode(), f"analysis/root-cause-r{c.round}.md")
    cause = {**about, "stage": found["stage"], "rows": found["cited"], "statement": sentence, "document": document}
    if not ctx.recorded("rootcause.written"):
        await ctx.once("rootcause.written", cause)
    return sentence


def _inputs(ctx: Context) -> dict[str, bytes]:
    """The files of the analysis: the kept traces, and what it is asked."""
    inputs: dict[str, bytes] = {}
    asked: JSON = {"gpu": ctx.spec["hardware"]["gpu_type"] or None, "tp": len(ctx.c.lease.get("gpu_ids", [])) or 1}
    stages: set[str] = set()
    for side, framework in (("target", ctx.c.target), ("leader", ctx.c.gaps[-1]["leader"])):
        profile = ctx.c.profiles[side]
        files: dict[str, list[str]] = {}
        for number, trace in enumerate(profile.get("traces") or [profile["trace"]]):
            stage = trace.get("stage", "")
            name = f"{side}-{stage or 'all'}-{number}{''.join(Path(trace['path']).suffixes[-2:])}"
            inputs[name] = ctx.artifacts.read(trace["sha256"])
            files.setdefault(stage, []).append(name)
        stages |= files.keys()
        asked[side] = {"files": files}
        if log := _log(ctx, framework):
            inputs[f"{side}.log"], asked[side]["log"] = log, f"{side}.log"
    if "" not in stages:  # stages were captured apart: weigh them by what a request needs
        shape = _shape(ctx, evidence.slow_scenario(ctx.c))
        asked["request"] = {"prefill": shape["input_len"], "decode": shape["output_len"]}
        asked["waited_ms"] = evidence.waits(ctx.c)
        asked["context"] = shape["input_len"] + CONTEXT
    asked["config"] = files_here(ctx.c, ctx.artifacts).get(CONFIG)
    asked["lengths"] = ",".join(_lengths(ctx.spec["workload"])) or str(ctx.spec["model"]["max_context"])
    return {**inputs, "asked.json": json.dumps(asked).encode()}


def _lengths(workload: JSON) -> list[str]:
    shapes = [(each["input_len"], each["output_len"]) for each in workload["scenarios"]]
    return [f"{given}+{generated}" for given, generated in shapes if given and generated]


def _log(ctx: Context, framework: str) -> bytes | None:
    """What the framework's last server printed that was measured to its end; none of one that tells no memory."""
    ended = [each for each in ctx.c.launches.values() if (each.framework, each.status) == (framework, "stopped")]
    if not ended or ctx.spec["frameworks"][framework]["kind"] == "reference":
        return None
    last = max(ended, key=lambda each: each.seq)
    event = ctx.journal.find(f"{ctx.campaign}/{last.launch}/{last.attempt}/ended")
    return ctx.artifacts.read(event.payload["log"]["sha256"]) if event else None


def layer_report(found: JSON) -> JSON:
    """Passes and layers of both sides where there are kernels; else the slow stage by annotated part of the layer."""
    about = {"stage": found["stage"], "steps": found["stages"], "limit": found["limit"], "notes": found["notes"]}
    if found["layers"]:
        return {**about, "layers": found["layers"]}
    parts: dict[str, JSON] = {}
    for row in found["rows"]:
        if row["stage"] == found["stage"] and row["name"] != "step":
            part = parts.setdefault(row["annotation"] or "(no annotation)", {"time_ms": 0.0, "leader_time_ms": 0.0})
            part["time_ms"] = round(part["time_ms"] + row["time_ms"], 4)
            part["leader_time_ms"] = round(part["leader_time_ms"] + row["leader_time_ms"], 4)
    return {**about, "parts": parts}
