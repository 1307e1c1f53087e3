"""The end of a round: the checkpoint of what was learned, and the independent review of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sotad import git
from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.patch import ask_agent
from sotad.activities.worktrees import checkout
from statemachine.state import JSON, Campaign


class Finding(BaseModel):
    """One finding of a review."""

    model_config = ConfigDict(extra="forbid")

    severity: Literal["P0", "P1", "P2", "P3"]
    lane: Literal["mainline", "blocking", "queued"]
    text: str = Field(min_length=1)
    path: str = ""
    line: int | None = None


class Verdict(BaseModel):
    """What a reviewer must answer; zero findings are said with an empty list, never by leaving it out."""

    model_config = ConfigDict(extra="forbid")

    mainline: Literal["ADVANCED", "STALLED", "REGRESSED"]
    control: Literal["CONTINUE", "COMPLETE", "STOP"]
    findings: list[Finding]
    summary: str = Field(min_length=1)


async def checkpoint(ctx: Context) -> str:
    """Write what a resume needs, and move the campaign branch to the champion."""
    repo = Path(ctx.spec["frameworks"][ctx.c.target]["checkout"])
    await git.git(repo, "update-ref", f"refs/heads/{ctx.c.branch}", ctx.c.champion)
    document = await ctx.keep_json(checkpoint_of(ctx.c), f"humanize/checkpoint-r{ctx.c.round}.json")
    if not ctx.recorded("checkpoint.written"):
        written = {"round": ctx.c.round, "commit": ctx.c.champion, "document": document}
        await ctx.once("checkpoint.written", written)
    return ctx.c.champion


def checkpoint_of(c: Campaign) -> JSON:
    """The loop's position as data."""
    return {
        "model": c.spec["model"],
        "hardware": c.spec["hardware"],
        "workload_digest": c.workload_digest,
        "sla": c.spec["sla"],
        "winners": c.winners,
        "branch": c.branch,
        "champion": c.champion,
        "round": c.round,
        "gaps": c.gaps,
        "rejected_rows": c.rejected_rows,
        "attempts": {name: asdict(attempt) for name, attempt in c.attempts.items()},
    }


async def review(ctx: Context) -> str:
    """Have the round reviewed by a process of its own; only a complete, well-formed verdict counts."""
    if done := ctx.recorded("outcome"):
        return done.type
    request = _inputs(ctx)
    inputs = await ctx.keep_json(request, f"review/r{ctx.c.round}-request.json")
    asked = {"round": ctx.c.round, "attempt_id": ctx.c.current_attempt, "inputs": inputs}
    await ctx.once("review.requested", asked)
    folder = await checkout(ctx, ctx.c.target, ctx.c.attempt.commit or ctx.c.champion)
    try:
        answer = await ask_agent(ctx, "reviewer", request, folder)
        verdict = Verdict.model_validate(answer)
    except (ActivityFailed, RunLost, ValidationError) as error:
        reason = str(error).splitlines()[0]
        await ctx.once("review.failed", {"round": ctx.c.round, "reason": reason}, "outcome")
        return f"failed: {reason}"
    said = verdict.model_dump(mode="json")
    result = await ctx.keep_json(said, f"review/r{ctx.c.round}-result.json")
    actor = f"reviewer:{ctx.spec['reviewer']['driver']}"
    await ctx.once("verdict.recorded", {**said, "round": ctx.c.round, "result": result}, "outcome", actor=actor)
    return verdict.mainline


def _inputs(ctx: Context) -> JSON:
    """What the reviewer sees: facts that the daemon established, not what the implementer claims."""
    attempt = ctx.c.attempt
    return {
        "round": ctx.c.round,
        "attempt": asdict(attempt),
        "rootcause": ctx.c.rootcause,
        "gaps": ctx.c.gaps,
        "plan_digest": ctx.c.plan_digest,
        "diff": _text(ctx, attempt.diff),
        "paths": ctx.spec["frameworks"][ctx.c.target]["paths"],
        "verdict_schema": Verdict.model_json_schema(),
    }


def _text(ctx: Context, artifact: JSON) -> str:
    return ctx.artifacts.read(artifact["sha256"]).decode(errors="replace") if artifact else ""
