"""A launch: one server lifetime with its measurements. The unit of every comparison."""

from __future__ import annotations

import json

from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.server import Command, Server, ServerFailed, render_launch, require
from sotad.benchmark.metrics import make_row
from sotad.daemon.journal import Journal
from sotad.frameworks import FRAMEWORKS
from statemachine.ranking import sla_failures
from statemachine.state import JSON, Campaign


async def launch(ctx: Context) -> str:
    """Launch a candidate, measure every scenario and run that is asked for, stop it.

    A candidate that fails is a result. A server or load generator that vanished voids the whole launch.
    """
    p = ctx.params
    if ended := ctx.recorded("ended"):
        return ended.type
    framework = ctx.spec["frameworks"][p["framework"]]
    command = await render_launch(ctx, p["framework"], p["commit"], p["flags"])
    await ctx.once("candidate.launched", _launched(ctx, command))
    server = await Server.start(ctx, framework["kind"], command)
    try:
        await _measure_all(ctx, server)
    except ServerFailed as failure:
        log = await server.stop()
        reason = {**_who(ctx), "status": failure.status, "reason": str(failure), "log": log}
        await ctx.once("candidate.failed", reason, "ended")
        return f"{failure.status}: {failure}"
    except (RunLost, ActivityFailed) as lost:
        await server.stop()
        await ctx.once("candidate.lost", {**_who(ctx), "reason": str(lost)}, "ended")
        raise
    await ctx.once("candidate.stopped", {**_who(ctx), "log": await server.stop()}, "ended")
    return "measured"


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
    return {**_who(ctx), **known, "command": command.argv, "dropped_flags": command.dropped}


async def _measure_all(ctx: Context, server: Server) -> None:
    """Every run that has no row yet, and the check that the server lived through them all.

    An earlier entry may have ended the server after the last row: then there is nothing left to ask it.
    """
    runs = [(scenario, n, seed) for scenario, seeds in ctx.params["seeds"].items() for n, seed in enumerate(seeds)]
    if all(ctx.recorded(_bench(scenario, run)) for scenario, run, _ in runs) and await server.was_stopped():
        for scenario, run, _ in runs:
            await _judge(ctx, scenario, run)
        return
    startup_s = await server.ready()
    if not ctx.recorded("candidate.ready"):
        await ctx.once("candidate.ready", {**_who(ctx), "startup_s": round(startup_s, 3)})
    for scenario, run, seed in runs:
        if not ctx.recorded(_bench(scenario, run)):
            await _measure(ctx, server, scenario, run, seed)
        await _judge(ctx, scenario, run)
    await server.check()


def _bench(scenario: str, run: int) -> str:
    """Name of a measurement: of its run directory, and of its row's event."""
    return f"bench-{scenario}-{run}"


async def _measure(ctx: Context, server: Server, scenario: str, run: int, seed: int) -> None:
    """One run of the load generator, and its row."""
    name = _bench(scenario, run)
    about = {**_who(ctx), "scenario": scenario, "run": run, "seed": seed}
    await ctx.once("benchmark.started", about, f"{name}-started")
    workload = load_spec(ctx.spec, server, scenario, seed)
    out = ctx.path(name, "out.json")
    spec = ctx.python(
        "-m",
        "sotad.loadgen",
        "spec.json.in",
        str(out),
        timeout_s=_patience(ctx, scenario),
        cwd=ctx.host.path(ctx.run_id(name)),
    )
    await ctx.start(name, spec, {"spec.json.in": json.dumps(workload).encode()})
    status = await server.while_running(name)
    require(status, f"load generator for {scenario}", await ctx.tail(name))
    raw = out.read_bytes()
    await server.check()
    row = make_row(json.loads(raw), _context(ctx, server))
    raw_artifact = await ctx.keep(raw, f"benchmark/raw/{ctx.job}/{name}.json")
    await ctx.once("benchmark.finished", {**about, "row": row, "raw": raw_artifact}, name)


async def _judge(ctx: Context, scenario: str, run: int) -> None:
    """In the search, the SLA verdict on a recorded row."""
    finished = ctx.recorded(_bench(scenario, run))
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


def _patience(ctx: Context, scenario: str) -> float:
    """Seconds after which a load generator is taken to hang."""
    shape = next(s for s in ctx.spec["workload"]["scenarios"] if s["name"] == scenario)
    waves: int = -(-shape["num_prompts"] // shape["max_concurrency"])
    return 60 + float(ctx.spec["workload"]["request_timeout_s"]) * (waves + 1)


def load_spec(spec: JSON, server: Server, scenario: str, seed: int) -> JSON:
    """What the load generator is told: the frozen scenario with this run's seed."""
    workload = spec["workload"]
    shape = next(s for s in workload["scenarios"] if s["name"] == scenario)
    about = {key: shape[key] for key in ("name", "num_prompts", "input_len", "output_len", "shared_prefix_len")}
    return {
        "base_url": server.url,
        "endpoint": workload["endpoint"],
        "model": FRAMEWORKS[server.kind].served_model(spec["model"]),
        "scenario": {**about, "seed": seed},
        "request_rate": shape["request_rate"],
        "max_concurrency": shape["max_concurrency"],
        "warmup_requests": workload["warmup_requests"],
        "timeout_s": workload["request_timeout_s"],
    }


def _context(ctx: Context, server: Server) -> JSON:
    """What a row says beside its metrics."""
    spec, p = ctx.spec, ctx.params
    return {
        "framework": p["framework"],
        "framework_version": ctx.c.probes[p["framework"]]["version"],
        "framework_commit": p["commit"],
        "candidate_id": p["candidate"],
        "model": spec["model"]["id"],
        "hardware": {
            "gpu_model": spec["hardware"]["gpu_type"],
            "gpu_count": len(spec["hardware"]["gpu_ids"]),
            "visible_devices": spec["hardware"]["gpu_ids"],
        },
        "sla": spec["sla"],
        "server_command": server.command.argv,
        "benchmark_command": ["python", "-m", "sotad.loadgen", f"{ctx.job}/{ctx.attempt}/spec.json.in"],
        "validated_cli_flags": [a for a in server.command.argv if a.startswith("--")],
    }
