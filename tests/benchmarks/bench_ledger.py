"""How fast the ledger is, beside the disk's own floor, a plain sqlite3 loop and two libraries.

    python tests/benchmarks/bench_ledger.py [--quick] [--folder DIR] [--rivals-python PYTHON]

Contenders take turns within each round, so that they see the same minute of the same disk. A figure is the median
of the rounds with their range; a ratio is the median of the ratios within rounds. Every append figure stands beside
the fdatasync floor of the same rounds. ``--rivals-python`` is an interpreter that has eventsourcing and dbos.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench_ledger_event import PAYLOAD, TYPE
from bench_ledger_raw import Raw, plain_scan, sync_floor
from tabulate import tabulate

from ledger.events import Draft
from ledger.replay import replay
from ledger.schema import sqlite_build
from ledger.store import Ledger
from ledger.writer import Writer

Rounds = dict[str, list[float]]
Contender = Callable[[], float | None]
ALL_COLUMNS = "seq,campaign,campaign_seq,time_ns,epoch,type,version,actor,cause,key,hash"


def draft() -> Draft:
    """A new draft, as every caller makes one; checking it against the catalogue is part of each figure."""
    return Draft(campaign="c", type=TYPE, payload=PAYLOAD)


def take_turns(rounds: int, contenders: dict[str, Contender]) -> Rounds:
    """Run every contender once per round, after one round that does not count."""
    found: Rounds = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contend in contenders.items():
            rate = contend()
            if number and rate is not None:
                found[name].append(rate)
    return found


def one_at_a_time(folder: Path, rounds: int, events: int, rivals: dict[str, Contender]) -> Rounds:
    """Durable appends, each waited for."""
    raw = Raw(folder / "raw.db")
    with Ledger.open(folder / "ledger.db") as ledger:
        ledger.claim_epoch()

        def ours() -> float:
            begin = time.perf_counter()
            for _ in range(events):
                ledger.append([draft()])
            return events / (time.perf_counter() - begin)

        return take_turns(
            rounds,
            {
                "fdatasync floor": lambda: sync_floor(folder, events),
                "raw sqlite3, 1 per commit": lambda: raw.append(events, 1),
                "ledger, 1 per append": ours,
                **rivals,
            },
        )


def concurrent(
    folder: Path, rounds: int, events: int, appenders: int, drafts: int, rivals: dict[str, Contender]
) -> Rounds:
    """Appenders that each wait for their own event before the next, through one Writer."""
    raw = Raw(folder / f"raw{drafts}.db")
    ledger = Ledger.open(folder / f"ledger{drafts}.db")
    ledger.claim_epoch()
    turns = max(1, events // appenders // drafts)

    async def appender(writer: Writer) -> None:
        for _ in range(turns):
            await writer.append([draft() for _ in range(drafts)])

    async def everybody(writer: Writer) -> float:
        begin = time.perf_counter()
        await asyncio.gather(*(appender(writer) for _ in range(appenders)))
        return turns * appenders * drafts / (time.perf_counter() - begin)

    async def start() -> Writer:
        return Writer(ledger)

    with asyncio.Runner() as runner:
        writer = runner.run(start())
        found = take_turns(
            rounds,
            {
                "fdatasync floor": lambda: sync_floor(folder, 200),
                "raw sqlite3, 100 per commit": lambda: raw.append(events // 100 * 100, 100),
                "the same, encoding and hashing": lambda: raw.append(events // 100 * 100, 100, chained=True),
                f"Writer, {appenders} appenders, {drafts} per append": lambda: runner.run(everybody(writer)),
                **rivals,
            },
        )
        runner.run(writer.close())
    return found


def filled(folder: Path, events: int) -> Path:
    """Write a ledger of so many events."""
    with Ledger.open(folder / "million.db") as ledger:
        ledger.claim_epoch()
        for start in range(0, events, 1000):
            ledger.append([draft() for _ in range(min(1000, events - start))])
    return folder / "million.db"


def replays(path: Path, rounds: int, events: int, rivals: Rivals) -> Rounds:
    """Every event in order, decoded, with its hash checked."""

    def ours() -> float:
        begin = time.perf_counter()
        assert sum(1 for _ in replay(path)) == events
        return events / (time.perf_counter() - begin)

    return take_turns(
        rounds,
        {
            "plain scan of all columns + orjson + sha256": lambda: plain_scan(path, ALL_COLUMNS),
            "plain scan of 3 columns + orjson + sha256": lambda: plain_scan(path, "seq,hash"),
            "ledger.replay, chain verified": ours,
            "eventsourcing repository.get": lambda: rivals.rate("eventsourcing", "replay", 20),
        },
    )


def starts(path: Path, rounds: int, events: int) -> Rounds:
    """Seconds to a folded state: from the first event, and from a snapshot 1,000 events before the end."""
    state = b"x" * 200_000
    with Ledger.open(path) as ledger:
        ledger.claim_epoch()
        ledger.save_snapshot(events - 1000, state, "machine")

        def full() -> float:
            begin = time.perf_counter()
            assert sum(1 for _ in replay(path)) == events
            return time.perf_counter() - begin

        def tail() -> float:
            begin = time.perf_counter()
            snapshot = ledger.load_snapshot("machine")
            assert snapshot and sum(1 for _ in replay(path, snapshot.anchor)) == 1000
            return time.perf_counter() - begin

        return take_turns(rounds, {"full replay": full, "snapshot + tail of 1,000": tail})


class Rivals:
    """Runs the libraries in the interpreter that has them, and remembers which it has not."""

    def __init__(self, python: str, folder: Path) -> None:
        self._python = python
        self._folder = folder
        self._missing: set[str] = set()

    def rate(self, library: str, what: str, events: int) -> float | None:
        """Return the library's own rate per second, None if it is not installed."""
        if library in self._missing:
            return None
        folder = self._folder / library
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        script = Path(__file__).with_name("bench_ledger_rivals.py")
        command = [self._python, str(script), library, str(folder), str(max(5, events))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            self._missing.add(library)
            print(f"{library}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
        return float(json.loads(done.stdout.splitlines()[-1])[what])


def show(title: str, rounds: Rounds, against: list[tuple[str, str, float]], unit: str = "/s") -> None:
    """Print one block: the figures, then each ratio beside its goal."""
    rows = [
        [name, f"{median(v):,.4g}{unit}", f"{min(v):,.4g} - {max(v):,.4g}", len(v)] if v else [name, "not installed"]
        for name, v in rounds.items()
    ]
    print(f"\n{title}\n" + tabulate(rows, headers=["contender", "median", "range", "rounds"], disable_numparse=True))
    for one, other, goal in against:
        ratios = [a / b for a, b in zip(rounds[one], rounds[other], strict=False)]
        if ratios:
            span = f"{min(ratios):.3g} - {max(ratios):.3g}"
            print(f"  {one} / {other}: {median(ratios):.3g}x ({span}); goal {goal:g}x")
        else:
            print(f"  {one} / {other}: not installed")


def main() -> None:
    """Run all blocks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small and short; for a look, not for a figure")
    parser.add_argument("--folder", type=Path, help="where to write: the disk that is measured")
    parser.add_argument("--rivals-python", default=sys.executable, help="interpreter with eventsourcing and dbos")
    options = parser.parse_args()
    rounds, events, million = (2, 200, 20_000) if options.quick else (7, 1000, 1_000_000)
    print(f"SQLite {sqlite_build()}, event payload {len(json.dumps(PAYLOAD))} bytes as JSON text")
    with tempfile.TemporaryDirectory(prefix="bench-ledger-", dir=options.folder) as name:
        folder = Path(name)
        rivals = Rivals(options.rivals_python, folder)
        libraries: dict[str, Contender] = {
            "eventsourcing, 1 per save": lambda: rivals.rate("eventsourcing", "append", events // 4),
            "DBOS, 1 per step": lambda: rivals.rate("dbos", "append", events // 8),
        }
        alone = one_at_a_time(folder, rounds, events, libraries)
        ours, raw = "ledger, 1 per append", "raw sqlite3, 1 per commit"
        show("Durable appends, one at a time", alone, [(ours, raw, 0.9), (ours, "fdatasync floor", 0.0)])
        for drafts in (1, 4):
            group = concurrent(folder, rounds, events * 10, 64, drafts, libraries)
            ours = f"Writer, 64 appenders, {drafts} per append"
            goals = [(ours, "raw sqlite3, 100 per commit", 0.6), (ours, "the same, encoding and hashing", 0.6)]
            goals += [(ours, "eventsourcing, 1 per save", 20.0), (ours, "DBOS, 1 per step", 20.0)]
            show(f"64 appenders, {drafts} per append", group, goals)
        path = filled(folder, million)
        again = replays(path, rounds, million, rivals)
        ours, scan = "ledger.replay, chain verified", "plain scan of {} columns + orjson + sha256"
        goals = [(ours, scan.format("all"), 0.8), (ours, scan.format("3"), 0.8)]
        show(f"Replay of {million:,}", again, [*goals, (ours, "eventsourcing repository.get", 5.0)])
        begun = starts(path, rounds, million)
        show("Start-up", begun, [("snapshot + tail of 1,000", "full replay", 0.02)], " s")


if __name__ == "__main__":
    main()
