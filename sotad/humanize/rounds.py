"""What the loop's events say of one round."""

from __future__ import annotations

from ledger.events import Event
from sotad.report.facts import Facts
from statemachine.state import Attempt, Campaign


def in_round(f: Facts, number: int, *types: str) -> list[Event]:
    """The events of these types in a round, in order."""
    return [event for event in f.all(*types) if event.payload["round"] == number]


def attempts(c: Campaign, number: int) -> list[Attempt]:
    """The patches and fixes of a round; what finalizes is told apart from the rounds."""
    return [each for each in c.attempts.values() if each.round == number and each.kind != "finalize"]


def of_attempt(f: Facts, attempt: Attempt, *types: str) -> list[Event]:
    """The events of these types about an attempt, in order."""
    return [event for event in f.all(*types) if event.payload["attempt_id"] == attempt.attempt_id]


def was_worked_on(f: Facts, attempt: Attempt) -> bool:
    """Whether anything came of an attempt yet that a summary could tell."""
    return bool(attempt.summary or of_attempt(f, attempt, "gate.evaluated", "patch.applied", "patch.reverted"))


def owners(c: Campaign) -> tuple[str, str]:
    """Who implements and who reviews."""
    drivers = [str(c.spec.get(role, {}).get("driver", role)) for role in ("implementer", "reviewer")]
    return drivers[0], drivers[1]
