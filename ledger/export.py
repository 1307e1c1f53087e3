"""JSON Lines: a header, one line per event with every column, one line per checkpoint.

Every line is the compact JSON that this module would write again from what the line says: a reader can insist
on that, so nothing can hide in a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orjson import JSONDecodeError, dumps, loads

from ledger.chain import Row
from ledger.events import Event
from ledger.keys import Checkpoint, checkpoint_of
from ledger.schema import COLUMNS, SCHEMA_VERSION, connect_reader, explained

HEADER = dumps({"format": "sotad ledger export", "layout": SCHEMA_VERSION})
_HEAD = Event._fields[:10]
_TYPES = {
    (int, str, int, int, int, str, int, str, cause, key, bytes, str)
    for cause in (int, type(None))
    for key in (str, type(None))
}


def export(path: Path, target: BinaryIO) -> int:
    """Write the ledger as it is now to ``target``; return the number of events.

    Rows are copied as they stand, sound or not: verify judges.

    Raises:
        NotFound, NotALedger, WrongSchema, Corrupt: the ledger cannot be read.
        OSError: the target cannot be written.
    """
    count = 0
    for line in export_lines(path):
        target.write(line + b"\n")
        count += line.startswith(b'{"seq"')
    return count


def export_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of an export, all from one consistent view, while a daemon may be writing.

    Raises:
        NotFound, NotALedger, WrongSchema, Corrupt: the ledger cannot be read.
    """
    connection = connect_reader(path)
    try:
        with explained(path):
            connection.execute("BEGIN")
            yield HEADER
            for row in connection.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq"):
                yield event_line(row)
            for found in connection.execute("SELECT * FROM checkpoints ORDER BY seq"):
                yield checkpoint_line(Checkpoint(*found))
    finally:
        connection.close()


def event_line(row: Row) -> bytes:
    """Return the line of one row; the payload stands in it byte for byte."""
    head: bytes = dumps({**dict(zip(_HEAD, row[:10], strict=True)), "hash": row[11]})
    payload: bytes = row[10]
    return head[:-1] + b',"payload":' + payload + b"}"


def checkpoint_line(checkpoint: Checkpoint) -> bytes:
    """Return the line of one checkpoint."""
    return dumps({"checkpoint": checkpoint._asdict()})


def parse_line(line: bytes) -> Row | Checkpoint | None:
    """Return what a line of an export says, or None if this module never wrote such a line."""
    try:
        said = loads(line)
        if "checkpoint" in said:
            checkpoint = checkpoint_of(said["checkpoint"])
            return checkpoint if checkpoint_line(checkpoint) == line else None
        payload = line[line.index(b',"payload":') + len(b',"payload":') : -1]
        row = (*(said[name] for name in _HEAD), payload, said["hash"])
        typed = tuple(map(type, row)) in _TYPES
        return row if typed and event_line(row) == line else None
    except (JSONDecodeError, ValueError, KeyError, TypeError):
        return None
