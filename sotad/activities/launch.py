"""A launch: one server lifetime with its measurements. The unit of every comparison."""

from __future__ import annotations

import json

from sotad.activities import gpu_watch
from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.engine_caches import discard
from sotad.activities.gpu_watch import Watched
from sotad.activities.server import Command, Server, ServerFailed, render_launch, require, written
from sotad.activities.traffic import files_there, load_spec, prompts_at, shape_of
from sotad.benchmark.metrics import make_row
from sotad.daemon.journal import Journal
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.render import BadFlag
from statemachine import goodput, sweep
from statemachine.ranking import sla_failures
from statemachine.state import JSON, Campaign

TRIES = 3  # of one measurement that something disturbs
ANEW = 1_000_003  # added to the seed for each: the same prompts would now come from the server's prefix cache


async def launch(ctx: Context) -> str:
    """Launch a candidate, measure every scenario and run that is asked for, stop it.

    A candidate that fails is a result. A server or load generator that vanished voids the whole launch.
    """
    p = ctx.params
    if ended := ctx.recorded("ended"):
        return ended.type
    framework = ctx.spec["frameworks"][p["framework"]]
    try:
        command = await render_launch(ctx, p["framework"], p["commit"], p["flags"])
    except BadFlag as refused:
        return await _refused(ctx, framework, str(refused))
    gpus = await gpu_watch.until_idle(ctx)
    await ctx.once("candidate.launched", {**_launched(ctx, command), "gpus": gpus or None})
    server = await Server.start(ctx, framework["kind"], command)
    try:
        await _measure_all(ctx, server)
    except ServerFailed as failure:
        log = await _stop(ctx, server)
        reason = {**_who(ctx), "status": failure.status, "reason": str(failure), "log": log}
        await ctx.once("candidate.failed", reason, "ended")
        return f"{failure.status}: {failure}"
    except (RunLost, ActivityFailed) as lost:
        await _stop(ctx, server)
        await ctx.once("candidate.lost", {**_who(ctx), "reason": str(lost)}, "ended")
        raise
    await ctx.once("candidate.stopped", {**_who(ctx), "log": await _stop(ctx, server)}, "ended")
    return "measured"


async def _stop(ctx: Context, server: Server) -> JSON:
    """End the server and remove what it compiled for itself; return its log."""
    log = await server.stop()
    await discard(ctx, ctx.params["framework"])
    return log


async def _refused(ctx: Context, framework: JSON, reason: str) -> str:
    """A candidate that its server would refuse has failed before it was launched."""
    prefix = FRAMEWORKS[framework["kind"]].command(framework.get("command"), framework["python"])
    known = {key: ctx.params[key] for key in ("purpose", "framework", "candidate", "commit")}
    await ctx.once("candidate.launched", {**_who(ctx), **known, "command": prefix})
    await ctx.once("candidate.failed", {**_who(ctx), "status": "failed", "reason": reason}, "ended")
    return f"failed: {reason}"


async def abandon(journal: Journal, c: Campaign, job: str, attempt: int, reason: str) -> None:
    """Void what an attempt launched, when it was ended from outside and could not say so itself."""
    launched = c.launches.get(job)
    if launched and launched.attempt == attempt and launched.status in ("launched", "ready"):
        lost = {"launch": job, "attempt": attempt, "reason": reason}
        key = f"{c.id}/{job}/{attempt}/ended"
        await journal.record(c.id, "candidate.lost", lost, cause=launched.seq, key=key)


def _who(ctx: Context) -> JSON:
    return {"launch": ctx.job, "attempt": ctx.attempt}


def _launched(ctx: Context, command: Command) -> JSON:
    known = {key: ctx.params[key] for key in ("purpose", "framework", "candidate", "commit")}
    done = command.rendered
    changed = {"dropped_flags": done.dropped, "translated_flags": done.translated, "flags_from": done.flags_from}
    caches = {"caches": told} if (told := command.caches.recorded(ctx)) else {}
    return {**_who(ctx), **known, "command": command.argv, **changed, **caches}


async def _measure_all(ctx: Context, server: Server) -> None:
    """Every run that has no row yet, and the check that the server lived through them all.

    An earlier entry may have ended the server after the last row: then there is nothing left to ask it.
    """
    for scenario, run, _ in _runs(ctx):
        await _judge(ctx, scenario, run)
    await _curtail(ctx)
    if _next_run(ctx) is None and await server.was_stopped():
        return
    startup_s = await server.ready()
    if not ctx.recorded("candidate.ready"):
        await ctx.once("candidate.ready", {**_who(ctx), "startup_s": round(startup_s, 3)})
    while (found := _next_run(ctx)) is not None:
        await _measure(ctx, server, *found)
        await _judge(ctx, found[0], found[1])
        await _curtail(ctx)
    await server.check()


async def _curtail(ctx: Context) -> None:
    """Give up the scenarios that the candidate cannot win any more."""
    for found in sweep.curtailments(ctx.c, ctx.job):
        await ctx.once("candidate.curtailed", found, f"curtailed-{found['scenario']}")


def _runs(ctx: Context) -> list[tuple[str, int, int]]:
    """Scenario, number and seed of every run that the job may ask for."""
    return [(scenario, n, seed) for scenario, seeds in ctx.params["seeds"].items() for n, seed in enumerate(seeds)]


def _next_run(ctx: Context) -> tuple[str, int, int] | None:
    """The first run that has no row; None when there is none, or what is left of a search is not worth it."""
    given_up = ctx.c.launches[ctx.job].curtailed if ctx.job in ctx.c.launches else {}
    for scenario, run, seed in sweep.in_order(ctx.c, _runs(ctx), ctx.params["purpose"]):
        if scenario not in given_up and not ctx.recorded(bench(scenario, run)):
            return (scenario, run, seed) if not _searches(ctx) or _rate(ctx, scenario) is not None else None
    return None


def _searches(ctx: Context) -> bool:
    return bool(ctx.params["purpose"] == "rate")


def _rate(ctx: Context, scenario: str) -> float | None:
    """Requests per second that a rate search tests next; None for every other launch: the scenario has its own."""
    return goodput.next_rate(ctx.c, ctx.params["framework"], scenario) if _searches(ctx) else None


def _variant(ctx: Context, scenario: str) -> JSON | None:
    """The variant that no agent was shown, in a launch that asks for it."""
    return ctx.c.heldout[scenario] if ctx.params["purpose"] == "heldout" else None


def bench(scenario: str, run: int) -> str:
    """Name of a measurement: of its run directory, and of its row's event."""
    return f"bench-{scenario}-{run}"


async def _measure(ctx: Context, server: Server, scenario: str, run: int, seed: int) -> None:
    """One run of the load generator, and its row; what was disturbed is thrown out and repeated."""
    name = bench(scenario, run)
    about = {**_who(ctx), "scenario": scenario, "run": run, "seed": seed}
    await ctx.once("benchmark.started", about, f"{name}-started")
    reasons: list[str] = []
    for try_ in range(TRIES):
        sample = f"{name}-again{try_}" if try_ else name
        if ctx.recorded(f"{sample}-disturbed"):
            continue
        before = await server.metrics()
        raw, watched = await _sample(ctx, server, sample, scenario, seed + try_ * ANEW)
        reasons = watched.reasons
        if not reasons:
            observed = FRAMEWORKS[server.kind].observe(await server.metrics(), await server.info(), before)
            row = make_row(json.loads(raw), _context(ctx, server, observed))
            kept = await ctx.keep(raw, f"benchmark/raw/{ctx.job}/{name}.json")
            await ctx.once("benchmark.finished", {**about, "row": row, "raw": kept, "gpus": watched.evidence}, name)
            return
        disturbed = {**about, "reasons": reasons, "gpus": watched.evidence}
        await ctx.once("benchmark.disturbed", disturbed, f"{sample}-disturbed")
    raise ActivityFailed(f"{scenario}: disturbed {TRIES} times: {'; '.join(reasons)}")


async def _sample(ctx: Context, server: Server, name: str, scenario: str, seed: int) -> tuple[bytes, Watched]:
    """What the load generator wrote, and why it does not count: somebody else's GPU work, or too busy a client."""
    rate = _rate(ctx, scenario)
    variant, files = _variant(ctx, scenario), await files_there(ctx)
    workload = load_spec(ctx.spec, server.url, server.model, scenario, seed, rate, variant, files)
    argv = ("-m", "sotad.loadgen", "spec.json.in", "out.json")
    await gpu_watch.begin(ctx, name)
    await ctx.start(
        name,
        ctx.python(*argv, timeout_s=_patience(ctx, scenario, rate), cwd=ctx.path(name)),
        {"spec.json.in": json.dumps(workload).encode()},
    )
    try:
        status = await server.while_running(name)
    except (ServerFailed, RunLost):
        await gpu_watch.abandon(ctx, name)
        raise
    watched = await gpu_watch.end(ctx, name, server.name)
    require(status, f"load generator for {scenario}", await ctx.tail(name))
    await server.check()
    raw = await written(ctx, name)
    client = json.loads(raw)["client"]
    busy = [] if client.get("valid", True) else [f"the client: {client['reason']}"]
    return raw, Watched(watched.reasons + busy, watched.evidence)


async def _judge(ctx: Context, scenario: str, run: int) -> None:
    """In the search, the SLA verdict on a recorded row."""
    finished = ctx.recorded(bench(scenario, run))
    if finished is None or ctx.params["purpose"] != "search":
        return
    row = finished.payload["row"]
    about = {"launch": ctx.job, "scenario": scenario}
    failures = sla_failures(row["metrics"], ctx.spec["sla"])
    for failure in failures:
        name = f"sla-{scenario}-{run}-{failure.key}"
        await ctx.once("sla.failed", {**about, **failure._asdict()}, name)
    if not failures and row["status"] == "ok":
        await ctx.once("sla.passed", about, f"sla-{scenario}-{run}")


def _patience(ctx: Context, scenario: str, rate: float | None) -> float:
    """Seconds after which a load generator is taken to hang."""
    shape = shape_of(ctx.spec, scenario)
    pace = rate or shape["request_rate"]
    at_once = shape["max_concurrency"] if rate is None else None
    waves = -(-shape["num_prompts"] // at_once) if at_once else 1
    prompts = shape["num_prompts"] if rate is None else prompts_at(ctx.spec, shape, rate)
    sending = prompts / pace if pace else 0.0
    return 60 + sending + float(ctx.spec["workload"]["request_timeout_s"]) * (waves + 1)


SEEN = {
    "cache": ("prefix_cache_enabled", "prefix_cache_hit_rate", "kv_cache_tokens", "kv_cache_utilization"),
    "spec_decode": ("mean_accept_length", "acceptance_rate"),
    "phase_metrics": ("queue_ms", "prefill_ms"),
    "memory": ("kv_cache_dtype", "gpu_memory_utilization"),
}
"""What of a server's own metrics goes into which part of a row."""


def _context(ctx: Context, server: Server, observed: JSON) -> JSON:
    """What a row says beside its metrics."""
    spec, p, ids = ctx.spec, ctx.params, ctx.spec["hardware"]["gpu_ids"]
    return {
        "framework": p["framework"],
        "framework_version": ctx.c.probes[p["framework"]]["version"],
        "framework_commit": p["commit"],
        "candidate_id": p["candidate"],
        "model": spec["model"]["id"],
        "precision": spec["model"]["precision"],
        "quantization": spec["model"].get("quantization"),
        "conditions": FRAMEWORKS[server.kind].conditions(server.command.rendered.passed, spec["model"]),
        "hardware": {
            "gpu_model": spec["hardware"]["gpu_type"],
            "gpu_count": len(ids) or spec["hardware"].get("gpu_count") or 0,
            "visible_devices": ids,
        },
        **{part: {name: observed.get(name) for name in names} for part, names in SEEN.items()},
        "engine_caches": server.command.caches.recorded(ctx) or None,
        "sla": spec["sla"],
        "server_command": server.command.argv,
        "benchmark_command": ["python", "-m", "sotad.loadgen", f"{ctx.job}/{ctx.attempt}/spec.json.in"],
        "validated_cli_flags": [a for a in server.command.argv if a.startswith("--")],
    }
