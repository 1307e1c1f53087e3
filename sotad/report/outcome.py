"""How the campaign ended, in the only words that may be used for it."""

from __future__ import annotations

from statemachine.state import JSON, Attempt, Campaign
from statemachine.table import SUCCESS

MEANING = (
    "This line means the best result that was observed, and is reproducible, under the recorded model, "
    "workload, hardware, commits, precision and SLA. It claims nothing beyond them."
)


def terminal(c: Campaign) -> str:
    """The condition that ends the campaign, once it is established; else empty.

    The report is written while the campaign is stopping, so that the closing event can demand it.
    """
    return str(c.stop.get("condition", "")) if c.phase in ("stopping", "closed") else ""


def succeeded(c: Campaign) -> bool:
    """Whether the target ended ahead of, or level with, the best competitor."""
    return terminal(c) in SUCCESS


def reason(c: Campaign) -> str:
    """Why it ended, or why it stands still; empty while it runs."""
    if terminal(c):
        return str(c.stop.get("reason", ""))
    return str(c.blocked.get("reason", ""))


def summary(campaign: Campaign) -> JSON:
    """The outcome as JSON: what ``report --json`` and ``demo --json`` print.

    ``verdict`` is the terminal condition of a closed campaign, else its phase. ``success`` is true only when
    it closed with the target ahead or level. Gains and gaps are percent; g > 0: the target is behind.
    ``spent`` is what agents used as far as their tools said: ``unknown`` of their ``calls`` said nothing.
    """
    closed = campaign.phase == "closed"
    return {
        "campaign": campaign.id,
        "verdict": terminal(campaign) if closed else campaign.phase,
        "reason": reason(campaign),
        "success": closed and succeeded(campaign),
        "rounds": campaign.round,
        "champion": campaign.champion,
        "gaps": campaign.gaps,
        "spent": campaign.spent,
        "attempts": [_attempt(attempt) for attempt in campaign.attempts.values()],
    }


def _attempt(attempt: Attempt) -> JSON:
    return {
        "attempt_id": attempt.attempt_id,
        "round": attempt.round,
        "status": attempt.status,
        "commit": attempt.commit,
        "refused_by": attempt.refused_by,
        "reason": attempt.reason,
        "gain_pct": attempt.gain_pct,
        "seq": attempt.seq,
    }
