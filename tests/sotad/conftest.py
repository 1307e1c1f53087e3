"""A small daemon for the API and command line: a real ledger, the real machine, no activities."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sotad.cli
from ledger import catalogue
from ledger.events import Draft, Event
from ledger.reader import Reader
from ledger.store import Ledger
from sotad.api.app import make_app
from sotad.api.past import why_at
from sotad.api.server import serving
from sotad.api.summary import summaries
from sotad.client import Client
from sotad.config import parse_campaign
from sotad.paths import StateDir
from statemachine.evidence import digest
from statemachine.fold import advance
from statemachine.machine import admit
from statemachine.state import World

sys.path.insert(0, str(Path(__file__).parent))  # the rig is a package of these tests
from rig.fixtures import at, killed, reviewing, rig, rigs, selecting  # noqa: F401

EXAMPLE = Path(sotad.cli.__file__).with_name("example-campaign.yaml").read_text()


class SmallService:
    """Implements ``sotad.api.service.Service`` over a ledger of its own."""

    def __init__(self, here: StateDir) -> None:
        self.here = here
        self.ledger_path = here.ledger
        self.world = World()
        self.ready = True
        self.stopped = False
        here.root.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger.open(here.ledger)
        self.ledger.claim_epoch()
        self._waiters: set[asyncio.Future[None]] = set()
        started = {
            "version": "0",
            "machine_digest": "0" * 64,
            "pid": 1,
            "boot_id": "b",
            "host": "h",
            "sqlite": "3",
        }
        self.record("", "daemon.started", started)

    def record(self, campaign: str, type_: str, payload: dict[str, Any], actor: str = "daemon") -> Event:
        """Admit, write and fold one event."""
        _, checked = catalogue.validate(type_, payload)
        event_time = self.ledger._clock()
        admit(self.world, campaign, type_, checked, event_time)
        (event,) = self.ledger.append([Draft(campaign=campaign, type=type_, payload=payload, actor=actor)])
        advance(self.world, event)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        return event

    def create(self, text: str = EXAMPLE, actor: str = "daemon") -> str:
        """A campaign from YAML."""
        spec = parse_campaign(text, "test.yaml", self.here.root)
        created = {"spec": spec, "spec_digest": digest(spec), "source": "test.yaml"}
        self.record(spec["campaign"], "campaign.created", created, actor)
        return str(spec["campaign"])

    def status(self) -> dict[str, Any]:
        daemon = {
            "version": "0",
            "pid": os.getpid(),
            "epoch": 1,
            "started_ns": 1,
            "state_dir": str(self.here.root),
        }
        daemon |= {"seq": self.world.seq, "machine_digest": "0" * 64, "sqlite": "3", "ready": self.ready}
        return {"daemon": daemon | {"progress_age_s": 0.1}, "campaigns": summaries(self.world)}

    async def submit(self, text: str, source: str, operator: str) -> str:
        return self.create(text, operator)

    async def pause(self, campaign: str, reason: str, operator: str) -> None:
        self.record(campaign, "campaign.paused", {"reason": reason}, operator)

    async def resume(self, campaign: str, operator: str) -> None:
        self.record(campaign, "campaign.resumed", {"checks": []}, operator)

    async def cancel(self, campaign: str, confirmed: bool, operator: str) -> None:
        self.record(campaign, "campaign.cancel_requested", {"by": operator, "confirmed": confirmed}, operator)

    async def shutdown(self) -> None:
        self.stopped = True

    def events(self, after: int, campaign: str | None, limit: int) -> list[Event]:
        with Reader(self.ledger_path) as reader:
            return list(reader.events(after, None, campaign, limit))

    async def changed(self, after: int, timeout: float) -> int:
        if self.world.seq <= after:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            await asyncio.wait([waiter], timeout=timeout)
            self._waiters.discard(waiter)
        return self.world.seq

    def why(self, seq: int) -> dict[str, Any]:
        return why_at(self.ledger_path, seq)

    def close_campaign(self, campaign: str) -> None:
        """Cancel it and bring it to its end."""
        asked = self.record(campaign, "campaign.cancel_requested", {"by": "operator:test"}, "operator:test")
        self.record(campaign, "cleanup.finished", {"before": [], "after": []})
        file = {"sha256": "0" * 64, "bytes": 0, "path": "reports/final_report.md"}
        self.record(campaign, "report.published", {"files": [file]})
        closed = {"terminal": "cancelled", "reason": "cancelled by operator:test", "evidence": [asked.seq]}
        self.record(campaign, "campaign.closed", closed)


@dataclass
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def example() -> str:
    """A campaign file that is fine."""
    return EXAMPLE


@pytest.fixture
def here(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


@pytest.fixture
def service(here: StateDir) -> Any:
    found = SmallService(here)
    yield found
    found.ledger.close()


@asynccontextmanager
async def open_door(service: SmallService) -> AsyncIterator[Client]:
    """The service behind its socket."""
    async with serving(make_app(service), service.here.socket):
        yield Client(service.here.socket)


@pytest.fixture
async def door(service: SmallService) -> AsyncIterator[Client]:
    async with open_door(service) as client:
        yield client


@pytest.fixture
def run(here: StateDir) -> Run:
    """Run ``sotactl`` (or another module) on the state directory, as a process of its own."""

    async def run_command(*argv: str, module: str = "sotad.cli.control", stdin: bytes = b"") -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *argv),
            env={**os.environ, "SOTAD_DIR": str(here.root)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    return run_command
