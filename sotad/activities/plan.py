"""The plan: what the loop may change, what it must prove, and where it begins."""

from __future__ import annotations

from sotad.activities.context import Context
from statemachine.evidence import digest
from statemachine.state import JSON, Campaign

CRITERIA = {
    "AC-1": "workload, SLA and competitor commands stay as frozen",
    "AC-2": "history notes are consulted before a patch",
    "AC-3": "gap decision and profiles inside every round",
    "AC-4": "layer report before a patch target is chosen",
    "AC-5": "one minimal patch per attempt, citing rows of fresh tables",
    "AC-7": "tests, equal outputs and the same benchmark after every patch",
    "AC-8": "every attempt on record, one loop only",
    "AC-9": "no stop while a plausible row is untried",
}


async def write_plan(ctx: Context) -> str:
    """Write the plan from the template and start the loop at the commit that intake checked."""
    plan = make_plan(ctx.c)
    document = await ctx.keep_json(plan, "humanize/plan.json")
    if not ctx.recorded("loop.started"):
        started = {
            "plan": document,
            "plan_digest": digest(plan),
            "base_commit": ctx.c.workspaces[ctx.c.target]["commit"],
            "branch": f"sotad/{ctx.campaign}",
        }
        await ctx.once("loop.started", started)
    return digest(plan)


def make_plan(c: Campaign) -> JSON:
    """The plan as data: goal, acceptance criteria, path boundary, bounds."""
    target = c.spec["frameworks"][c.target]
    return {
        "goal": f"bring {c.target} to par with the best competitor or ahead on every scenario, or say why not",
        "criteria": CRITERIA,
        "boundary": {"may_change": target["paths"], "may_not_change": ["tests", "workload", "SLA", "competitors"]},
        "baseline": {"digest": c.baseline_digest, "winners": c.winners},
        "decision": c.spec["decision"],
        "rounds": c.spec["budget"]["rounds"],
    }
