"""The state record: every field that a monitor of Humanize reads, and the file name that says how the loop stands."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ledger.events import Event
from sotad.humanize.layout import FINALIZE, LOOPS, STATE, loop_name
from sotad.report.facts import Facts
from statemachine.state import JSON

ENDINGS = {
    "success_ahead": "complete",
    "success_tied": "complete",
    "compared": "complete",
    "max_rounds": "maxiter",
    "cancelled": "cancel",
}
"""Which terminal of Humanize a campaign's ending is; every other ending is a ``stop``."""

EFFORTS = ("xhigh", "high", "medium", "low")
REVIEW_S = 5400
ALIGNMENT_EVERY = 5


def state_name(f: Facts) -> str:
    """The file that holds the state record, by where the campaign stands."""
    if closed := f.last("campaign.closed"):
        return f"{ENDINGS.get(closed.payload['terminal'], 'stop')}-state.md"
    return FINALIZE if finalizing(f) else STATE


def finalizing(f: Facts) -> bool:
    """Whether what goes on is the simplification after a success."""
    attempt = f.c.attempts.get(f.c.current_attempt)
    return "round.finalizing" in (f.c.phase, f.c.back) or (attempt is not None and attempt.kind == "finalize")


def review_round(f: Facts) -> int | None:
    """The round whose code is, or was last, under review; None while nothing but rounds is reviewed."""
    asked = [e for e in f.all("review.requested") if e.payload.get("kind") == "code"]
    if not asked or (asked[-1].payload["round"] < f.c.round and not finalizing(f) and f.c.phase != "closed"):
        return None
    return int(asked[-1].payload["round"])


def state_page(f: Facts, started: Event) -> str:
    """The record as front matter and nothing else."""
    lines = (f"{name}: {_value(value)}" for name, value in _fields(f, started).items())
    return "\n".join(("---", *lines, "---", ""))


def _fields(f: Facts, started: Event) -> JSON:
    reviewer = f.spec.get("reviewer", {})
    place = loop_name(started.time_ns)
    workspace = f.c.workspaces.get(f.target, {})
    return {
        "current_round": f.c.round,
        "max_iterations": f.spec["budget"]["rounds"],
        "codex_model": _word(reviewer.get("model") or reviewer.get("driver") or "reviewer"),
        "codex_effort": reviewer.get("effort") if reviewer.get("effort") in EFFORTS else "high",
        "codex_timeout": int(reviewer.get("timeout_s", REVIEW_S)),
        "push_every_round": False,
        "full_review_round": f.spec.get("review", {}).get("alignment_every", ALIGNMENT_EVERY),
        "plan_file": f"{LOOPS}/{place}/plan.md",
        "plan_tracked": False,
        "start_branch": _branch(started.payload["branch"]),
        "base_branch": _branch(workspace.get("branch", "")),
        "base_commit": _branch(started.payload["base_commit"]),
        "review_started": review_round(f) is not None,
        "ask_codex_question": True,
        "session_id": f"sotad-{_word(f.c.id)}",  # an empty one would make the loop everybody's
        "agent_teams": False,
        "privacy_mode": True,
        "bitlesson_required": False,
        "bitlesson_file": ".humanize/bitlesson.md",
        "bitlesson_allow_empty_none": True,
        **_drift(f),
        "started_at": f"{datetime.fromtimestamp(started.time_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def _drift(f: Facts) -> JSON:
    verdicts = [e for e in f.all("verdict.recorded") if e.payload.get("kind") != "code"]
    return {
        "mainline_stall_count": f.c.stalls,
        "last_mainline_verdict": verdicts[-1].payload["mainline"].lower() if verdicts else "unknown",
        "drift_status": "replan_required" if f.c.recovery or f.c.stalls >= 2 else "normal",
    }


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _word(text: str) -> str:
    """Only what Humanize allows in the name of a model."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text) or "-"


def _branch(text: str) -> str:
    """A name of git's without what would end the field; ``HEAD`` where there is none."""
    return re.sub(r"[\s:#'\"`]+", "-", text) or "HEAD"
