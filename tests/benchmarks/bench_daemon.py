"""What the daemon itself costs: idle, and as a share of a whole demo's wall time.

Idle: CPU time and resident memory of a daemon with nothing to do, from /proc. Demo: the time from
campaign.created to campaign.closed that no job covers, by the ledger's own times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from tabulate import tabulate

from ledger.reader import Reader
from sotad.client import Client
from sotad.errors import Unreachable
from sotad.paths import StateDir
from sotad.report.costs import cost
from sotad.report.facts import Facts
from statemachine.state import Campaign

READY_S = 30.0


def idle(seconds: float) -> tuple[float, float]:
    """Percent of one core, and MB resident, of an idle daemon over a time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sotad.cli.daemon", "start", "--dir", folder]
        daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _await(Client(StateDir(Path(folder)).socket))
            process = psutil.Process(daemon.pid)
            before, began = sum(process.cpu_times()[:2]), time.monotonic()
            time.sleep(seconds)
            used = sum(process.cpu_times()[:2]) - before
            return 100 * used / (time.monotonic() - began), process.memory_info().rss / 1e6
        finally:
            daemon.terminate()
            daemon.wait(30)


def _await(client: Client) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            client.get("/v1/status")
            return
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def demo() -> tuple[str, float, float]:
    """Verdict, wall seconds, and percent of them outside every job, of one demo."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        command = [sys.executable, "-m", "sotad.cli.daemon", "demo", "--dir", str(state), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=1800)
        found = json.loads(done.stdout)
        with Reader(Path(found["ledger"])) as reader:
            events = list(reader.events(campaign=found["campaign"]))
        spent = cost(Facts(Campaign(found["campaign"]), events, lambda digest: b""))
        assert spent is not None
        return found["verdict"], spent["wall_s"], 100 * spent["outside_share"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten idle seconds and no demo")
    args = parser.parse_args()
    cpu, rss = idle(10 if args.quick else 60)
    rows = [["idle: CPU, percent of a core", f"{cpu:.2f}", "< 1"], ["idle: RSS, MB", f"{rss:.0f}", "< 120"]]
    if not args.quick:
        verdict, wall_s, share = demo()
        rows.append([f"demo: percent of {wall_s:.0f} s outside activities ({verdict})", f"{share:.2f}", "< 2"])
    print(tabulate(rows, headers=["figure", "measured", "goal"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
