"""What a guard is asked, and the register of all guards by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from statemachine.state import Campaign, World


@dataclass(frozen=True, slots=True)
class Ask:
    """One event that wants to happen: the world before it, its campaign, its payload ``p``, its time, who says it."""

    world: World
    c: Campaign
    p: Mapping[str, Any]
    time_ns: int
    actor: str = "daemon"


Guard = Callable[[Ask], str | None]
GUARDS: dict[str, Guard] = {}


def guard(function: Guard) -> Guard:
    """Register a guard under its own name."""
    GUARDS[function.__name__] = function
    return function


def unless(holds: bool, missing: str) -> str | None:
    return None if holds else missing
