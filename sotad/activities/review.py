"""Reviews of a round: of what it achieved, against every criterion, and of an accepted patch's code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sotad import git
from sotad.activities.agents import ask_agent
from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.worktrees import checkout
from statemachine import loop, plan
from statemachine.machine import IllegalEvent
from statemachine.state import JSON


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Finding(_Strict):
    """One finding of a review; ``issue`` names the open issue that it raises again."""

    severity: Literal["P0", "P1", "P2", "P3"]
    lane: Literal["mainline", "blocking", "queued"]
    text: str = Field(min_length=1)
    path: str = ""
    line: int | None = None
    issue: str = ""


class Criterion(_Strict):
    """Where an acceptance criterion stands, and what shows it."""

    id: str
    status: Literal["MET", "PARTIAL", "NOT MET", "DEFERRED"]
    evidence: str = Field(min_length=1)


class Verdict(_Strict):
    """What a reviewer must answer; zero findings are said with an empty list, never by leaving it out."""

    mainline: Literal["ADVANCED", "STALLED", "REGRESSED"]
    control: Literal["CONTINUE", "COMPLETE", "STOP"]
    findings: list[Finding]
    resolved: list[str] = []
    criteria: list[Criterion] = []
    summary: str = Field(min_length=1)


async def review(ctx: Context) -> str:
    """Have the round reviewed by a process of its own; only a complete, well-formed verdict counts."""
    if done := ctx.recorded("outcome"):
        return done.type
    kind = ctx.params["kind"]
    request = await _inputs(ctx, kind)
    inputs = await ctx.keep_json(request, f"review/r{ctx.c.round}-{kind}-request.json")
    asked = {"round": ctx.c.round, "attempt_id": ctx.c.current_attempt, "inputs": inputs, "kind": kind}
    await ctx.once("review.requested", asked)
    folder = Path(await checkout(ctx, ctx.c.target, ctx.c.attempt.commit or ctx.c.champion))
    try:
        answer = await ask_agent(ctx, _role(ctx), request, folder, Verdict.model_json_schema())
        verdict = Verdict.model_validate(answer)
        _complete(ctx, kind, verdict)
        return await _record(ctx, kind, verdict)
    except (ActivityFailed, RunLost, ValidationError, IllegalEvent) as error:
        reason = str(error).splitlines()[0]
        await ctx.once("review.failed", {"round": ctx.c.round, "reason": reason}, "outcome")
        return f"failed: {reason}"


def _role(ctx: Context) -> str:
    return "implementer" if ctx.spec["review"]["mode"] == "self" else "reviewer"


def _complete(ctx: Context, kind: str, verdict: Verdict) -> None:
    """An alignment review says something of every criterion.

    Raises:
        ActivityFailed: it does not.
    """
    said = {criterion.id for criterion in verdict.criteria}
    silent = [name for name in plan.criteria(ctx.c.plan["plan"]) if name not in said]
    if kind == "alignment" and silent:
        raise ActivityFailed(f"the reviewer says nothing of {', '.join(silent)}")


async def _record(ctx: Context, kind: str, verdict: Verdict) -> str:
    said = verdict.model_dump(mode="json")
    result = await ctx.keep_json(said, f"review/r{ctx.c.round}-{kind}-result.json")
    about = {"round": ctx.c.round, "kind": kind, "result": result}
    actor = f"{_role(ctx)}:{ctx.spec[_role(ctx)]['driver']}"
    await ctx.once("verdict.recorded", {**said, **about}, "outcome", actor=actor)
    return verdict.mainline


async def _inputs(ctx: Context, kind: str) -> JSON:
    """What the reviewer sees: facts that the daemon established; what the implementer says is marked as said."""
    c, attempt = ctx.c, ctx.c.attempt
    diff = _text(ctx, attempt.diff)
    if kind == "code":  # the whole change since the loop began: a defect may lie where two patches meet
        diff = await git.diff(Path(ctx.spec["frameworks"][c.target]["checkout"]), c.base, attempt.commit)
    return {
        "action": "self_review" if ctx.spec["review"]["mode"] == "self" else "review",
        "kind": kind,
        "round": c.round,
        "attempt": asdict(attempt),
        "said": attempt.summary,
        "rootcause": c.rootcause,
        "gaps": c.gaps,
        "plan": c.plan["plan"],
        "plan_digest": c.plan_digest,
        "open_issues": loop.open_issues(c),
        "history": [asdict(each) | {"diff": {}} for each in c.attempts.values()] if kind == "alignment" else [],
        "diff": diff,
        "paths": ctx.spec["frameworks"][c.target]["paths"],
        "verdict_schema": Verdict.model_json_schema(),
    }


def _text(ctx: Context, artifact: JSON) -> str:
    return ctx.artifacts.read(artifact["sha256"]).decode(errors="replace") if artifact else ""
