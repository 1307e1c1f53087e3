"""``Reader``: look at a ledger file, also while a daemon writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ledger.boundary import Catalogue, default_catalogue, event_of
from ledger.chain import GENESIS
from ledger.events import Event
from ledger.schema import COLUMNS, connect_reader, explained

_WHERE = "seq > :after AND (:until IS NULL OR seq <= :until)"


class Reader:
    """Read-only access to one ledger; sees every event that was acknowledged before each call.

    The chain is not checked here: ``replay`` and ``verify`` do that.
    """

    def __init__(self, path: Path | str, catalogue: Catalogue | None = None) -> None:
        self.path = Path(path)
        self.connection: sqlite3.Connection = connect_reader(self.path)
        self._catalogue = catalogue

    def head(self) -> tuple[int, str]:
        """Return seq and hash of the last event, (0, 64 zeros) if there is none."""
        with explained(self.path):
            row = self.connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return row or (0, GENESIS)

    def events(
        self, after: int = 0, until: int | None = None, campaign: str | None = None, limit: int | None = None
    ) -> Iterator[Event]:
        """Yield events with ``after < seq <= until``, of one campaign if given, at most ``limit``, in order.

        Raises:
            Corrupt: the file cannot be read.
        """
        catalogue = self._events_of()
        query = f"SELECT {COLUMNS} FROM events WHERE {_WHERE}"
        if campaign is not None:
            query += " AND campaign = :campaign"
        query += " ORDER BY seq LIMIT :limit"
        values = {
            "after": after,
            "until": until,
            "campaign": campaign,
            "limit": -1 if limit is None else limit,
        }
        with explained(self.path):
            for row in self.connection.execute(query, values):
                yield event_of(row, catalogue)

    def event(self, seq: int) -> Event | None:
        """Return one event by its number."""
        return next(self.events(seq - 1, seq), None)

    def by_key(self, key: str) -> Event | None:
        """Return the event that was written under this idempotency key."""
        with explained(self.path):
            row = self.connection.execute(f"SELECT {COLUMNS} FROM events WHERE key = ?", (key,)).fetchone()
        return event_of(row, self._events_of()) if row else None

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _events_of(self) -> Catalogue:
        if self._catalogue is None:
            self._catalogue = default_catalogue()
        return self._catalogue
