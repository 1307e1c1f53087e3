"""The machine itself: the declaration of :mod:`statemachine.table`, run by ``transitions``, and its compiled form.

Two readers of one table. :class:`CampaignMachine` is a ``transitions`` machine, used without callbacks for the
legality of live events and for the diagram. :func:`destination` is the same table as a dictionary, some
hundred times faster, for folds and long replays. A test holds them equal on every phase and event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from statemachine.guards import GUARDS, Ask
from statemachine.state import Campaign, World
from statemachine.table import DAEMON_FACTS, FACTS, STEPS, Step


class IllegalEvent(ValueError):
    """The machine refuses an event: in which phase, which event, which guard, and what evidence is missing."""

    def __init__(self, campaign: str, phase: str, event: str, guard: str, missing: str) -> None:
        self.campaign, self.phase, self.event, self.guard, self.missing = campaign, phase, event, guard, missing
        super().__init__(
            f"{event} is illegal for campaign {campaign!r} in phase {phase}: guard {guard} misses {missing}"
        )


def _compile() -> dict[tuple[str, str], tuple[Step, ...]]:
    rows: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in STEPS:
        for source in step.sources:
            rows[source, step.event].append(step)
    return {key: tuple(steps) for key, steps in rows.items()}


COMPILED = _compile()
_ELSEWHERE = {
    event: sorted({source for step in STEPS if step.event == event for source in step.sources})
    for event in {step.event for step in STEPS}
}


def _refused(ask: Ask, guards: tuple[str, ...]) -> tuple[str, str] | None:
    """The first guard that does not hold and what it misses, or None."""
    for name in guards:
        missing = GUARDS[name](ask)
        if missing is not None:
            return name, missing
    return None


def destination(
    world: World, c: Campaign, event: str, payload: Mapping[str, Any], time_ns: int, actor: str = "daemon"
) -> str:
    """The phase that a step leads to from the campaign's present one.

    Raises:
        IllegalEvent: no row of the table allows it.
    """
    ask = Ask(world, c, payload, time_ns, actor)
    refusals: list[tuple[int, tuple[str, str]]] = []
    for step in COMPILED.get((c.phase, event), ()):
        refusal = _refused(ask, step.guards)
        if refusal is None:
            return step.dest
        refusals.append((step.guards.index(refusal[0]), refusal))
    if not refusals:
        known = _ELSEWHERE.get(event)
        missing = f"one of the phases {', '.join(known)}" if known else "an event type of the catalogue"
        refusals.append((0, ("phase", missing)))
    raise IllegalEvent(c.id, c.phase, event, *_most_telling(refusals))


def _most_telling(refusals: list[tuple[int, tuple[str, str]]]) -> tuple[str, str]:
    """The row that came furthest is the one that was meant; of equals the last, as rows go special to general."""
    return max(reversed(refusals), key=lambda found: found[0])[1]


def admit(
    world: World, campaign: str, event: str, payload: Mapping[str, Any], time_ns: int, actor: str = "daemon"
) -> str:
    """Check one event against the state before it; return the phase after it.

    Raises:
        IllegalEvent: the machine refuses it.
    """
    if not campaign:
        if event in DAEMON_FACTS:
            return ""
        raise IllegalEvent("", "daemon", event, "campaign", "a campaign")
    c = world.campaigns.get(campaign) or Campaign(campaign, created_ns=time_ns)
    if event not in FACTS:
        return destination(world, c, event, payload, time_ns, actor)
    if c.phase == "draft":
        raise IllegalEvent(campaign, c.phase, event, "phase", "campaign.created")
    refusal = _refused(Ask(world, c, payload, time_ns, actor), FACTS[event])
    if refusal is not None:
        raise IllegalEvent(campaign, c.phase, event, *refusal)
    return c.phase
