"""What a patch costs in accuracy: a program of the user's scores the servers of both commits."""

from __future__ import annotations

import json
import math
from typing import Any

from sotad.activities.context import ActivityFailed, Context
from sotad.activities.server import ServerFailed, serve_target
from sotad.activities.worktrees import checkout

SHARE_OF_JOB = 0.4  # of the job's time for a side: a patch that hangs leaves the champion enough
LOG_LIMIT_BYTES = 1 << 26  # the score is on the last line


async def measure_accuracy(ctx: Context) -> str:
    """Score the patched commit, then the champion, by the target's accuracy command.

    Raises:
        ActivityFailed: the champion has no score; then nothing can be said of the patch.
    """
    attempt, wanted = ctx.c.attempt, ctx.spec["frameworks"][ctx.c.target]["accuracy"]
    for commit in (attempt.commit, attempt.base):  # both before anything is begun: only then they are looked at
        await checkout(ctx, ctx.c.target, commit)
    score, trouble, log = await _score(ctx, "challenger", attempt.commit, wanted["command"])
    baseline, broken, _ = await _score(ctx, "champion", attempt.base, wanted["command"])
    if baseline is None:
        raise ActivityFailed(f"the accuracy command gave no score of the champion: {broken}")
    passed = score is not None and score >= baseline - wanted["max_drop"]
    told = trouble if score is None else f"{score:g}"
    detail = f"{told}; the champion {baseline:g}, {wanted['max_drop']:g} less would do"
    known = {"attempt_id": attempt.attempt_id, "passed": passed, "detail": detail}
    found = {"score": score, "baseline": baseline, **wanted}
    kept = await ctx.keep(log, f"accuracy/{attempt.attempt_id}.log")
    await ctx.once("accuracy.finished", {**known, **found, "log": kept})
    gate = {"gate": "accuracy", "satisfy": "the accuracy command scores the patch no lower than allowed"}
    await ctx.once("gate.evaluated", {**known, **gate}, "gate-accuracy")
    return detail


def score_in(text: str) -> float | None:
    """The number ``score`` of the JSON object on the last line that is not empty; None where there is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found: Any = json.loads(lines[-1])["score"] if lines else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if number else None


async def _score(ctx: Context, side: str, commit: str, command: list[str]) -> tuple[float | None, str, bytes]:
    """The score of a commit, why it has none, and what the program printed."""
    name, trouble = f"score-{side}", ""
    try:
        if not (await ctx.host.status(ctx.run_id(name))).succeeded:
            await _run(ctx, side, name, commit, command)
    except ServerFailed as error:
        trouble = str(error)
    await ctx.stop(side)
    status = await ctx.host.status(ctx.run_id(name))
    if status.phase == "absent":
        return None, trouble, trouble.encode()
    printed = await ctx.output(name, limit=LOG_LIMIT_BYTES)
    score = score_in(printed.decode(errors="replace")) if status.succeeded else None
    return score, trouble or f"no score: {await ctx.tail(name)}", printed


async def _run(ctx: Context, side: str, name: str, commit: str, command: list[str]) -> None:
    """Serve a commit, and run the program against it."""
    server = await serve_target(ctx, commit, side)
    argv = tuple(part.replace("{url}", server.url).replace("{model}", server.model) for part in command)
    patience = float(ctx.spec["budget"]["job_s"]) * SHARE_OF_JOB
    await ctx.start(name, ctx.command(argv, timeout_s=patience))
    await server.while_running(name)
