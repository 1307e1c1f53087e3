"""The plan: what the loop may change, what it must prove, and where it begins."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sotad.activities.agents import ask_agent
from sotad.activities.context import ActivityFailed, Context
from sotad.activities.worktrees import checkout
from sotad.plan import compose
from sotad.plan.document import markdown
from sotad.plan.draft import BadDraft, read_draft
from sotad.redact import redactor
from statemachine import plan as plans
from statemachine.evidence import digest
from statemachine.plan_template import baseline
from statemachine.state import JSON

PROBLEMS = "plan-problems"


async def write_plan(ctx: Context) -> str:
    """Put a valid plan on record, ask a person what it leaves open, and start the loop once all is answered.

    A plan that an earlier attempt recorded stays. One whose baseline was discarded is recorded with the new one.

    Raises:
        ActivityFailed: the draft cannot be read, or the plan has problems.
    """
    plan = await _in_force(ctx)
    undecided = [name for name in plans.pending(plan) if compose.subject(name) not in ctx.c.answers]
    for name in undecided:
        await _ask(ctx, plan, name)
    if undecided:
        return f"for a person to decide: {', '.join(undecided)}"
    if not ctx.recorded("loop.started"):
        started = {
            "plan": await ctx.keep_json(plan, "humanize/plan.json"),
            "plan_digest": digest(plan),
            "base_commit": ctx.c.workspaces[ctx.c.target]["commit"],
            "branch": f"sotad/{ctx.campaign}",
        }
        await ctx.once("loop.started", started)
    return digest(plan)


async def _in_force(ctx: Context) -> JSON:
    if not ctx.c.plan:
        return await _recorded(ctx)
    plan: JSON = ctx.c.plan["plan"]
    if plan["baseline"]["digest"] == ctx.c.baseline_digest:
        return plan
    rebased = {**plan, "baseline": baseline(ctx.c)}
    await _put_on_record(ctx, rebased, ctx.c.plan["version"] + 1, ctx.c.plan["source"])
    return rebased


async def _recorded(ctx: Context) -> JSON:
    """A new plan, put on record. What is wrong with it is noted, so that the next try can be told."""
    made, source = await _made(ctx)
    plan: JSON = redactor(os.environ)(made)  # as the ledger does: the digest has to be that of what is written
    if wrong := plans.problems(plan):
        said = f"the plan cannot be followed: {'; '.join(wrong)}"
        await ctx.once("note.recorded", {"text": said}, PROBLEMS)
        raise ActivityFailed(said)
    await _put_on_record(ctx, plan, 1, source)
    return plan


async def _put_on_record(ctx: Context, plan: JSON, version: int, source: str) -> None:
    document = await ctx.keep(markdown(plan).encode(), "humanize/plan.md")
    recorded = {"version": version, "plan": plan, "digest": digest(plan), "document": document, "source": source}
    await ctx.once("plan.recorded", recorded)


async def _made(ctx: Context) -> tuple[JSON, str]:
    """A new plan and where it comes from."""
    wanted = ctx.spec.get("plan", {})
    draft = await _draft(wanted.get("draft"))
    if wanted.get("source") != "agent":
        return compose.from_draft(ctx.c, draft), "template"
    folder = Path(await checkout(ctx, ctx.c.target, ctx.c.workspaces[ctx.c.target]["commit"]))
    request = compose.request(ctx.c, draft, _problems_before(ctx))
    answer = await ask_agent(ctx, "implementer", request, folder, compose.schema())
    return compose.from_agent(ctx.c, draft, answer), f"agent:{ctx.spec['implementer']['driver']}"


def _problems_before(ctx: Context) -> str:
    """What was wrong with the plan of the attempt before this one."""
    note = ctx.journal.find(f"{ctx.campaign}/{ctx.job}/{ctx.attempt - 1}/{PROBLEMS}")
    return str(note.payload["text"]) if note else ""


async def _draft(path: str | None) -> str:
    if path is None:
        return ""
    try:
        return await asyncio.to_thread(read_draft, Path(path))
    except BadDraft as error:
        raise ActivityFailed(f"plan.draft: {error}") from None


async def _ask(ctx: Context, plan: JSON, decision: str) -> None:
    """Ask a person; a question that is open already is not asked again."""
    subject = compose.subject(decision)
    if subject not in ctx.c.waits:
        asked = {"subject": subject, "text": compose.question(plan, decision), "by": "plan"}
        await ctx.once("human.question", asked, f"question-{decision}")
