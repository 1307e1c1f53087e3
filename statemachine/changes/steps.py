"""Changes that several events make."""

from __future__ import annotations

from statemachine.state import Campaign


def discard_launches(c: Campaign, prefix: str) -> None:
    """What these launches measured counts no longer; whoever needs them measures anew."""
    for launch in c.launches.values():
        if launch.launch.startswith(prefix):
            launch.status, launch.rows, launch.reason = "lost", [], "to be measured anew"


def next_round(c: Campaign) -> None:
    c.round += 1
    c.fix_cycles, c.current_attempt, c.review, c.verdicts = 0, "", {}, {}
