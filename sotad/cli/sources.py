"""Where a look at the campaigns comes from: the daemon, or its ledger when it is down."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

from sotad.cli.output import say
from sotad.client import Client
from sotad.errors import NotFound, Unreachable
from sotad.paths import StateDir

if TYPE_CHECKING:
    from statemachine.state import World

JSON = dict[str, Any]
PAGE = 1000


class Source(Protocol):
    """What can be looked at either way. ``running`` says which way it is."""

    running: bool

    def status(self) -> JSON:
        """As GET /v1/status; without a daemon, ``daemon`` is what the ledger says of the last one."""

    def campaign(self, name: str) -> JSON:
        """The whole state of one campaign. Raises NotFound."""

    def events(self, after: int, campaign: str | None) -> Iterator[JSON]:
        """The events there are now."""

    def why(self, seq: int) -> JSON:
        """The reasons of one event. Raises NotFound."""


def source(places: StateDir) -> Source:
    """The daemon, or with a remark the ledger.

    Raises:
        Unreachable: there is neither.
    """
    try:
        return Live(Client(places.socket))
    except Unreachable as gone:
        if not places.ledger.exists():
            raise
        say(f"the daemon is down ({gone}); this is what its ledger says")
        return Offline(places)


class Live:
    """The daemon's answers. Making one asks for the status, so that it is known to answer."""

    running = True

    def __init__(self, client: Client) -> None:
        self._client = client
        self._status: JSON = client.get("/v1/status")

    def status(self) -> JSON:
        """As of when this was made."""
        return self._status

    def campaign(self, name: str) -> JSON:
        """Asked now."""
        state: JSON = self._client.get(f"/v1/campaigns/{quote(name, safe='')}")
        return state

    def events(self, after: int, campaign: str | None) -> Iterator[JSON]:
        """Page by page."""
        only = {"campaign": campaign} if campaign is not None else {}
        while True:
            query = urlencode({"after": after, "limit": PAGE} | only)
            found = self._client.get(f"/v1/events?{query}")["events"]
            yield from found
            if len(found) < PAGE:
                return
            after = found[-1]["seq"]

    def why(self, seq: int) -> JSON:
        """Asked now."""
        found: JSON = self._client.get(f"/v1/events/{seq}/why")
        return found


class Offline:
    """The ledger's answers, folded here."""

    running = False

    def __init__(self, places: StateDir) -> None:
        self._places = places

    def status(self) -> JSON:
        """As of the ledger's last event."""
        from sotad.api.summary import summaries

        world = self._world
        daemon = {**world.daemon, "running": False, "seq": world.seq, "epoch": world.epoch}
        daemon["state_dir"] = str(self._places.root)
        return {"daemon": daemon, "campaigns": summaries(world)}

    @cached_property
    def _world(self) -> World:
        from sotad.api.past import world_at

        return world_at(self._places.ledger)

    def campaign(self, name: str) -> JSON:
        """As of the ledger's last event."""
        from dataclasses import asdict

        if name not in self._world.campaigns:
            raise NotFound(f"there is no campaign {name!r} in {self._places.ledger}")
        return asdict(self._world.campaigns[name])

    def events(self, after: int, campaign: str | None) -> Iterator[JSON]:
        """From the file."""
        from ledger.reader import Reader

        with Reader(self._places.ledger) as reader:
            for event in reader.events(after, None, campaign):
                yield event._asdict()

    def why(self, seq: int) -> JSON:
        """From the file."""
        from sotad.api.past import why_at

        return why_at(self._places.ledger, seq)
