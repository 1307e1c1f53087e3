"""Every event in order, the chain checked on the way: what a daemon starts from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
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
_AFTER = f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq"


def replay(path: Path, after: Anchor = START, catalogue: Catalogue | None = None) -> Iterator[Event]:
    """Yield every event after the anchor, in order, each only after its hash was checked.

    One loop with the columns by name: a million events pass through here at every start.

    Raises:
        Corrupt: at the first row that does not continue the chain; nothing of it was yielded.
        NotFound, NotALedger, WrongSchema: there is no such ledger.
    """
    seq, previous = after
    upcast, make = (catalogue or default_catalogue()).upcast, tuple.__new__
    current: dict[str, int] = {}
    with closing(connect_reader(path)) as connection, explained(path):
        try:
            for (
                stored_seq, campaign, campaign_seq, time_ns, epoch, type_, version, actor, cause, key, data, hash_
            ) in connection.execute(_AFTER, (seq,)):  # fmt: skip
                seq += 1
                head = (stored_seq, campaign, campaign_seq, time_ns, epoch, type_, version, actor, cause, key)
                if stored_seq != seq or row_hash(previous, head, data) != hash_:
                    raise _broken(path, seq)
                previous = hash_
                payload = stored = loads(data)
                if current.get(type_) != version:
                    payload = upcast(type_, version, stored)
                    if payload is stored:
                        current[type_] = version
                yield make(Event, (*head, payload, hash_))
        except (TypeError, JSONDecodeError):
            raise _broken(path, seq) from None


def _broken(path: Path, seq: int) -> Corrupt:
    return Corrupt(f"{path}: the chain breaks at event {seq}; run `sotactl ledger verify {path}` and restore a copy")
