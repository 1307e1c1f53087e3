"""A small catalogue and ledgers filled through the public interface."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import GENESIS, row_hash
from ledger.events import Draft
from ledger.keys import Signer
from ledger.schema import COLUMNS
from ledger.store import Ledger


class TinyCatalogue:
    """Types ``step``, ``old`` (stored as version 1, now version 2) and ``daemon.started``; ``step`` must have ``n``."""

    versions: Mapping[str, int] = {"step": 1, "old": 1, "daemon.started": 1}

    def validate(self, type_: str, payload: Mapping[str, Any], /) -> tuple[int, dict[str, Any]]:
        if type_ not in self.versions:
            raise ValueError("unknown type")
        if type_ == "step" and "n" not in payload:
            raise ValueError("n: missing")
        return self.versions[type_], dict(payload)

    def upcast(self, type_: str, version: int, payload: dict[str, Any], /) -> dict[str, Any]:
        return {**payload, "upcast": True} if (type_, version) == ("old", 1) else payload


@pytest.fixture
def catalogue() -> TinyCatalogue:
    return TinyCatalogue()


@pytest.fixture
def clock() -> Callable[[], int]:
    ticks = itertools.count(1_763_000_000_000_000_000, 1_000_003)
    return lambda: next(ticks)


@pytest.fixture
def ledger(tmp_path: Path, catalogue: TinyCatalogue, clock: Callable[[], int]) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db", catalogue=catalogue, clock=clock) as opened:
        opened.claim_epoch()
        yield opened


@pytest.fixture
def closed(tmp_path: Path, catalogue: TinyCatalogue, clock: Callable[[], int]) -> Path:
    """Twelve events of two campaigns, checkpoints after the eighth and the last, cleanly closed."""
    path = tmp_path / "ledger.db"
    signer = Signer.load_or_create(tmp_path)
    with Ledger.open(path, catalogue=catalogue, clock=clock) as opened:
        opened.claim_epoch()
        for n in range(1, 13):
            cause = n - 1 or None
            draft = Draft(
                campaign="ab"[n % 2],
                type="step",
                payload={"n": n, "text": f"päy load {n}", "x": n / 7, "deep": {"list": [n, None, True]}},
                actor="operator:1000" if n % 5 == 0 else "daemon",
                cause=cause,
                key=f"key-{n}" if n % 3 == 0 else None,
            )
            opened.append([draft])
            if n in (8, 12):
                opened.checkpoint(signer)
    return path


class Attacker:
    """Somebody who can write the file: drops the triggers, does the deed, puts the triggers back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sql(self, *statements: str, values: tuple[Any, ...] = ()) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            indexes = connection.execute(
                "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
            ).fetchall()
            for kind, things in (("TRIGGER", triggers), ("INDEX", indexes)):
                for name, _ in things:
                    connection.execute(f"DROP {kind} {name}")
            for statement in statements:
                connection.execute(statement, values if "?" in statement else ())
            for _, sql in (*indexes, *triggers):
                with suppress(sqlite3.IntegrityError):  # a duplicate: the index cannot come back
                    connection.execute(sql)

    def rehash(self, first: int = 1) -> None:
        """Recompute every hash from ``first`` on, as one who knows the format would."""
        with closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq").fetchall()
        previous = GENESIS
        for row in rows:
            if row[0] >= first:
                row = (*row[:11], row_hash(previous, row[:10], row[10]))
                self.sql("UPDATE events SET hash = ? WHERE seq = " + str(row[0]), values=(row[11],))
            previous = row[11]


@pytest.fixture
def attacker(closed: Path) -> Attacker:
    return Attacker(closed)
