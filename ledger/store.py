"""``Ledger``: the one way to write. Synchronous; every event it returns is on the disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

from ledger.boundary import Catalogue, default_catalogue
from ledger.chain import GENESIS
from ledger.errors import Deposed, LedgerError
from ledger.events import Draft, Event
from ledger.keys import Checkpoint, Signer, append_copy
from ledger.planning import Checker, Outcome, Planner, Request
from ledger.reader import Reader
from ledger.schema import BUSY_SECONDS, connect_writer, explained
from ledger.snapshots import Snapshot, load_snapshot, save_snapshot
from ledger.turn import Turn

_WIDTH = len(Event._fields)
_CHUNK = 64 * _WIDTH
T = TypeVar("T")


class Ledger:
    """The only writer of a ledger file. Use it from one thread at a time; ``Writer`` does that from asyncio.

    ``redact`` runs on every payload before it is checked and hashed. ``copies`` are further folders that
    receive each signed checkpoint.
    """

    def __init__(
        self,
        path: Path,
        catalogue: Catalogue | None,
        clock: Callable[[], int],
        redact: Callable[[Any], Any] | None,
        copies: Sequence[Path],
    ) -> None:
        self.path = path
        self.epoch: int | None = None
        self._catalogue = catalogue or default_catalogue()
        self._clock = clock
        self._content = Checker(self._catalogue, redact).content
        self._copies = (path.parent, *copies)
        with explained(path):
            self._turn = Turn(path.with_name(path.name + ".turn"), BUSY_SECONDS)
        self._connection: sqlite3.Connection | None = None
        self._planner: Planner | None = None

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        catalogue: Catalogue | None = None,
        clock: Callable[[], int] = time.time_ns,
        redact: Callable[[Any], Any] | None = None,
        copies: Sequence[Path] = (),
    ) -> Self:
        """Open the ledger, creating the file if there is none.

        Raises:
            Unwritable, NotALedger, WrongSchema, Corrupt: with what to do about it.
        """
        ledger = cls(Path(path), catalogue, clock, redact, copies)
        try:
            with ledger._turn:
                ledger._connect()
        except BaseException:
            ledger._turn.close()
            raise
        return ledger

    def claim_epoch(self) -> int:
        """Become the one writer: every earlier claimant is deposed from here on.

        Raises:
            Unwritable: the claim could not be made durable.
        """

        def claim(connection: sqlite3.Connection) -> int:
            connection.execute("UPDATE fence SET epoch = epoch + 1")
            return int(connection.execute("SELECT epoch FROM fence").fetchone()[0])

        self.epoch = self._commit(claim)
        self._planner = None
        return self.epoch

    def append(self, drafts: Sequence[Draft], *, expect: Mapping[str, int] | None = None) -> list[Event]:
        """Write the drafts as one unit, in order; they are on the disk when this returns.

        ``expect`` maps a campaign to the last ``campaign_seq`` that the caller has seen (0: none). A draft
        whose key is already in the ledger with the same content is answered with the event that is there.

        Raises:
            InvalidEvent, Conflict, KeyReused, Deposed: refused, nothing was written.
            Unwritable: not acknowledged; retry under the same keys.
        """
        (outcome,) = self.append_group([self.prepare(drafts, expect)])
        if isinstance(outcome, LedgerError):
            raise outcome
        return outcome

    def prepare(self, drafts: Sequence[Draft], expect: Mapping[str, int] | None = None) -> Request:
        """Do the part of an append that needs nothing of the ledger; in any thread.

        Raises:
            InvalidEvent: a draft does not fit the catalogue, or cannot be stored.
        """
        return Request(drafts, list(map(self._content, drafts)), expect)

    def append_group(self, requests: Sequence[Request]) -> list[Outcome]:
        """Write many requests with one sync; each is a unit of its own, with its own events or error.

        Raises:
            Deposed, Unwritable: for the whole group, of which nothing is acknowledged.
        """

        def write(connection: sqlite3.Connection) -> list[Outcome]:
            planner = self._planner or self._fenced(connection)
            outcomes, columns = planner.plan(requests)
            self._insert(connection, columns)
            return outcomes

        return self._in_turn(write)

    def head(self) -> tuple[int, str]:
        """Return seq and hash of the last event, (0, 64 zeros) if there is none."""
        with self.reader() as reader:
            return reader.head()

    def events(
        self, after: int = 0, until: int | None = None, campaign: str | None = None, limit: int | None = None
    ) -> Iterator[Event]:
        """Yield events with ``after < seq <= until``, in order, on a connection of its own."""
        with self.reader() as reader:
            yield from reader.events(after, until, campaign, limit)

    def by_key(self, key: str) -> Event | None:
        """Return the event that was written under this idempotency key."""
        with self.reader() as reader:
            return reader.by_key(key)

    def reader(self) -> Reader:
        """Open a read-only view of this ledger; close it after use."""
        return Reader(self.path, self._catalogue)

    def checkpoint(self, signer: Signer) -> Checkpoint | None:
        """Sign the head; return None for an empty ledger.

        Written to the database first, then as a line to ``checkpoints.jsonl`` beside it and in every copy. A head
        that is signed already keeps its signature.

        Raises:
            Deposed, Unwritable: not written, or a copy could not be.
        """

        def sign(connection: sqlite3.Connection) -> Checkpoint | None:
            planner = self._fenced(connection)
            if not planner.seq:
                return None
            place = (planner.seq, signer.public.key_id)
            stored = connection.execute("SELECT * FROM checkpoints WHERE seq = ? AND key_id = ?", place).fetchone()
            if stored:
                return Checkpoint(*stored)
            signed = signer.sign(planner.seq, planner.hash, self._clock())
            connection.execute("INSERT INTO checkpoints VALUES (?,?,?,?,?)", signed)
            return signed

        signed = self._commit(sign)
        with explained(self.path):
            for folder in self._copies:
                if signed:
                    append_copy(folder, signed)
        return signed

    def save_snapshot(self, seq: int, state: bytes, machine_digest: str) -> None:
        """Keep the folded state after ``seq``, in place of the machine's earlier snapshot.

        Raises:
            ValueError: there is no event ``seq``.
            Deposed, Unwritable: not written; the earlier snapshot stays.
        """

        def save(connection: sqlite3.Connection) -> None:
            self._fenced(connection)
            save_snapshot(connection, seq, state, machine_digest)

        self._commit(save)

    def load_snapshot(self, machine_digest: str) -> Snapshot | None:
        """Return the machine's snapshot if it still fits the ledger, else None: then replay everything.

        Raises:
            Corrupt: the file cannot be read.
        """
        with self.reader() as reader, explained(self.path):
            return load_snapshot(reader.connection, machine_digest)

    def close(self) -> None:
        """Stop writing; everything that was acknowledged is on the disk already."""
        try:
            if self._connection is not None:
                with self._turn:
                    self._disconnect()
        finally:
            self._turn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work in one durable transaction, in our turn."""

        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

        return self._in_turn(transaction)

    def _in_turn(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work while nobody else writes.

        However it fails, the connection is dropped with all that was read over it, so that the next turn starts from
        what the file really holds.
        """
        with explained(self.path), self._turn:
            try:
                return work(self._connection or self._connect())
            except BaseException:
                self._disconnect()
                raise

    def _insert(self, connection: sqlite3.Connection, columns: list[Any]) -> None:
        """Write the rows in one durable transaction that finds the epoch still ours."""
        if len(columns) <= _CHUNK:  # one statement is a transaction of its own
            self._insert_fenced(connection, columns)
            return
        connection.execute("BEGIN IMMEDIATE")
        for start in range(0, len(columns), _CHUNK):
            self._insert_fenced(connection, columns[start : start + _CHUNK])
        connection.execute("COMMIT")

    def _insert_fenced(self, connection: sqlite3.Connection, columns: list[Any]) -> None:
        """Insert the rows if the epoch is ours: one statement reads the fence and writes."""
        rows = len(columns) // _WIDTH
        if not rows:
            self._fenced(connection)
        elif connection.execute(_insert_statement(rows), (*columns, self.epoch)).rowcount != rows:
            self._fenced(connection)
            raise Deposed(f"{self.path}: epoch {self.epoch} was deposed while writing; stop this daemon")

    def _fenced(self, connection: sqlite3.Connection) -> Planner:
        """Return what the next event builds on, after making sure that it is still ours to write."""
        (epoch,) = connection.execute("SELECT epoch FROM fence").fetchone()
        if self.epoch is None:
            raise Deposed(f"{self.path}: claim an epoch before writing")
        if epoch != self.epoch:
            raise Deposed(f"{self.path}: epoch {self.epoch} was deposed by epoch {epoch}; stop this daemon")
        if self._planner is None:
            head = connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            self._planner = Planner(connection, self._catalogue, self._clock, epoch, head or (0, GENESIS))
        return self._planner

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect_writer(self.path)
        return self._connection

    def _disconnect(self) -> None:
        """Forget the connection and everything that was read over it."""
        connection, self._connection, self._planner = self._connection, None, None
        if connection is not None:
            connection.close()


@cache
def _insert_statement(rows: int) -> str:
    """Many rows in one statement: less work per row, and the interpreter is free all the while."""
    values = ",".join(["(" + ",".join("?" * _WIDTH) + ")"] * rows)
    return f"INSERT INTO events SELECT * FROM (VALUES {values}) WHERE (SELECT epoch FROM fence) = ?"
