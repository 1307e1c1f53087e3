"""Every event in order, the chain checked on the way: what a daemon starts from."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orjson import JSONDecodeError, loads

from ledger.boundary import Catalogue, default_catalogue
from ledger.chain import GENESIS, row_hash
from ledger.errors import Corrupt
from ledger.events import Event
from ledger.schema import COLUMNS, connect_reader, explained


class Anchor(NamedTuple):
    """A place in the chain that is trusted already."""

    seq: int
    hash: str


START = Anchor(0, GENESIS)


def replay(path: Path, after: Anchor = START, catalogue: Catalogue | None = None) -> Iterator[Event]:
    """Yield every event after the anchor, in order, each only after its hash was checked.

    Raises:
        Corrupt: at the first row that does not continue the chain; nothing of it was yielded.
        NotFound, NotALedger, WrongSchema: there is no such ledger.
    """
    connection = connect_reader(path)
    try:
        with explained(path):
            yield from checked(connection, after, catalogue or default_catalogue(), path)
    finally:
        connection.close()


def checked(
    connection: sqlite3.Connection, after: Anchor, catalogue: Catalogue, path: Path
) -> Iterator[Event]:
    """Yield the connection's events after the anchor, checking the chain.

    Raises:
        Corrupt: at the first row that does not continue the chain.
    """
    seq, previous = after
    upcast, make = catalogue.upcast, tuple.__new__
    try:
        for row in connection.execute(f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq", (seq,)):
            seq += 1
            payload, stored = row[10], row[11]
            if row[0] != seq or row_hash(previous, row[:10], payload) != stored:
                raise _broken(path, seq)
            previous = stored
            yield make(Event, (*row[:10], upcast(row[5], row[6], loads(payload)), stored))
    except (TypeError, JSONDecodeError):
        raise _broken(path, seq) from None


def _broken(path: Path, seq: int) -> Corrupt:
    return Corrupt(
        f"{path}: the chain breaks at event {seq}; run `sotactl ledger verify {path}` and restore a copy"
    )
