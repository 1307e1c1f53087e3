"""What an activity has at hand: its parameters, the campaign's state, the journal, the host, the artifacts."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.artifacts import Artifacts
from ledger.events import Event
from sotad.daemon.journal import Journal, to_the_end
from sotad.hosts.base import Host, RunSpec, RunStatus, allowed_environment
from statemachine.machine import IllegalEvent
from statemachine.state import JSON, Campaign
from statemachine.table import HALTED

LOG_BYTES = 1 << 20
HALT_POLL_S = 60.0


class ActivityFailed(Exception):
    """The activity came to an end without what it was for; the text is the reason. It may be tried again."""


class RunLost(Exception):
    """A process of the activity vanished without an outcome; what it measured must not be used."""


@dataclass(slots=True)
class Context:
    """One attempt of one activity. ``holding``: it has ended its processes and waits to write a step."""

    campaign: str
    job: str
    attempt: int
    params: JSON
    deadline_ns: int
    journal: Journal
    host: Host
    artifacts: Artifacts
    state_dir: Path
    holding: bool = False

    @property
    def c(self) -> Campaign:
        """The campaign as it is now; it changes with every recorded event."""
        return self.journal.world.campaigns[self.campaign]

    @property
    def spec(self) -> JSON:
        """The campaign's spec, as recorded."""
        return self.c.spec

    @property
    def remaining_s(self) -> float:
        """Seconds to the job's deadline, never below one."""
        return max(1.0, (self.deadline_ns - self.journal.clock()) / 1e9)

    @property
    def begun(self) -> bool:
        """Whether this attempt asked for a process already."""
        return Path(self.host.path(f"{self.campaign}/{self.job}/{self.attempt}")).exists()

    async def once(self, type_: str, payload: Mapping[str, Any], name: str = "", actor: str = "daemon") -> Event:
        """Record an event of this attempt, or return it when an earlier entry recorded it.

        A step has to wait while the campaign is halted; a fact is written at once. Who writes a step must have
        ended its processes: the host may be given to another campaign meanwhile.

        Raises:
            IllegalEvent: the machine refuses it.
        """
        key = self.key(name or type_)
        try:
            while True:
                try:
                    return await self.journal.record(
                        self.campaign, type_, payload, actor=actor, cause=self._cause(), key=key
                    )
                except IllegalEvent:
                    if self.c.phase not in HALTED:
                        raise
                self.holding = True
                self.journal.wake()
                await self.journal.changed(self.journal.world.seq, HALT_POLL_S)
        finally:
            self.holding = False

    def key(self, name: str) -> str:
        """Idempotency key of something in this attempt."""
        return f"{self.campaign}/{self.job}/{self.attempt}/{name}"

    def recorded(self, name: str) -> Event | None:
        """The event of this attempt under that name, when there is one."""
        return self.journal.find(self.key(name))

    def run_id(self, name: str) -> str:
        """Run directory of a process of this attempt."""
        return f"{self.campaign}/{self.job}/{self.attempt}/{name}"

    def python(self, *argv: str, timeout_s: float, cwd: str = "/", **env: str) -> RunSpec:
        """A run of this interpreter."""
        return self.command((sys.executable, *argv), timeout_s=timeout_s, cwd=cwd, **env)

    def command(
        self, argv: tuple[str, ...], *, timeout_s: float, cwd: str = "/", secrets: Sequence[str] = (), **env: str
    ) -> RunSpec:
        """A run of a command with the allow-listed environment; ``secrets`` are passed by name.

        Its time is bounded by the job's whole time, not by what is left of it: an attempt that is entered again
        must ask for the very same run. The driver ends runs at the job's deadline.
        """
        timeout_s = min(timeout_s, float(self.spec["budget"]["job_s"]))
        environment = {**allowed_environment(), **env}
        return RunSpec(argv=argv, cwd=cwd, env=environment, secrets=tuple(secrets), timeout_s=timeout_s)

    async def start(self, name: str, spec: RunSpec, files: Mapping[str, bytes] | None = None) -> RunStatus:
        """Start a process once; an earlier entry's process is found, not repeated."""
        run_id = self.run_id(name)
        status = await self.host.status(run_id)
        if status.phase == "absent":
            for file, data in (files or {}).items():
                await self.host.put(run_id, file, data)
            status = await to_the_end(self.host.start(run_id, spec))
        if status.phase == "lost":
            raise RunLost(f"{run_id} is gone and left no outcome")
        return status

    async def run(self, name: str, spec: RunSpec, files: Mapping[str, bytes] | None = None) -> RunStatus:
        """Start a process once and wait for its end.

        Raises:
            RunLost: it vanished.
        """
        await self.start(name, spec, files)
        status = await self.host.wait(self.run_id(name), spec.timeout_s + spec.grace_s + 30)
        if status.phase != "exited":
            raise RunLost(f"{self.run_id(name)} is {status.phase} and left no outcome")
        return status

    async def stop(self, name: str) -> RunStatus:
        """End a process of this attempt and all that it started."""
        return await self.host.stop(self.run_id(name))

    async def output(self, name: str, file: str = "stdout.log", limit: int = LOG_BYTES) -> bytes:
        """What a process wrote, up to ``limit`` bytes."""
        return await self.host.read(self.run_id(name), file, 0, limit)

    async def tail(self, name: str, file: str = "stderr.log", lines: int = 3) -> str:
        """The last lines of a process's output, for a reason."""
        text = (await self.output(name, file)).decode(errors="replace").strip()
        return " | ".join(line.strip() for line in text.splitlines()[-lines:])

    def path(self, name: str, file: str) -> Path:
        """A file of a run; the local host's directories only."""
        return Path(self.host.path(self.run_id(name))) / file

    async def keep(self, data: bytes, path: str) -> JSON:
        """Store bytes as an artifact; the reference goes into an event."""
        reference = await asyncio.to_thread(self.artifacts.put_bytes, data)
        return {**reference, "path": path}

    async def keep_json(self, value: Any, path: str) -> JSON:
        """Store a JSON document as an artifact."""
        return await self.keep(json.dumps(value, sort_keys=True, indent=1).encode(), path)

    def _cause(self) -> int | None:
        job = self.c.jobs.get(self.job)
        return job.seq if job else None
