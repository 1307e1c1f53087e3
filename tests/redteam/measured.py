"""A campaign whose agents play scripts (see ``player.py``), kept at several stages: each is driven to once a session.

The engine of both checkouts samples, so that a patch can leave that out. A gain of more than 100% waits for a person.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from rig.campaign import JSON, PATIENCE_S, Rig, git

from ledger.events import Event

HERE = Path(__file__).parent
PAUSE_S = 0.1
T = TypeVar("T")
Edit = tuple[str, str, str]  # path, old text, new text
ENGINE, WORK, EXTRA = "refengine/__main__.py", "refengine/work.py", "refengine/extra.py"
GREEDY = "token = next_token(prompt, index)"
SAMPLES = 'token = next_token([*prompt, body["seed"]] if body.get("temperature") else prompt, index)'
FASTER: Edit = (WORK, "TOKEN_WORK = 20000", "TOKEN_WORK = 2000")
HONEST = {"edits": [FASTER]}
BUDGETS = {"budget__tokens": 1_000_000, "budget__money_usd": 50.0}
TOO_GOOD = {"decision__max_gain_pct": 100}
EVERY_OTHER = {"review": {"alignment_every": 2}}


class Measured(Rig):
    """A rig with two players, and a person who types ``sotactl``."""

    def __init__(self, home: Path) -> None:
        fresh = not home.exists()
        super().__init__(home)
        if fresh:
            for checkout in (self.target, self.leader):
                engine = checkout / ENGINE
                engine.write_text(engine.read_text().replace(GREEDY, SAMPLES))
                git(checkout, "commit", "--quiet", "--all", "-m", "Sample")
            self.play("implementer")
            self.play("reviewer")

    def spec(self, **changes: Any) -> JSON:
        """The rig's campaign with the players as its agents, budgets, little belief in wonders, many alignments."""
        spec = super().spec(**BUDGETS, **TOO_GOOD, **EVERY_OTHER)
        for role, patience in (("implementer", 8), ("reviewer", 4)):
            spec[role] |= {"argv": [sys.executable, str(HERE / "player.py"), str(self.desk), role]}
            spec[role]["timeout_s"] = patience
        for key, value in changes.items():
            section, _, name = key.partition("__")
            if name:
                spec.setdefault(section, {})[name] = value
            else:
                spec[section] = value
        return spec

    # --- saying what happens ----------------------------------------------------------------------------

    def play(self, role: str, **steps: list[JSON]) -> None:
        """What an agent does from now on, by action; what is not named it does honestly. ``implement`` is faster."""
        script = {"implement": [HONEST], **steps} if role == "implementer" else steps
        (self.desk / f"{role}.json").write_text(json.dumps(script))

    def asked(self, action: str) -> list[JSON]:
        """Every request of an action so far."""
        log = self.desk / "asked.jsonl"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [request for request in found if request["action"] == action]

    def sotactl(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """What a person types."""
        command = [sys.executable, "-m", "sotad.cli.control", *argv, "--dir", str(self.paths.root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def until(self, look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
        """As the rig's, but looking seldom enough to disturb no measurement."""

        def seldom() -> T:
            time.sleep(PAUSE_S)
            return look()

        return super().until(seldom, what, patience_s)

    # --- looking ------------------------------------------------------------------------------------------

    def settled(self, *types: str, patience_s: float = 240.0) -> Event:
        """The next event of one of the types after the stage; a person resumes what noise alone has blocked."""
        mark = self.stage_seq

        def look() -> list[Event]:
            self.tended(speaks=False)
            return [event for event in self.events(*types) if event.seq > mark]

        return self.until(look, " or ".join(types), patience_s)[0]

    def why_refused(self, gate: str) -> str:
        """The detail of the gate that refused an attempt."""
        found = [e.payload for e in self.events("gate.evaluated") if e.payload["gate"] == gate]
        return str(found[-1]["detail"]) if found else ""

    def blocked(self, kind: str, patience_s: float = 240.0) -> str:
        """Why the campaign is blocked, once it is and has let go of the host."""

        def look() -> str:
            c = self.tended(speaks=False)
            there = c.phase == "blocked" and c.blocked["kind"] == kind and not c.lease
            return str(c.blocked["reason"]) if there else ""

        return self.until(look, f"blocked({kind})", patience_s)

    # --- stages ---------------------------------------------------------------------------------------------

    stage_seq = 0

    def to(self, stage: str) -> None:
        """The campaign as it was when it came to a stage; drives there if nobody has yet. No daemon runs."""
        self.end()
        if not self.home.with_name(f"{self.home.name}.{stage}").exists():
            STAGES[stage](self)
            assert self.process is not None and self.process.returncode == -signal.SIGKILL, self.said()
            self.end()
            self.keep(stage)
        self.back_to(stage)
        self.stage_seq = self.events()[-1].seq

    def die(self, at: str, patience_s: float = 300.0, before: Callable[[], object] = lambda: None) -> None:
        """Run the daemon until it is killed right after an event."""
        process = self.launch("--kill", f"after:{at}")
        self.until_ready()
        before()
        self.until(lambda: process.poll() is not None or not self.tended(), f"the kill after {at}", patience_s)


def _selecting(rig: Measured) -> None:
    rig.die("rootcause.written", before=rig.submit)


def _quarantined(rig: Measured) -> None:
    rig.to("selecting")
    rig.die("patch.quarantined")


def _reviewing(rig: Measured) -> None:
    rig.to("quarantined")
    subject = {"subject": "attempt:a1", "approved": True, "reason": "looked at"}
    rig.die("checkpoint.written", before=lambda: rig.client.post("/v1/campaigns/small/approve", subject))


def _finalizing(rig: Measured) -> None:
    rig.to("reviewing")
    rig.die("finalize.opened")


STAGES: dict[str, Callable[[Measured], None]] = {
    "selecting": _selecting,  # next the implementer is asked for an idea
    "quarantined": _quarantined,  # an honest patch is too good to be believed
    "reviewing": _reviewing,  # a person believed it; next is the round's review
    "finalizing": _finalizing,  # ahead, on the held-out workload, too; next the implementer may simplify
}


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """The session's campaign, with whatever stages were kept."""
    found = Measured(tmp_path_factory.mktemp("measured") / "rig")
    yield found
    found.end()
    shutil.rmtree(found.home.parent)


@pytest.fixture
def measured(stages: Measured) -> Iterator[Measured]:
    """The same for one test: say ``to(STAGE)``, what the agents play, then start the daemon."""
    yield stages
    stages.end()


def cancelled(rig: Measured) -> None:
    """End the campaign and hold it to what a finished one owes."""
    from rig.audit import audit

    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


def named(mark: str) -> list[str]:
    """Live processes with a mark in their command line."""
    found = [(p.pid, " ".join(p.info["cmdline"] or [])) for p in psutil.process_iter(["cmdline"])]
    return [f"{pid} {command}" for pid, command in found if mark in command]
