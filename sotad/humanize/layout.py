"""Names in a loop's folder as Humanize 1.16 gives them: ``.humanize/rlcr/<YYYY-MM-DD_HH-MM-SS>/…``.

Both directions use them: what we write is found by monitors made for Humanize, what we read was written by it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

LOOPS = ".humanize/rlcr"

STATE = "state.md"
FINALIZE = "finalize-state.md"
TERMINALS = ("complete", "maxiter", "stop", "cancel", "unexpected")
TERMINAL_FILES = {f"{name}-state.md": name for name in TERMINALS}
STATE_FILES = {STATE: "active", FINALIZE: "finalize", "methodology-analysis-state.md": "methodology"} | TERMINAL_FILES
"""Files that hold the state record, each with what its name says. Of several, the active ones count first."""

REVIEW_MARKER = ".review-phase-started"
ROUND_KINDS = ("prompt", "contract", "summary", "todos", "review-prompt", "review-result")

_LATE = {
    REVIEW_MARKER: "review-marker",
    "finalize-summary.md": "finalize-summary",
    "methodology-analysis-report.md": "methodology-report",
    "methodology-analysis-done.md": "methodology-note",
    ".methodology-exit-reason": "exit-reason",
    ".cancel-requested": "cancel-request",
    "bg-pending.marker": "parked-marker",
    "goal-tracker.md": "goal-tracker",
}
_ROUND = re.compile(rf"round-(0|[1-9][0-9]{{0,5}})-({'|'.join(ROUND_KINDS)})\.md")
_LOOP = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}")


class Place(NamedTuple):
    """What a file of a loop is. Sorting by ``order`` tells the loop as it went, the state record last."""

    order: tuple[int, int, int]
    kind: str
    round: int | None = None


def place(name: str) -> Place | None:
    """What the file of this name is in a loop's folder; None for a name that the layout does not know."""
    if name == "plan.md":
        return Place((0, 0, 0), "plan")
    if found := _ROUND.fullmatch(name):
        number, kind = int(found[1]), found[2]
        return Place((1, number, ROUND_KINDS.index(kind)), kind, number)
    if name in _LATE:
        return Place((2, list(_LATE).index(name), 0), _LATE[name])
    if name in STATE_FILES:
        return Place((3, list(STATE_FILES).index(name), 0), "state")
    return None


def round_file(number: int, kind: str) -> str:
    """``round-3-summary.md``."""
    return f"round-{number}-{kind}.md"


def loop_name(time_ns: int) -> str:
    """The folder of a loop that began at this time, in UTC."""
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d_%H-%M-%S}"


def is_loop_name(name: str) -> bool:
    """Whether a folder's name is one of a loop."""
    return _LOOP.fullmatch(name) is not None
