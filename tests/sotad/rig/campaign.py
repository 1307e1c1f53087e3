"""A small real campaign on the stand-in engine, and a daemon that tests start, kill and start again."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from ledger.events import Event
from ledger.keys import PublicKey
from ledger.reader import Reader
from ledger.verify import verify
from sotad import shim
from sotad.client import Client
from sotad.errors import SotadError
from sotad.paths import StateDir
from statemachine.fold import advance
from statemachine.state import Campaign, World

RIG = Path(__file__).parent
SLOW_WORK = 20_000  # PBKDF2 rounds per token in the fork; the stand-in has 7000, the patch 100
POLL_S = 0.02
TOO_NOISY = ("A/A check failed", "the gap is un")
PATIENCE_S = 90.0
JSON = dict[str, Any]
T = TypeVar("T")


def git(folder: Path, *argv: str) -> str:
    """Run git under an identity of the tests'."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@sotad.invalid", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(folder), *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def make_checkout(folder: Path, token_work: int | None = None) -> Path:
    """A git checkout of the stand-in, with its constant changed in a second commit when asked for."""
    shutil.copytree(RIG / "standin", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Import the stand-in")
    if token_work is not None:
        source = folder / "refengine" / "work.py"
        source.write_text(source.read_text().replace("TOKEN_WORK = 7000", f"TOKEN_WORK = {token_work}"))
        git(folder, "commit", "--quiet", "--all", "-m", "Rework the engine for our deployment")
    return folder


class Rig:
    """Two checkouts, a campaign file, and the daemon of a state directory, all below ``home``."""

    def __init__(self, home: Path, target_work: int | None = SLOW_WORK) -> None:
        self.home = home
        self.desk = home / "desk"  # where agents are told what to do: all that they may write to beside their work
        self.paths = StateDir(home / "state")
        self.client = Client(self.paths.socket, timeout=20)
        self.process: subprocess.Popen[bytes] | None = None
        self.roots = [self.paths.runs]  # where run directories are
        self.target = home / "target"
        self.leader = home / "leader"
        if not home.exists():
            self.desk.mkdir(parents=True)
            make_checkout(self.leader)
            make_checkout(self.target, target_work)
            self.behave("implementer", "patch")
            self.behave("reviewer", "review")

    def behave(self, role: str, mode: str) -> None:
        """What an agent does from now on; see its script."""
        (self.desk / role).write_text(mode)

    def spec(self, **changes: Any) -> JSON:
        """The campaign file as data; ``changes`` replace values by dotted key."""
        agent = [sys.executable, str(RIG / "AGENT.py"), str(self.desk)]
        framework = {"kind": "reference", "python": sys.executable, "candidates": [{"id": "only"}]}
        shape = {"name": "chat", "num_prompts": 5, "input_len": 8, "output_len": 8, "max_concurrency": 2}
        spec: JSON = {
            "campaign": "small",
            "model": {"id": "standin", "precision": "none", "max_context": 64},
            "hardware": {"gpu_type": "cpu"},
            "frameworks": {
                "fork": {
                    **framework,
                    "role": "target",
                    "checkout": str(self.target),
                    "paths": ["refengine/*"],
                    "tests": ["-m", "unittest", "-q", "refengine.selftest"],
                },
                "upstream": {**framework, "role": "competitor", "checkout": str(self.leader)},
            },
            "workload": {"warmup_requests": 1, "request_timeout_s": 20, "scenarios": [shape]},
            "sla": {"max_p50_ttft_ms": 20_000, "max_p50_tpot_ms": 20_000},
            "decision": {
                "runs": 1,
                "tau_pct": 25,
                "first_look": 4,
                "cap": 16,
                "noise_limit_pct": 300,
                "max_gain_pct": 100_000,
            },
            "equivalence": {"prompts": 2, "input_len": 8, "output_len": 4},
            "budget": {"wall_clock_s": 3600, "rounds": 3, "job_s": 60, "ready_s": 20, "resource_wait_s": 60},
        }
        for role in ("implementer", "reviewer"):
            argv = [part.replace("AGENT", role) for part in agent]
            spec[role] = {"driver": "command", "argv": argv, "timeout_s": 8, "writable": [str(self.desk)]}
        for key, value in changes.items():
            *path, last = key.split("__")
            place = spec
            for part in path:
                place = place[part]
            place[last] = value
        return spec

    # --- the daemon -------------------------------------------------------------------------------------

    launcher = "launcher.py"

    def launch(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """Start the daemon through the launcher; do not wait."""
        self.paths.root.mkdir(exist_ok=True)
        with (self.home / "daemon.err").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(RIG / self.launcher), str(self.paths.root), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={**os.environ, **env},
            )
        return self.process

    def start(self, *arguments: str, **env: str) -> Client:
        """Start the daemon and wait until it is ready."""
        self.launch(*arguments, **env)
        self.until_ready()
        return self.client

    def start_unconfined(self, **env: str) -> None:
        """Start the daemon as on a kernel without Landlock: what it runs can reach whatever its user can."""
        self.launcher = "unconfined_launcher.py"
        try:
            self.start(**env)
        finally:
            self.launcher = Rig.launcher

    def until_ready(self) -> None:
        """Wait until the daemon just launched answers."""
        self.until(self._ready, "the daemon is ready")

    def _ready(self) -> bool:
        process = self.process
        assert process is not None
        if process.poll() is not None:
            raise AssertionError(f"the daemon ended with {process.returncode}: {self.said()}")
        try:
            health = self.client.get("/healthz")
        except SotadError:
            return False
        return bool(health["ready"]) and health["pid"] == process.pid

    def said(self) -> str:
        """The last lines that daemons of this rig wrote to stderr."""
        path = self.home / "daemon.err"
        return "\n".join(path.read_text(errors="replace").splitlines()[-5:]) if path.exists() else ""

    def ended(self, patience_s: float = PATIENCE_S) -> int:
        """The daemon's exit status, once it has ended by itself."""
        assert self.process is not None
        return self.process.wait(patience_s)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def end(self) -> None:
        """No daemon and no run of this rig is left."""
        self.kill()
        for path in self._claims():
            shim.stop(path.parent)

    def submit(self, **changes: Any) -> str:
        """Submit the campaign; return its id."""
        text = yaml.safe_dump(self.spec(**changes), sort_keys=False)
        answer = self.client.post("/v1/campaigns", {"text": text, "source": str(self.home / "campaign.yaml")})
        return str(answer["campaign"])

    # --- what happened ----------------------------------------------------------------------------------

    def until(self, look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
        """The first true answer of ``look``; a daemon that ends meanwhile is no reason to stop looking."""
        deadline = time.monotonic() + patience_s
        while not (found := look()):
            if time.monotonic() > deadline:
                last = [f"{event.seq} {event.type}" for event in self.events()[-5:]]
                raise AssertionError(f"not within {patience_s:g} s: {what}; the ledger ends {last}; {self.said()}")
            time.sleep(POLL_S)
        return found

    def seen(self, type_: str, patience_s: float = PATIENCE_S, campaign: str | None = None, count: int = 1) -> Event:
        """The ``count``-th event of a type, once it is there."""
        found = self.until(
            lambda: self.events(type_, campaign=campaign)[count - 1 : count], f"{count} times {type_}", patience_s
        )
        return found[0]

    def finished(self, patience_s: float) -> str:
        """How the campaign closed."""
        self.until(lambda: self.tended().phase == "closed", "the campaign is closed", patience_s)
        return str(self.events("campaign.closed")[0].payload["terminal"])

    def tended(self, speaks: bool = True) -> Campaign:
        """The campaign's state. The person that we are has an answer to everything, when they speak at all.

        A host too noisy for a call blocks the campaign, too: then it is resumed.
        """
        c = self.c
        if c.phase == "blocked" and not c.lease:
            with suppress(SotadError):
                if any(word in c.blocked["reason"] for word in TOO_NOISY):
                    self.client.post(f"/v1/campaigns/{c.id}/resume")
                for subject in c.waits if speaks else ():
                    self.say(subject)
        return c

    def say(self, subject: str) -> None:
        """Answer a question with some words, everything else with a yes."""
        asked = subject.startswith("question:")
        said = {"text": "as you like"} if asked else {"approved": True}
        self.client.post(f"/v1/campaigns/{self.c.id}/{'answer' if asked else 'approve'}", {"subject": subject, **said})

    def events(self, *types: str, campaign: str | None = None) -> list[Event]:
        """The events of the ledger, those of some types when they are named."""
        if not self.paths.ledger.exists():
            return []
        with Reader(self.paths.ledger) as reader:
            found = list(reader.events(campaign=campaign))
        return [event for event in found if not types or event.type in types]

    @property
    def world(self) -> World:
        """The fold of the ledger."""
        world = World()
        for event in self.events():
            advance(world, event)
        return world

    @property
    def c(self) -> Campaign:
        """The first campaign's state."""
        return next(iter(self.world.campaigns.values()))

    def processes(self) -> list[str]:
        """Command lines of live processes that belong to this rig, daemons apart."""
        mark, found = str(self.home), []
        for process in psutil.process_iter(["pid", "cmdline", "cwd", "environ"]):
            command = " ".join(process.info["cmdline"] or [])
            ours = mark in command or (process.info["cwd"] or "").startswith(mark)
            if (ours or self._marked(process.info["environ"])) and "launcher.py" not in command:
                found.append(f"{process.info['pid']} {command}")
        return found

    def cwds(self) -> list[str]:
        """Working directories of every process."""
        return [process.info["cwd"] or "" for process in psutil.process_iter(["cwd"])]

    def anchored(self) -> int | None:
        """The last event that the daemon's signature covers; None before its first one, which makes the key."""
        key = self.paths.keys / "ledger.pub"
        return verify(self.paths.ledger, public_key=PublicKey.load(key)).anchored_to if key.exists() else None

    def snapshotted(self) -> int | None:
        """The event after which the state is kept for the next start."""
        with closing(sqlite3.connect(self.paths.ledger)) as connection:
            found = connection.execute("SELECT max(seq) FROM snapshots").fetchone()
        return int(found[0]) if found[0] is not None else None

    def _marked(self, environment: dict[str, str] | None) -> bool:
        """Whether a run of this rig started it: every run's processes carry the token of its claim."""
        token = (environment or {}).get("SOTAD_RUN")
        return token is not None and any(token in path.read_text() for path in self._claims())

    def _claims(self) -> list[Path]:
        return [path for root in self.roots for path in root.rglob("pid.json")]

    # --- back in time -----------------------------------------------------------------------------------

    def keep(self, name: str) -> None:
        """A copy of everything, while no daemon runs."""
        place = self.home.with_name(f"{self.home.name}.{name}")
        shutil.copytree(self.home, place, symlinks=True, ignore=shutil.ignore_patterns("sotad.sock"))

    def back_to(self, name: str) -> None:
        """Everything as it was when it was kept, in the same place."""
        shutil.rmtree(self.home)
        shutil.copytree(self.home.with_name(f"{self.home.name}.{name}"), self.home, symlinks=True)
        self.process = None
