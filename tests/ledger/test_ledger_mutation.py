"""Random mutations: of rows by somebody with SQL, and of the bytes of the file by a bad disk. All are detected."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import LedgerError
from ledger.events import Draft
from ledger.keys import Signer
from ledger.schema import DAMAGE, DDL
from ledger.store import Ledger
from ledger.verify import verify

TEXTS = ("campaign", "type", "actor", "key", "payload", "hash")
NUMBERS = ("campaign_seq", "time_ns", "epoch", "version", "cause")
TABLES = ("events", "checkpoints")


def contents(path: Path) -> dict[str, list[Any]] | None:
    """Every value of every row that counts, with its storage class; None if the file cannot be read."""
    try:
        with sqlite3.connect(path) as connection:
            connection.text_factory = bytes
            found: dict[str, list[Any]] = {
                table: [
                    tuple((type(value).__name__, value) for value in row)
                    for row in connection.execute(
                        f"SELECT *, typeof(payload) FROM {table} NOT INDEXED ORDER BY 1"
                        if table == "events"
                        else f"SELECT * FROM {table} NOT INDEXED ORDER BY 1"
                    )
                ]
                for table in TABLES
            }
            found["schema"] = connection.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
            ).fetchall()
            return found
    except DAMAGE:
        return None
    finally:
        connection.close()


def detected(path: Path, catalogue: Any) -> bool:
    try:
        return not verify(path, catalogue=catalogue).ok
    except LedgerError:
        return True


def mutate_text(connection: sqlite3.Connection, dice: random.Random) -> str:
    column, seq = dice.choice(TEXTS), dice.randint(1, 12)
    (value,) = connection.execute(f"SELECT {column} FROM events WHERE seq = ?", (seq,)).fetchone()
    old = value or ""
    at = dice.randrange(len(old) + 1)
    new = old[:at] + chr(dice.randint(32, 126)) + old[at + dice.randint(0, 1) :]
    connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (new, seq))
    return "text"


def mutate_number(connection: sqlite3.Connection, dice: random.Random) -> str:
    column, seq = dice.choice(NUMBERS), dice.randint(1, 12)
    (value,) = connection.execute(f"SELECT {column} FROM events WHERE seq = ?", (seq,)).fetchone()
    new = (value or 0) ^ (1 << dice.randrange(62))
    connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (new, seq))
    return "number"


def delete_rows(connection: sqlite3.Connection, dice: random.Random) -> str:
    first = dice.randint(1, 12)
    connection.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", (first, first + dice.randint(0, 3)))
    return "delete"


def swap_rows(connection: sqlite3.Connection, dice: random.Random) -> str:
    one, two = dice.sample(range(1, 13), 2)
    for old, new in ((one, -1), (two, one), (-1, two)):
        connection.execute("UPDATE events SET seq = ? WHERE seq = ?", (new, old))
    return "swap"


def copy_row(connection: sqlite3.Connection, dice: random.Random) -> str:
    source, at = dice.randint(1, 12), dice.randint(1, 13)
    connection.execute("UPDATE events SET seq = -seq WHERE seq >= ?", (at,))
    connection.execute("UPDATE events SET seq = 1 - seq WHERE seq < 0")
    source += source >= at
    row = connection.execute("SELECT * FROM events WHERE seq = ?", (source,)).fetchone()
    connection.execute(
        f"INSERT INTO events VALUES ({','.join('?' * 12)})", (at, row[1], row[2] + 99, *row[3:9], None, *row[10:])
    )
    return "copy"


def swap_values(connection: sqlite3.Connection, dice: random.Random) -> str:
    column, (one, two) = dice.choice(("payload", "time_ns", "actor", "hash", "cause")), dice.sample(range(1, 13), 2)
    values = dict(connection.execute(f"SELECT seq, {column} FROM events WHERE seq IN (?, ?)", (one, two)))
    for seq, other in ((one, two), (two, one)):
        connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (values[other], seq))
    return "swap values"


def mutate_checkpoint(connection: sqlite3.Connection, dice: random.Random) -> str:
    column = dice.choice(("seq", "hash", "time_ns", "key_id", "signature"))
    value = dice.choice(("seq + 1", "seq - 1")) if column == "seq" else f"'{dice.randrange(1 << 60)}'"
    connection.execute(f"UPDATE checkpoints SET {column} = {value} WHERE seq = ?", (dice.choice((8, 12)),))
    return "checkpoint"


ROW_MUTATIONS: tuple[Callable[[sqlite3.Connection, random.Random], str], ...] = (
    mutate_text, mutate_text, mutate_number, mutate_number, delete_rows, swap_rows, copy_row, swap_values,
    mutate_checkpoint,
)  # fmt: skip


def mutate_rows(path: Path, dice: random.Random) -> str:
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for statement in DDL:
            if "TRIGGER" in statement or "INDEX" in statement:
                connection.execute(f"DROP {' '.join(statement.replace('UNIQUE ', '').split()[1:3])}")
        kind = dice.choice(ROW_MUTATIONS)(connection, dice)
        for statement in DDL:
            if "TRIGGER" in statement or "INDEX" in statement:
                connection.execute(statement)
        connection.execute("COMMIT")
    connection.close()
    return kind


def mutate_bytes(path: Path, dice: random.Random) -> str:
    data = bytearray(path.read_bytes())
    kind = dice.choice(("flip", "flip", "byte", "zero run", "move"))
    at = dice.randrange(len(data))
    if kind == "flip":
        data[at] ^= 1 << dice.randrange(8)
    elif kind == "byte":
        data[at] = dice.randrange(256)
    elif kind == "zero run":
        data[at : at + 16] = bytes(len(data[at : at + 16]))
    else:
        to = dice.randrange(len(data) - 64)
        data[to : to + 64] = data[at : at + 64].ljust(64, b"\0")
    path.write_bytes(data)
    return kind


def run(
    closed: Path, work: Path, mutate: Callable[[Path, random.Random], str], count: int, catalogue: Any
) -> Counter[str]:
    """Mutate fresh copies; each mutation is detected or changed no value of any row."""
    sound = contents(closed)
    seen: Counter[str] = Counter()
    for number in range(count):
        shutil.rmtree(work, ignore_errors=True)
        work = work.with_name(f"work-{number}")  # a new name: SQLite remembers files by path and number
        work.mkdir()
        for name in ("ledger.db", "ledger.pub", "checkpoints.jsonl"):
            shutil.copyfile(closed.with_name(name), work / name)
        try:
            kind = mutate(work / "ledger.db", random.Random(number))
        except sqlite3.IntegrityError:
            seen["refused by the file itself"] += 1
            continue
        if detected(work / "ledger.db", catalogue):
            seen["detected: " + kind] += 1
        else:
            assert contents(work / "ledger.db") == sound, f"mutation {number} ({kind}) went unseen"
            seen["without effect on any row: " + kind] += 1
    return seen


def say(seen: Counter[str]) -> None:
    detected_ones = sum(count for kind, count in seen.items() if kind.startswith("detected"))
    print(f"{sum(seen.values())} mutations, {detected_ones} detected, 0 unseen: {dict(sorted(seen.items()))}")


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_every_mutation_of_rows_is_detected(closed: Path, tmp_path: Path, catalogue: Any, count: int) -> None:
    """Values, rows, order and signatures, changed by somebody who takes the triggers away and puts them back."""
    seen = run(closed, tmp_path / "work", mutate_rows, count, catalogue)
    say(seen)
    assert sum(n for kind, n in seen.items() if kind.startswith("detected")) > count * 0.8


@pytest.mark.parametrize("count", [300, pytest.param(20000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_every_mutation_of_bytes_is_detected_or_without_effect(
    closed: Path, tmp_path: Path, catalogue: Any, count: int
) -> None:
    """Any byte of the file, most of them in rows; what is not detected lies where no row is."""
    with Ledger.open(closed, catalogue=catalogue) as ledger:
        ledger.claim_epoch()
        ledger.append([Draft(campaign="c", type="step", payload={"n": n, "text": "x" * 500}) for n in range(250)])
        ledger.checkpoint(Signer.load_or_create(closed.parent))
    seen = run(closed, tmp_path / "work", mutate_bytes, count, catalogue)
    say(seen)
    assert sum(n for kind, n in seen.items() if kind.startswith("detected")) > count * 0.5
