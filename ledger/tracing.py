"""Follow the chain over rows that may have been tampered with, and say what was done to them.

A row's hash covers the hash before it, its own number and its content. Rows that continue each other form a
*run*; a sound ledger is one run. Where a run breaks, the tracer looks for the run whose end it does continue, and
under which number. Where every run then belongs tells moved, inserted, missing and changed rows apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from ledger.chain import GENESIS, Row, row_hash

MAX_RUNS = 256
"""Runs that are put in their places (the search is quadratic); what breaks after that is called changed."""

_SHIFTS = (0, *(sign * step for step in range(1, 65) for sign in (1, -1)))
_CHANGED = "the row's hash is not that of its columns and of the hash before it"
_FOREIGN = "the chain does not pass through this row"
_HASH = re.compile(r"[0-9a-f]{64}")


class Finding(NamedTuple):
    """One problem: the event's number if there is one, the kind, and a sentence."""

    seq: int | None
    kind: str
    detail: str
    last: int | None = None
    """The last number, if the problem is a range."""


@dataclass(slots=True, eq=False)
class Run:
    """Rows with consecutive stored numbers that continue each other.

    ``shift`` is what must be added to a stored number to get the one that was hashed; None: not known yet.
    ``before`` is the run that this one continues; None: none was found.
    """

    first: Row
    start: int
    end: int
    tail: str
    shift: int | None = None
    before: Run | None = None

    def place(self) -> int:
        """Return the number under which the first row was written, as far as known."""
        return self.start + (self.shift or 0)

    def place_after(self) -> int:
        """Return the number that the next row must have been written under."""
        return self.end + (self.shift or 0) + 1


class Tracer:
    """Feed it every row in stored order, then ask for the findings."""

    def __init__(self) -> None:
        root = Run((), 0, 0, GENESIS, 0)
        self.runs = [root]
        self.rows = 0
        self._repeats: list[Run] = []
        self._overflow: list[Finding] = []

    @property
    def intact(self) -> bool:
        """Say whether every row so far continues the one before it."""
        return len(self.runs) == 1 and not self._repeats

    def feed(self, row: Row) -> bool:
        """Take the next row; say whether it and everything before it is sound."""
        self.rows += 1
        run = self.runs[-1]
        shift = _continuing_shift(run, row)
        if shift is None:
            self._break(row)
        else:
            run.end, run.tail, run.shift = row[0], row[11], shift
        return self.intact

    def findings(self, signed_to: int, copied: Collection[Row] = ()) -> list[Finding]:
        """Say what was done to the rows, by number.

        ``signed_to`` is the last number that a valid checkpoint covers; ``copied`` are those of the suspects that
        occur elsewhere in the ledger too.
        """
        self._link()
        foreign = _foreign(self.runs, signed_to, copied)
        placed = [run for run in self.runs if run not in foreign]
        for before, run in pairwise(placed):
            run.shift = before.shift if run.shift is None else run.shift
        found = [*self._overflow, *_moved(placed, [*foreign, *self._repeats]), *_deleted(placed)]
        found += [Finding(run.start, "duplicated", "the row before it, once more") for run in self._repeats]
        found += _changed(placed, {finding.last for finding in found if finding.kind == "deleted"})
        for run in foreign:
            kind = "duplicated" if run.first in copied else "inserted"
            found += [Finding(seq, kind, _FOREIGN) for seq in range(run.start, run.end + 1)]
        if not found and not self.intact:
            found.append(Finding(self.runs[1].start, "changed", _CHANGED))
        return sorted(found, key=lambda finding: finding.seq or 0)

    def suspects(self) -> list[Row]:
        """Return the rows that continue nothing."""
        self._link()
        return [run.first for run in self.runs[1:] if run.before is None]

    def _break(self, row: Row) -> None:
        if row[11] == self.runs[-1].tail:
            self._repeats.append(Run(row, row[0], row[0], row[11]))
        elif len(self.runs) < MAX_RUNS:
            self.runs.append(Run(row, row[0], row[0], row[11]))
        else:
            self._overflow.append(Finding(row[0], "changed", _CHANGED))
            run = self.runs[-1]
            run.end, run.tail, run.shift = row[0], row[11], None

    def _link(self) -> None:
        """Find what each run continues, until nothing more is found."""
        open_runs = [run for run in self.runs[1:] if run.before is None]
        while found := [run for run in open_runs if self._find_before(run)]:
            open_runs = [run for run in open_runs if run not in found]

    def _find_before(self, run: Run) -> bool:
        for candidate, tail in self._ends():
            place = candidate.place_after()
            if candidate is run or (run.shift is not None and run.place() != place):
                continue
            if _hash(tail, run.first, place) == run.first[11]:
                run.before, run.shift = candidate, place - run.start
                return True
        return False

    def _ends(self) -> Iterator[tuple[Run, str]]:
        """Yield every end that a run may continue: the stored one, and what it would be if only the hash of a
        lone row had been changed."""
        for index, run in enumerate(self.runs):
            if run.shift is not None:
                yield run, run.tail
            elif run.start == run.end:
                before = self.runs[index - 1]
                repaired = _hash(before.tail, run.first, before.place_after())
                if repaired and before.shift is not None:
                    yield run, repaired


def _foreign(runs: list[Run], signed_to: int, copied: Collection[Row]) -> list[Run]:
    """The runs that the chain does not pass through: what follows them continues what precedes them."""
    foreign: list[Run] = []
    pending: list[Run] = []
    for run in runs[1:]:
        if run.before is None:
            pending.append(run)
            continue
        if run.before not in pending:
            foreign += pending
        pending = []
    return foreign + [
        run for run in pending if run.start == run.end and (run.first in copied or _appended(run, signed_to))
    ]


def _appended(run: Run, signed_to: int) -> bool:
    """Nothing follows that could tell an added row from a changed one: go by the last signature and the hash."""
    return run.start > signed_to and ((0 < signed_to == run.start - 1) or not _HASH.fullmatch(str(run.tail)))


def _deleted(placed: list[Run]) -> Iterator[Finding]:
    """The numbers that no run covers."""
    covered = 0
    for run in sorted(placed, key=Run.place):
        first, last = covered + 1, run.place() - 1
        if first <= last:
            which = f"event {first} is" if first == last else f"events {first} to {last} are"
            yield Finding(first, "deleted", f"{which} missing", last)
        covered = max(covered, run.place_after() - 1)


def _moved(placed: list[Run], foreign: list[Run]) -> Iterator[Finding]:
    """The runs that were written elsewhere than they stand."""
    stay = _in_order([run for run in placed if not run.shift])
    for before, run in pairwise(placed):
        if run.before is None or run in stay:
            continue
        between = sum(other.end - other.start + 1 for other in foreign if before.end < other.start < run.start)
        explained = run.before is before and run.start == before.end + 1 + between and run.shift
        if not explained and not (run.shift and run.shift == run.before.shift):
            yield Finding(run.start, "reordered", f"the row was written as event {run.place()}")


def _changed(placed: list[Run], missing: set[int | None]) -> Iterator[Finding]:
    """The runs that nothing leads to, unless what led to them is missing."""
    for run in placed[1:]:
        if run.before is None and run.place() - 1 not in missing:
            yield Finding(run.start, "changed", _CHANGED)


def _in_order(runs: list[Run]) -> list[Run]:
    """The largest part of the runs, by rows, that stands in ascending order."""
    best: list[tuple[int, list[Run]]] = []
    for run in runs:
        rows = run.end - run.start + 1
        rest = max((b for b in best if b[1][-1].end < run.start), key=itemgetter(0), default=(0, []))
        best.append((rest[0] + rows, [*rest[1], run]))
    return max(best, key=itemgetter(0))[1]


def _continuing_shift(run: Run, row: Row) -> int | None:
    """Return the shift under which the row continues the run, None if it does not."""
    if row[0] != run.end + 1:
        return None
    for shift in _SHIFTS if run.shift is None else (run.shift,):
        if _hash(run.tail, row, row[0] + shift) == row[11]:
            return shift
    return None


def _hash(previous: str, row: Row, seq: int) -> str | None:
    """Hash the row as if it had the number ``seq``; None if no ledger ever wrote such values."""
    try:
        return row_hash(previous, (seq, *row[1:10]), row[10])
    except TypeError:
        return None
