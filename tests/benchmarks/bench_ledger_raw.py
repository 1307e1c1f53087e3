"""The floor: what the disk and a plain ``sqlite3`` loop do with the same rows.

The raw rival makes the same table with the same indexes in WAL with ``synchronous=FULL``, starts each transaction
with BEGIN IMMEDIATE, binds twelve ready values per row (payload text encoded beforehand, no hashing, no checks, no
key) with one ``execute`` per row, and commits.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from pathlib import Path

import orjson
from bench_ledger_event import PAYLOAD, TYPE

from ledger.chain import row_hash
from ledger.schema import DDL

TEXT = orjson.dumps(PAYLOAD, option=orjson.OPT_SORT_KEYS).decode()
INSERT = "INSERT INTO events VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"


class Raw:
    """One open database and the next number."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        for statement in DDL:
            self.connection.execute(statement)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.seq = 0
        self.hash = "0" * 64

    def append(self, events: int, batch: int, chained: bool = False) -> float:
        """Append in transactions of ``batch``; return events per second.

        ``chained`` encodes every payload and hashes every row behind the one before it, as a chained ledger must;
        still nothing is checked.
        """
        execute, begin = self.connection.execute, time.perf_counter()
        for _ in range(events // batch):
            execute("BEGIN IMMEDIATE")
            for _ in range(batch):
                self.seq += 1
                head = (self.seq, "c", self.seq, time.time_ns(), 1, TYPE, 1, "daemon", None, None)
                if chained:
                    data = orjson.dumps(PAYLOAD, option=orjson.OPT_SORT_KEYS)
                    self.hash = row_hash(self.hash, head, data)
                    execute(INSERT, (*head, data.decode(), self.hash))
                else:
                    execute(INSERT, (*head, TEXT, self.hash))
            execute("COMMIT")
        return events / (time.perf_counter() - begin)


def sync_floor(folder: Path, count: int) -> float:
    """Append 4 KB and fdatasync, ``count`` times; return syncs per second."""
    file = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        begin = time.perf_counter()
        for _ in range(count):
            os.write(file, b"x" * 4096)
            os.fdatasync(file)
        return count / (time.perf_counter() - begin)
    finally:
        os.close(file)


def plain_scan(path: Path, columns: str) -> float:
    """Read every row, decode its payload, hash it behind the hash before; return rows per second.

    The least that anyone must do who replays with verification: it builds no event and checks no column.
    """
    connection = sqlite3.connect(path)
    begin, rows, previous = time.perf_counter(), 0, b""
    for row in connection.execute(f"SELECT {columns}, CAST(payload AS BLOB) FROM events ORDER BY seq"):
        payload = row[-1]
        orjson.loads(payload)
        previous = hashlib.sha256(previous + payload).digest()
        rows += 1
    seconds = time.perf_counter() - begin
    connection.close()
    return rows / seconds
