"""A campaign whose baseline is frozen, in a real ledger: played by the simulated world of the machine's own tests."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "statemachine"))
from script import spec_with
from simulation import Simulation

import sotad.cli
from ledger.artifacts import Artifacts
from ledger.store import Ledger
from ledger.writer import Writer
from sotad.activities.context import Context
from sotad.config import parse_campaign
from sotad.config.daemon import DaemonConfig
from sotad.daemon.driver import Driver
from sotad.daemon.hosts import Hosts
from sotad.daemon.journal import Journal
from sotad.daemon.resume import IDENTITY, _requests_of
from sotad.daemon.service import Daemon
from sotad.hosts.local import LocalHost
from sotad.paths import StateDir
from statemachine.state import Campaign, World

JSON = dict[str, Any]
EXAMPLE = Path(sotad.cli.__file__).with_name("example-campaign.yaml")
AGENT = """\
import json, pathlib, sys
request, answers = json.loads(pathlib.Path(sys.argv[1]).read_text()), json.loads(pathlib.Path({answers!r}).read_text())
asked = pathlib.Path({asked!r})
asked.write_text(asked.read_text() + json.dumps(request) + "\\n" if asked.exists() else json.dumps(request) + "\\n")
pathlib.Path(sys.argv[2]).write_text(json.dumps(answers[min(len(asked.read_text().splitlines()), len(answers)) - 1]))
"""


@dataclass
class Planning:
    """A daemon without its loop: ledger, machine, host and API are real, and nobody starts an activity but the test."""

    daemon: Daemon
    journal: Journal
    driver: Driver
    here: StateDir
    name: str = "demo"

    @property
    def c(self) -> Campaign:
        return self.journal.world.campaigns[self.name]

    async def context(self) -> Context:
        """The next attempt of the activity that writes the plan."""
        await self.settle()
        known = self.c.jobs.get("plan")
        attempt = known.attempt + 1 if known else 1
        job = {"job": "plan", "activity": "write_plan", "attempt": attempt, "params": {}, "deadline_ns": 2**62}
        await self.record("job.dispatched", job)
        services = (self.journal, self.driver.hosts.home, self.driver.artifacts, self.here.root)
        return Context(self.name, "plan", attempt, {}, 2**62, *services)

    async def settle(self) -> None:
        """End the activity that the test played."""
        job = self.c.jobs.get("plan")
        if job and job.status == "running":
            await self.record("job.finished", {"job": "plan", "attempt": job.attempt, "ok": True, "detail": ""})

    async def record(self, type_: str, payload: JSON, actor: str = "daemon") -> int:
        return (await self.journal.record(self.name, type_, payload, actor=actor)).seq

    def events(self, *types: str) -> list[Any]:
        """The campaign's events of these types."""
        return [event for event in self.daemon.events(0, self.name, 10_000) if event.type in types]

    def agent(self, *answers: JSON) -> JSON:
        """The spec of an implementer that gives these answers, one a call; what it was asked is in ``asked``."""
        program = self.here.root / "agent.py"
        (self.here.root / "answers.json").write_text(json.dumps(answers))
        program.write_text(AGENT.format(answers=str(self.here.root / "answers.json"), asked=str(self.asked)))
        return {"driver": "command", "argv": [sys.executable, str(program)], "timeout_s": 60, "sandbox": "off"}

    @property
    def asked(self) -> Path:
        return self.here.root / "asked.jsonl"


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Planning]:
    """A state directory with an empty ledger."""
    here = StateDir(root)
    root.mkdir(parents=True)
    ledger = Ledger.open(here.ledger)
    ledger.claim_epoch()
    writer = Writer(ledger)
    journal = Journal(ledger, writer, World())
    driver = Driver(journal, Hosts(LocalHost(here.runs)), Artifacts(here.artifacts), here.root)
    try:
        yield Planning(Daemon(here, journal, driver, 1, DaemonConfig()), journal, driver, here)
    finally:
        await driver.close()
        journal.close()
        await writer.close()


async def play(rig: Planning, **plan: Any) -> None:
    """Bring the campaign to the phase in which its plan is written; ``plan`` is the spec's section."""
    spec: JSON = spec_with()
    spec["frameworks"]["ours"]["paths"] = ["engine/*"]
    spec["workload"] = parse_campaign(EXAMPLE.read_text(), "example.yaml", rig.here.root)["workload"]
    spec["plan"] = {"source": "template", "draft": None, **plan}
    spec["implementer"] = spec["plan"].pop("implementer", {"driver": "none"})
    simulation = Simulation(spec=spec).run(until=lambda sim: sim.c.phase == "planning")
    found = await rig.driver.hosts.home.probe()
    host = {key: found[key] for key in (*IDENTITY, "gpus")}
    real: JSON = {"preflight.passed": {"host": host}, "workload.frozen": {"digest": _requests_of(spec, {})}}
    for event in simulation.events:
        await rig.journal.record(rig.name, event.type, {**event.payload, **real.get(event.type, {})}, actor=event.actor)
    assert rig.c.phase == "planning"
