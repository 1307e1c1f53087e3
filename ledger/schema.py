"""The file: its tables, how it is opened for writing and for reading, and which SQLite it runs on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ledger.durable import sync_folder
from ledger.errors import Corrupt, LedgerError, NotALedger, NotFound, Unwritable, WrongSchema

APPLICATION_ID = 0x534F5441  # "SOTA"
SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0

DDL = (
    """CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  campaign TEXT NOT NULL,
  campaign_seq INTEGER NOT NULL,
  time_ns INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  type TEXT NOT NULL,
  version INTEGER NOT NULL,
  actor TEXT NOT NULL,
  cause INTEGER,
  key TEXT,
  payload TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT""",
    "CREATE UNIQUE INDEX events_by_campaign ON events (campaign, campaign_seq)",
    "CREATE UNIQUE INDEX events_by_key ON events (key) WHERE key IS NOT NULL",
    """CREATE TABLE checkpoints (
  seq INTEGER NOT NULL,
  hash TEXT NOT NULL,
  time_ns INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  signature TEXT NOT NULL,
  PRIMARY KEY (seq, key_id)
) STRICT""",
    "CREATE TABLE fence (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL) STRICT",
    """CREATE TABLE snapshots (
  machine TEXT PRIMARY KEY,
  seq INTEGER NOT NULL,
  hash TEXT NOT NULL,
  digest TEXT NOT NULL,
  state BLOB NOT NULL
) STRICT""",
    *(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in ("events", "checkpoints")
        for verb in ("UPDATE", "DELETE")
    ),
)

COLUMNS = "seq,campaign,campaign_seq,time_ns,epoch,type,version,actor,cause,key,CAST(payload AS BLOB),hash"
"""All columns in the order of :class:`ledger.events.Event`, the payload as bytes."""


DAMAGE = (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError)
"""What a damaged file can make the sqlite3 module raise; it does not decode its own error messages leniently."""


class SqliteBuild(NamedTuple):
    """Which SQLite this is, whether it has the WAL-reset bug, and why that is safe here."""

    version: str
    affected: bool
    arrangement: str


def sqlite_build(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> SqliteBuild:
    """Say whether the SQLite in use can lose commits when two connections checkpoint and write at once.

    The bug is in 3.7.0 to 3.51.2, except 3.50.7 and later in 3.50 and 3.44.6 and later in 3.44.
    """
    fixed_branch = (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    affected = (3, 7) <= version < (3, 51, 3) and not fixed_branch
    arrangement = "commits and checkpoints only under the lock ledger.db.turn; readers are read-only"
    return SqliteBuild(".".join(map(str, version)), affected, arrangement)


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the file for writing, creating it if there is none: WAL, every commit synced. Call it in our turn.

    Raises:
        Unwritable, NotALedger, WrongSchema, Corrupt: with what to do about it.
    """
    with explained(path):
        if not path.exists():
            _create(path)
        connection = _open_uri(path.resolve().as_uri() + "?mode=rw")
        try:
            check_identity(connection, path)
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the file without any means to change it; works beside a writer and in a read-only directory.

    Raises:
        NotFound, NotALedger, WrongSchema, Corrupt: with what to do about it.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no such ledger; give the path of a ledger.db")
    with explained(path):
        connection = _read_only(path)
        try:
            connection.execute("PRAGMA query_only=1")
            check_identity(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def check_identity(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not a ledger of this layout.

    Raises:
        NotALedger, WrongSchema: it is not.
    """
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise NotALedger(_not_a_ledger(path))
    version = _pragma(connection, "user_version")
    if version != SCHEMA_VERSION:
        raise WrongSchema(
            f"{path}: ledger layout {version}, this release reads layout {SCHEMA_VERSION};"
            " use the release that wrote it, nothing was changed"
        )


class explained:
    """Context that turns what SQLite and the file system say into one of our errors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return  # our own mistake, not the file's
        if isinstance(error, (*DAMAGE, OSError)):
            raise explain(error, self._path) from error


def explain(error: Exception, path: Path) -> LedgerError:
    """Name the trouble behind an error of SQLite or of the file system."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return NotALedger(_not_a_ledger(path))
    if code == sqlite3.SQLITE_CORRUPT or not (code or isinstance(error, OSError)):
        return Corrupt(f"{path}: damaged ({error}); keep the file, run `sotactl ledger verify`, restore from a copy")
    advice = {
        sqlite3.SQLITE_FULL: "the disk is full; free space and start again",
        sqlite3.SQLITE_READONLY: "it is read-only; make the file and its directory writable",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that its directory exists and is writable",
        sqlite3.SQLITE_BUSY: "another process holds it; stop that one first",
    }.get(code, "the file system failed; check the disk")
    return Unwritable(f"{path}: {advice} ({error}); nothing that was acknowledged is lost")


def _create(path: Path) -> None:
    """Make a complete ledger under another name, then give it its own: the name never stands for half of one."""
    unfinished = path.with_name(path.name + ".new")
    for leftover in ("", "-journal", "-wal", "-shm"):
        unfinished.with_name(unfinished.name + leftover).unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for statement in DDL:
            connection.execute(statement)
        connection.execute("INSERT INTO fence VALUES (1, 0)")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
    unfinished.rename(path)
    sync_folder(path.parent)


def _read_only(path: Path) -> sqlite3.Connection:
    """A read-only directory has no room for the shared memory file: read in place, or read a copy."""
    uri = path.resolve().as_uri()
    wal = path.with_name(path.name + "-wal")
    if os.access(path.parent, os.W_OK):
        return _open_uri(f"{uri}?mode=ro")
    if not wal.exists() or wal.stat().st_size == 0:
        return _open_uri(f"{uri}?immutable=1")
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
        for source in (path, wal):
            shutil.copyfile(source, Path(folder, source.name))
        copy = _open_uri(Path(folder, path.name).as_uri() + "?mode=rw")
        copy.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return copy  # the open connection keeps the unlinked copy alive


def _open_uri(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, BUSY_SECONDS, isolation_level=None, uri=True, check_same_thread=False)


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _not_a_ledger(path: Path) -> str:
    return f"{path}: not a ledger; give the ledger.db of a state directory"
