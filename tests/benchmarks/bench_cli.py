"""What ``sotactl status`` costs: CPU time of the whole process against an interpreter that imports little.

Run it with ``python tests/benchmarks/bench_cli.py [RUNS]``. A real daemon answers on its Unix socket. Runs
are interleaved, so that the machine's mood meets both sides alike; CPU time comes from ``wait4``.

Goal: the ratio of the medians is at most 2.5. Exit status 1 when it is missed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sotad.paths import StateDir

ROOT = Path(__file__).resolve().parents[2]
GOAL = 2.5
BASE = [sys.executable, "-c", "import argparse, socket, json"]


def cpu_ms(argv: list[str]) -> float:
    """User and system time of one process, milliseconds."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{argv} ended with {os.waitstatus_to_exitcode(status)}")
    return 1e3 * (usage.ru_utime + usage.ru_stime)


def measure(runs: int, commands: dict[str, list[str]]) -> dict[str, list[float]]:
    """Every command's CPU time, run after run, in turn."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, argv in commands.items():
            found[name].append(cpu_ms(argv))
    return found


def main() -> int:
    """Measure, print the table, judge."""
    runs = max(15, int(sys.argv[1]) if len(sys.argv) > 1 else 31)
    with tempfile.TemporaryDirectory() as folder:
        here = StateDir(Path(folder))
        server = subprocess.Popen([sys.executable, "-m", "sotad.cli.daemon", "start", "--dir", folder], cwd=ROOT)
        try:
            _await_socket(here, server)
            script = "import sys; from sotad.cli.control import main; sys.exit(main())"
            ctl = [sys.executable, "-c", script]
            commands = {
                "bare: argparse, socket, json": BASE,
                "sotactl status": [*ctl, "status", "--dir", folder],
                "sotactl status --json": [*ctl, "status", "--json", "--dir", folder],
            }
            found = measure(runs, commands)
        finally:
            server.terminate()
            server.wait(30)
    return _judge(found)


def _await_socket(here: StateDir, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not here.socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the daemon did not come up")
        time.sleep(0.1)


def _judge(found: dict[str, list[float]]) -> int:
    base = statistics.median(found["bare: argparse, socket, json"])
    runs = len(next(iter(found.values())))
    print(f"{'command':32} {'median ms':>10} {'p90 ms':>8} {'ratio':>6}   (n = {runs})")
    worst = 0.0
    for name, times in found.items():
        median, p90 = statistics.median(times), statistics.quantiles(times, n=10)[-1]
        worst = max(worst, median / base)
        print(f"{name:32} {median:10.1f} {p90:8.1f} {median / base:6.2f}")
    print(f"goal: at most {GOAL}; {'met' if worst <= GOAL else 'MISSED'}")
    return 0 if worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
