"""The declaration run by the ``transitions`` library: the authority for live events, and the diagram's source.

The library is used as a synchronous table only: no callbacks with effects, no methods added to a public
class. One typed call, :meth:`CampaignMachine.fire`, asks it where an event leads.
"""

from __future__ import annotations

import sys
from typing import Any

from transitions import EventData, MachineError
from transitions.extensions.nesting import HierarchicalMachine, NestedState

from statemachine.guards import GUARDS, Ask
from statemachine.machine import IllegalEvent, destination
from statemachine.table import PHASES, ROUND, STEPS


class _Phase(NestedState):
    separator = "."


class _Table(HierarchicalMachine):
    state_cls = _Phase


class _Position:
    """The model that ``transitions`` moves: nothing but a phase."""

    state: str


def _condition(name: str) -> Any:
    def holds(event: EventData) -> bool:
        return GUARDS[name](event.kwargs["ask"]) is None

    holds.__name__ = name.replace(" ", "_").replace(".", "_")
    return holds


def states() -> list[Any]:
    """The phases as ``transitions`` wants them: the round's parts nested in ``round``."""
    flat = [phase for phase in PHASES if not phase.startswith("round.")]
    return [*flat, {"name": "round", "children": list(ROUND), "initial": ROUND[0]}]


def rows() -> list[dict[str, Any]]:
    """The steps as ``transitions`` wants them, in the order in which they are tried."""
    return [
        {
            "trigger": step.event,
            "source": source,
            "dest": step.dest,
            "conditions": [_condition(name) for name in step.guards],
        }
        for step in STEPS
        for source in step.sources
    ]


class CampaignMachine:
    """Asks the declared table, through ``transitions``, where an event leads."""

    def __init__(self) -> None:
        self._table = _Table(
            model=None, states=states(), transitions=rows(), initial="draft", auto_transitions=False, send_event=True
        )

    def fire(self, ask: Ask, event: str) -> str:
        """The phase after a step.

        Raises:
            IllegalEvent: no row allows it; the message names the guard and the missing evidence.
        """
        position = _Position()
        self._table.add_model(position, initial=ask.c.phase)
        try:
            moved = self._table.trigger_event(position, event, ask=ask)
        except (MachineError, AttributeError):
            moved = False
        finally:
            self._table.remove_model(position)
        if not moved:
            destination(ask.world, ask.c, event, ask.p, ask.time_ns, ask.actor)  # raises, and says why
            raise IllegalEvent(ask.c.id, ask.c.phase, event, "transitions", "agreement with the compiled table")
        return str(position.state)


def diagram() -> str:
    """The machine as a Mermaid state diagram, for the README: one arrow per pair of phases and event.

    Halting, resuming and cancelling are left out of the arrows (they touch every phase) and said in a note.
    """
    everywhere = {"campaign.paused", "campaign.blocked", "campaign.resumed", "campaign.cancel_requested"}
    everywhere |= {"budget.exhausted", "resource.wait_expired"}
    arrows: dict[tuple[str, str], list[str]] = {}
    for step in STEPS:
        if step.event in everywhere:
            continue
        for source in step.sources:
            if source != step.dest:
                arrows.setdefault((source, step.dest), []).append(step.event)
    lines = ["stateDiagram-v2", "    [*] --> draft"]
    lines += ["    state round {", *(f"        {_node('round.' + name)} : {name}" for name in ROUND), "    }"]
    for (source, dest), labels in arrows.items():
        lines.append(f"    {_node(source)} --> {_node(dest)} : {' / '.join(dict.fromkeys(labels))}")
    lines += [
        "    closed --> [*]",
        "    note right of stopping : from every live phase when cancelled or when the budget is used up",
        "    note right of blocked : paused and blocked are reachable from every live phase and return to it",
    ]
    return "\n".join(lines) + "\n"


def _node(phase: str) -> str:
    return phase.replace(".", "_")


def main() -> None:
    """Print the diagram."""
    sys.stdout.write(diagram())


if __name__ == "__main__":
    main()
