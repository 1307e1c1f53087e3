"""The register of what each event type changes."""

from __future__ import annotations

from collections.abc import Callable

from ledger.events import Event
from statemachine.state import JSON, Campaign

Apply = Callable[[Campaign, Event, JSON], None]
APPLY: dict[str, Apply] = {}


def on(type_: str) -> Callable[[Apply], Apply]:
    def register(function: Apply) -> Apply:
        APPLY[type_] = function
        return function

    return register
