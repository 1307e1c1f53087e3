"""The judge of a ledger: would the machine, at that point, have let each event be written?"""

from __future__ import annotations

from ledger.events import Event
from statemachine.fold import advance
from statemachine.machine import IllegalEvent, admit
from statemachine.state import World


class Judge:
    """Call it with each event in ledger order. It keeps the state; decisions it can redo, it redoes."""

    def __init__(self) -> None:
        self.world = World()

    def __call__(self, event: Event) -> str | None:
        """Return None for an event that the machine admits, else what is wrong with it.

        A refused event is not applied, so that the events after it are judged on what was legal.
        """
        try:
            admit(self.world, event.campaign, event.type, event.payload, event.time_ns, event.actor)
            advance(self.world, event)
        except IllegalEvent as refusal:
            return str(refusal)
        except Exception as error:  # a forged payload may lack anything: a finding, not the end
            return f"{event.type}: does not fit the state before it: {type(error).__name__}: {error}"
        return None
