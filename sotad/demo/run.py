"""``sotad demo``: lay out the checkouts, start a daemon of its own, submit the campaign, follow it to its verdict.

The daemon is a process of its own. Kill it, with -9 if you like: it is started again and the campaign goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from sotad.client import Client
from sotad.demo.checkouts import make_fork, make_upstream
from sotad.demo.defects import DEFECTS
from sotad.demo.progress import Progress
from sotad.errors import BadInput, HostFault, Unreachable
from sotad.paths import StateDir
from sotad.shipped import shipped

JSON = dict[str, Any]
DEFAULT_DEFECT = "full-logits"
START_S = 60.0
POLL_S = 0.3
MAX_RESTARTS = 500


class Daemon:
    """The demo's daemon process; ``restarts`` counts how often it had to be started again."""

    def __init__(self, paths: StateDir) -> None:
        self._paths = paths
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Client(paths.socket)
        self.restarts = -1

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def ensure(self) -> bool:
        """Start it when it is not running; True when that was needed.

        Raises:
            HostFault: it does not come up.
        """
        if self._process is not None and self._process.poll() is None:
            return False
        self.restarts += 1
        if self.restarts > MAX_RESTARTS:
            raise HostFault(f"the daemon ended {self.restarts} times; see {self._paths.log}")
        self._paths.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sotad.cli.daemon", "start", "--dir", str(self._paths.root)]
        with (self._paths.log.parent / "stderr.log").open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
            )
        self._await_ready()
        return True

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                tail = (self._paths.log.parent / "stderr.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise HostFault(f"the daemon ended at once: {' '.join(tail)}", f"see {self._paths.log}")
            try:
                self.client.get("/v1/status")
                return
            except Unreachable:
                time.sleep(0.05)
        raise HostFault(f"the daemon did not answer within {START_S:g} s", f"see {self._paths.log}")

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(args: argparse.Namespace) -> int:
    """Run the demo; 0 when the campaign succeeded, 1 when it ended otherwise."""
    defect = args.defect or DEFAULT_DEFECT
    if defect not in DEFECTS:
        raise BadInput(f"there is no defect {defect!r}", f"choose one of {', '.join(DEFECTS)}")
    if find_spec("torch") is None:
        raise BadInput("the demo's engine needs torch, which is not installed", "run: pip install 'sotad[demo]'")
    paths = StateDir(Path(args.dir or time.strftime("demo-state/%Y%m%d-%H%M%S")).absolute())
    spec_path = prepare(paths.root, defect, args.implementer)
    progress = Progress(sys.stderr)
    daemon = Daemon(paths)
    try:
        daemon.ensure()
        progress.say(f"daemon {daemon.pid} on {paths.root} (kill -9 it if you like: the campaign goes on)")
        body = {"text": spec_path.read_text(), "source": str(spec_path)}
        campaign = daemon.client.post("/v1/campaigns", body)["campaign"]
        closed = follow(daemon, campaign, progress)
        return conclude(paths, campaign, closed, daemon.restarts, args.json)
    except KeyboardInterrupt:
        progress.say(f"stopped; go on with: sotad start --dir {paths.root}")
        raise
    finally:
        daemon.stop()


def prepare(root: Path, defect: str, implementer: str) -> Path:
    """Lay out the checkouts and the campaign file below the state directory.

    Raises:
        BadInput: there is a demo already.
    """
    home = root / "demo"
    if home.exists():
        raise BadInput(f"{home} is there already", "remove it, or choose another --dir")
    home.mkdir(parents=True)
    make_upstream(home / "upstream")
    make_fork(home / "upstream", home / "target", defect)
    spec = yaml.safe_load(shipped("demo.yaml").read_text())
    spec["frameworks"]["fork"] |= {"checkout": str(home / "target"), "python": sys.executable}
    spec["frameworks"]["upstream"] |= {"checkout": str(home / "upstream"), "python": sys.executable}
    spec["implementer"]["driver"] = implementer
    spec["description"] += f" (defect: {defect}, implementer: {implementer})"
    path = home / "campaign.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def follow(daemon: Daemon, campaign: str, progress: Progress) -> JSON:
    """Show every event until the campaign is closed; start the daemon again whenever it is gone."""
    after = 0
    while True:
        try:
            events = daemon.client.get(f"/v1/events?after={after}&campaign={campaign}&limit=500")["events"]
        except (Unreachable, ConnectionError):
            events = []
            if daemon.ensure():
                progress.say(f"the daemon was gone; started again as {daemon.pid}, the campaign goes on")
        for event in events:
            after = event["seq"]
            progress.show(event)
            if event["type"] == "campaign.closed":
                return dict(event["payload"])
            if event["type"] in ("campaign.blocked", "preflight.failed") or _is_no_call(event):
                status = daemon.client.get(f"/v1/campaigns/{campaign}")
                return {"terminal": "blocked", "reason": status["blocked"].get("reason", event["type"])}
        if not events:
            time.sleep(POLL_S)


def _is_no_call(event: JSON) -> bool:
    return event["type"] == "gap.decided" and event["payload"]["verdict"] in ("undecided", "untrusted")


def conclude(paths: StateDir, campaign: str, closed: JSON, restarts: int, as_json: bool) -> int:
    """Print the verdict and where to look; return the exit status."""
    report = paths.root / "reports" / campaign / "final_report.md"
    found = {
        "campaign": campaign,
        "verdict": closed["terminal"],
        "reason": closed["reason"],
        "ledger": str(paths.ledger),
        "report": str(report) if report.exists() else None,
        "daemon_restarts": restarts,
    }
    if as_json:
        print(json.dumps(found))
    else:
        print(f"\nverdict: {found['verdict']} ({found['reason']})")
        print(f"report:  {report.with_suffix('.html')}\n         {report}")
        print(f"audit:   sotactl ledger verify {paths.root}\n         sotactl ledger replay {paths.root} --until SEQ")
        print(f"why:     sotactl why SEQ --dir {paths.root}")
    return 0 if str(closed["terminal"]).startswith("success") else 1
