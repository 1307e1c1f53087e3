"""A journal without a machine, for activities that are run by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ledger import catalogue
from ledger.events import Event
from statemachine.fold import APPLY
from statemachine.state import Campaign

JSON = dict[str, Any]


class Records:
    """A journal without a machine: events are checked against the catalogue and folded, and never refused."""

    def __init__(self, c: Campaign) -> None:
        self.world = SimpleNamespace(campaigns={c.id: c}, seq=0)
        self.events: dict[str, Event] = {}
        self.clock = time.time_ns

    async def record(self, campaign: str, type_: str, payload: Mapping[str, Any], **about: Any) -> Event:
        key = about["key"]
        if key not in self.events:
            version, checked = catalogue.validate(type_, payload)
            self.world.seq += 1
            kept = (self.world.seq, campaign, self.world.seq, self.clock(), 1, type_, version, "daemon", None, key)
            self.events[key] = Event(*kept, dict(checked), "")
            APPLY.get(type_, lambda *_: None)(self.world.campaigns[campaign], self.events[key], dict(checked))
        return self.events[key]

    def find(self, key: str) -> Event | None:
        return self.events.get(key)

    def of(self, type_: str) -> list[JSON]:
        return [event.payload for event in self.events.values() if event.type == type_]
