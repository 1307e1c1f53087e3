"""Snapshots: the folded state after some event, so that a start costs only the tail. Always disposable."""

from __future__ import annotations

import sqlite3
from hashlib import sha256
from typing import NamedTuple

from orjson import dumps

from ledger.chain import GENESIS, Row, row_hash
from ledger.replay import Anchor
from ledger.schema import COLUMNS


class Snapshot(NamedTuple):
    """A state and the event after which it held."""

    anchor: Anchor
    state: bytes


def save_snapshot(connection: sqlite3.Connection, seq: int, state: bytes, machine: str) -> None:
    """Store the state after ``seq`` as folded by ``machine``, in place of that machine's earlier one.

    Raises:
        ValueError: there is no event ``seq``.
    """
    row = connection.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        raise ValueError(f"snapshot: there is no event {seq}")
    connection.execute(
        "INSERT OR REPLACE INTO snapshots VALUES (?,?,?,?,?)",
        (machine, seq, row[0], _digest(machine, seq, row[0], state), state),
    )


def load_snapshot(connection: sqlite3.Connection, machine: str) -> Snapshot | None:
    """Return the machine's snapshot if it is whole and its event stands unchanged, else None."""
    row = connection.execute("SELECT seq, hash, digest, state FROM snapshots WHERE machine = ?", (machine,)).fetchone()
    if row is None:
        return None
    seq, hash_, digest, state = row
    if digest != _digest(machine, seq, hash_, state) or not _stands(connection, seq, hash_):
        return None
    return Snapshot(Anchor(seq, hash_), state)


def _stands(connection: sqlite3.Connection, seq: int, hash_: str) -> bool:
    """Check the one row that the snapshot rests on, against the row before it."""
    rows: list[Row] = connection.execute(
        f"SELECT {COLUMNS} FROM events WHERE seq IN (?, ?) ORDER BY seq", (seq - 1, seq)
    ).fetchall()
    if not rows or rows[-1][0] != seq or rows[-1][11] != hash_:
        return False
    previous = rows[0][11] if len(rows) == 2 else GENESIS
    return (seq == 1 or len(rows) == 2) and row_hash(previous, rows[-1][:10], rows[-1][10]) == hash_


def _digest(machine: str, seq: int, hash_: str, state: bytes) -> str:
    return sha256(dumps((machine, seq, hash_)) + state).hexdigest()
