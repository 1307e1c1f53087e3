"""Where verify reads from: a database or an export, row by row as they stand, however damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from ledger.chain import Row
from ledger.errors import NotALedger
from ledger.export import HEADER, parse_line
from ledger.keys import Checkpoint, checkpoint_of
from ledger.schema import DAMAGE, DDL, connect_reader
from ledger.tracing import Finding

_EPOCHS = "SELECT (SELECT epoch FROM fence), (SELECT max(epoch) FROM events NOT INDEXED)"
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
_LINE = 1 << 16
_FARTHEST = 1 << 32


class Source(Protocol):
    """What verify reads."""

    def rows(self) -> Iterator[Row | Finding]:
        """Yield the rows in stored order; may be called again."""

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints stored with the events."""

    def faults(self) -> list[Finding]:
        """Return what is wrong with the container itself."""


def open_source(path: Path) -> Source:
    """Open a ledger database or an export.

    Raises:
        NotFound, NotALedger, WrongSchema, Corrupt: it is neither.
    """
    try:
        connect_reader(path).close()
    except NotALedger:
        if path.is_file() and _first_line(path) == HEADER:
            return ExportSource(path)
        raise
    return DatabaseSource(path)


class ExportSource:
    """A file of JSON Lines as ``ledger.export`` writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> Iterator[Row | Finding]:
        """Yield the rows in the order of their lines."""
        with self._path.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, 2):
                said = parse_line(line.rstrip(b"\n"))
                if said is None:
                    yield Finding(None, "unreadable", f"line {number} is not a line of an export")
                elif not isinstance(said, Checkpoint):
                    yield said

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints among the lines."""
        with self._path.open("rb") as file:
            lines = (parse_line(line.rstrip(b"\n")) for line in file if line.startswith(b'{"checkpoint"'))
            return [said for said in lines if isinstance(said, Checkpoint)]

    def faults(self) -> list[Finding]:
        """An export has no container to be wrong."""
        return []


class DatabaseSource:
    """A ledger database, opened read-only; all rows come from one view of it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> Iterator[Row | Finding]:
        """Yield the rows by seq; after a damaged page, go on with the next row that can be read."""
        last: int | None = None
        step = 1
        while True:
            try:
                for row in self._rows_after(last):
                    last, step = row[0], 1
                    yield row
                return
            except DAMAGE as error:
                if step == 1:
                    yield Finding((last or 0) + 1, "unreadable", f"cannot be read: {error}")
                last, step = (last or 0) + step, step * 2
            if step > _FARTHEST:
                return

    def checkpoints(self) -> list[Checkpoint]:
        """Return the signed checkpoints that can be read; ``faults`` tells of damage to the others."""
        found: list[Checkpoint] = []
        with closing(connect_reader(self._path)) as connection, suppress(*DAMAGE, TypeError):
            connection.text_factory = _lenient
            for row in connection.execute("SELECT * FROM checkpoints NOT INDEXED ORDER BY seq"):
                found.append(checkpoint_of(dict(zip(Checkpoint._fields, row, strict=True))))
        return found

    def faults(self) -> list[Finding]:
        """Return damage of the file's structure, and any change of its tables, indexes and triggers."""
        with closing(connect_reader(self._path)) as connection:
            return [*_schema_faults(connection), *_integrity_faults(connection)]

    def _rows_after(self, last: int | None) -> Iterator[Row]:
        with closing(connect_reader(self._path)) as connection:
            connection.text_factory = _lenient
            where = "" if last is None else f"WHERE seq > {last}"
            for row in connection.execute(f"SELECT * FROM events NOT INDEXED {where} ORDER BY seq"):
                text = row[10]
                payload = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else None
                yield (*row[:10], payload, row[11])


def _schema_faults(connection: sqlite3.Connection) -> Iterator[Finding]:
    try:
        found = set(connection.execute(_SCHEMA))
        epoch, written = connection.execute(_EPOCHS).fetchone()
    except DAMAGE as error:
        yield Finding(None, "schema", f"the tables cannot be read: {error}")
        return
    expected = _expected_schema()
    for kind, name, *_ in expected - found:
        yield Finding(None, "schema", f"{kind} {name} is missing or altered")
    for kind, name, *_ in found - expected:
        if (kind, name) not in {item[:2] for item in expected}:
            yield Finding(None, "schema", f"{kind} {name} is not part of a ledger")
    if not isinstance(epoch, int) or (isinstance(written, int) and epoch < written):
        yield Finding(None, "schema", f"the fence stands at epoch {epoch}, events were written in epoch {written}")


def _expected_schema() -> set[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in DDL:
            connection.execute(statement)
        return set(connection.execute(_SCHEMA))


def _integrity_faults(connection: sqlite3.Connection) -> Iterator[Finding]:
    try:
        for (line,) in connection.execute("PRAGMA integrity_check"):
            if line != "ok":
                yield Finding(None, "unreadable", f"the file is damaged: {line}")
    except DAMAGE as error:
        yield Finding(None, "unreadable", f"the file is damaged: {error}")


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(_LINE).rstrip(b"\n")
