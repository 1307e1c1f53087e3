"""What an activity has at hand: its parameters, the campaign's state, the journal, the host, the artifacts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ledger.artifacts import Artifacts
from ledger.events import Event
from sotad.activities.containing import in_container
from sotad.activities.toolbox import Toolbox
from sotad.daemon.journal import Journal, to_the_end
from sotad.hosts.base import Host, HostError, HostUnreachable, RunSpec, RunStatus
from sotad.hosts.gpus_lease import visible
from statemachine.machine import IllegalEvent
from statemachine.state import JSON, Campaign
from statemachine.table import HALTED

LOG_BYTES = 1 << 20
CHUNK = 8 << 20
HALT_POLL_S = 60.0


class ActivityFailed(Exception):
    """The activity came to an end without what it was for; the text is the reason. It may be tried again."""


class RunLost(Exception):
    """A process of the activity vanished without an outcome; what it measured must not be used."""


@dataclass(slots=True)
class Context:
    """One attempt of one activity.

    ``host`` is where its processes run: the campaign's host for what serves and measures, else the daemon's own
    machine. ``home`` is the latter, where that is another one. Paths of one mean nothing on the other: what a run left
    is read through its host. ``holding``: it has ended its processes and waits to write a step.
    """

    campaign: str
    job: str
    attempt: int
    params: JSON
    deadline_ns: int
    journal: Journal
    host: Host
    artifacts: Artifacts
    state_dir: Path
    tools: Toolbox = field(default_factory=Toolbox)
    home: Host | None = None
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

    def at_home(self) -> Context:
        """The same attempt on the daemon's own machine."""
        return self if self.home in (None, self.host) else replace(self, host=self.home, tools=Toolbox(), home=None)

    def everywhere(self) -> list[Context]:
        """The attempt on each machine that may have processes of the campaign."""
        return [self] if self.at_home() is self else [self, self.at_home()]

    async def begun(self) -> bool:
        """Whether this attempt asked for a process already."""
        return bool(await self.host.list_runs(f"{self.campaign}/{self.job}/{self.attempt}/"))

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

    async def unused(self, name: str) -> str:
        """``name`` with the first number that no process of this attempt has: for what each entry asks anew."""
        number = 0
        while (await self.host.status(self.run_id(f"{name}-{number}"))).phase != "absent":
            number += 1
        return f"{name}-{number}"

    def python(self, *argv: str, timeout_s: float, cwd: str = "/", **env: str) -> RunSpec:
        """A run of the interpreter that our own code runs under, on the host."""
        command, own = self.tools.measuring(argv)
        return self.command(command, timeout_s=timeout_s, cwd=cwd, **{**env, **own})

    def program(self, module: str, *argv: str, timeout_s: float, cwd: str) -> RunSpec:
        """A run of a program of :mod:`sotad.there`, which needs nothing that the host may lack."""
        return self.command(self.tools.program(module, *argv), timeout_s=timeout_s, cwd=cwd)

    @property
    def visible(self) -> dict[str, str]:
        """The variables that show a process the leased GPUs alone; none where they are on another machine."""
        hardware = self.spec["hardware"]
        there = hardware["host"] != self.host.name
        return {"CUDA_VISIBLE_DEVICES": ""} if there and hardware["gpu_ids"] else visible(hardware["gpu_ids"])

    def command(
        self, argv: tuple[str, ...], *, timeout_s: float, cwd: str = "/", secrets: Sequence[str] = (), **env: str
    ) -> RunSpec:
        """A run of a command with the allow-listed environment, on the leased GPUs; ``secrets`` are passed by name.

        Its time is bounded by the job's whole time, not by what is left of it: an attempt that is entered again
        must ask for the very same run. The driver ends runs at the job's deadline.
        """
        timeout_s = min(timeout_s, float(self.spec["budget"]["job_s"]))
        environment = {**self.tools.environment, **self.visible, **env}
        return RunSpec(argv=argv, cwd=cwd, env=environment, secrets=tuple(secrets), timeout_s=timeout_s)

    async def serving(self, name: str, spec: RunSpec, *folders: str) -> RunSpec:
        """A run of a framework's command, in the host's container when it has one, which sees ``folders``."""
        places, gpus = (*folders, self.path(name)), self.spec["hardware"]["gpu_ids"]
        box = self.tools.container
        return await in_container(self.host, spec, box, run_id=self.run_id(name), folders=places, gpu_ids=gpus)

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
        return await self.wait(name, spec.timeout_s + spec.grace_s + 30)

    async def wait(self, name: str, timeout_s: float) -> RunStatus:
        """Wait for the end of a process that was started.

        Raises:
            RunLost: it vanished.
        """
        status = await self.host.wait(self.run_id(name), timeout_s)
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

    async def find(self, name: str, file: str, limit: int = LOG_BYTES) -> bytes | None:
        """What a file of a run holds, up to ``limit`` bytes; None where there is no such file."""
        try:
            return await self.output(name, file, limit)
        except HostUnreachable:
            raise
        except HostError:
            return None

    async def fetch(self, name: str, file: str, digest: str = "") -> bytes:
        """The whole of a file that a run has finished; with its SHA-256, when that is known, checked.

        Raises:
            RunLost: it is not what its writer says it wrote.
        """
        parts: list[bytes] = []
        while not parts or len(parts[-1]) == CHUNK:
            parts.append(await self.host.read(self.run_id(name), file, CHUNK * len(parts), CHUNK))
        data = b"".join(parts)
        if digest and sha256(data).hexdigest() != digest:
            raise RunLost(f"{self.run_id(name)}: {file} is not what was written: its SHA-256 is not {digest}")
        return data

    def path(self, name: str, file: str = "") -> str:
        """The path of a run's file, or folder, on the host."""
        folder = self.host.path(self.run_id(name))
        return f"{folder}/{file}" if file else folder

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
