"""One campaign in one line of a table: what ``status``, the dashboard and the metrics show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statemachine.state import Campaign, World


def summary(c: Campaign) -> dict[str, Any]:
    """Where a campaign stands, as plain JSON values."""
    attempts = list(c.attempts.values())
    return {
        "campaign": c.id,
        "phase": c.phase,
        "round": c.round,
        "verdict": c.stop.get("condition") if c.phase == "closed" else None,
        "reason": c.blocked.get("reason") or c.stop.get("reason", ""),
        "next": c.blocked.get("next", ""),
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
