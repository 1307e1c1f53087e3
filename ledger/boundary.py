"""What a ledger asks of a catalogue of event types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from orjson import loads

from ledger.chain import Row
from ledger.events import Event


class Catalogue(Protocol):
    """Which event types exist; the module ``ledger.catalogue`` is one."""

    def validate(self, type_: str, payload: Mapping[str, Any], /) -> tuple[int, dict[str, Any]]:
        """Return the type's version and the payload to store; raise ValueError to refuse."""

    def upcast(self, type_: str, version: int, payload: dict[str, Any], /) -> dict[str, Any]:
        """Return an old payload in its current shape; raise ValueError if it is newer than known.

        Returning the very object that was given says that this version of the type is the current one.
        """


def default_catalogue() -> Catalogue:
    """Return this release's own event types."""
    from ledger import catalogue  # pydantic is slow to import: only who writes or reads events pays

    return cast(Catalogue, catalogue)


def event_of(row: Row, catalogue: Catalogue) -> Event:
    """Decode one row and bring its payload into its current shape.

    Raises:
        ValueError: the payload is not JSON, or newer than the catalogue knows.
    """
    payload = catalogue.upcast(row[5], row[6], loads(row[10]))
    return tuple.__new__(Event, (*row[:10], payload, row[11]))
