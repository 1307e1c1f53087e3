"""One campaign in one line of a table: what ``status``, the dashboard and the metrics show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statemachine.state import Campaign, World


def summary(c: Campaign) -> dict[str, Any]:
    """Where a campaign stands, as plain JSON values."""
    from sotad.search.expected import expected

    attempts = list(c.attempts.values())
    return {
        "campaign": c.id,
        "phase": c.phase,
        "round": c.round,
        "verdict": c.stop.get("condition") if c.phase == "closed" else None,
        "reason": c.blocked.get("reason") or c.stop.get("reason", "") or _waiting(c),
        "next": c.blocked.get("next", ""),
        "waits": {subject: wait["text"] for subject, wait in c.waits.items()},
        "plan": c.plan.get("version"),
        "open_issues": sum(issue["status"] == "open" for issue in c.issues.values()),
        "spent": dict(c.spent),
        "expected": expected(c),
        "gap": _gap(c),
        "doing": sorted(job.activity for job in c.jobs.values() if job.status == "running"),
        "attempts": len(attempts),
        "accepted": sum(attempt.status == "accepted" for attempt in attempts),
        "champion": c.champion,
        "created_ns": c.created_ns,
        "updated_ns": c.updated_ns,
        "seq": c.seq,
        "events": c.campaign_seq,
    }


def _waiting(c: Campaign) -> str:
    """For whom it waits until it can go on; empty when it does not."""
    return f"waits: {c.waiting['holder']}" if c.waiting else ""


def said_with(campaign: str, subject: str) -> str:
    """The command that answers what a campaign waits for."""
    verb, then = ("answer", "TEXT") if subject.startswith("question:") else ("approve", "[--deny]")
    return f"sotactl {verb} {campaign} {subject} {then}"


def spending(spent: dict[str, float]) -> str:
    """What the agents used, in words; what their tools do not report is unknown, never 0. Empty before the first."""
    calls = int(spent.get("calls", 0))
    if not calls:
        return ""
    known = [f"{int(spent['tokens']):,} tokens"] if spent.get("tokens") else []
    known += [f"{spent['money_usd']:.2f} USD"] if spent.get("money_usd") else []
    if not spent.get("unknown"):
        return ", ".join(known)
    rest = f"{int(spent['unknown'])} of {calls} calls did not report all"
    return f"{', '.join(known)} ({rest})" if known else f"unknown ({rest})"


def _gap(c: Campaign) -> dict[str, Any] | None:
    """The last gap decision, by the scenario on which the target is furthest behind, percent."""
    if not c.gaps:
        return None
    last = c.gaps[-1]
    worst: dict[str, Any] = max(last["decisions"].values(), key=lambda found: found["g_pct"], default={})
    return {**worst, "verdict": last["verdict"], "leader": last["leader"]}


def summaries(world: World) -> list[dict[str, Any]]:
    """Every campaign, oldest first."""
    return [summary(c) for c in sorted(world.campaigns.values(), key=lambda c: c.created_ns)]
