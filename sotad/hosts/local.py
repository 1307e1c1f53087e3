"""The machine that the daemon is on."""

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sotad import shim
from sotad.hosts import gpus, onhost
from sotad.hosts.base import RunSpec, RunStatus, allowed_environment, secret_values
from sotad.hosts.onhost import free_port
from sotad.hosts.runs import POLL_S, Root

__all__ = ["LocalHost", "free_port"]

_DEFAULT_LIMIT = 2**20


class LocalHost:
    """Runs on this machine, in directories below `root`; keeps nothing in memory.

    `secrets_source` is where the values of secrets come from (default: this process's environment).
    """

    here = True
    python = sys.executable

    def __init__(self, root: Path, name: str = "local", secrets_source: Mapping[str, str] = os.environ) -> None:
        self.name = name
        self._root = Root(root.absolute(), (sys.executable, "-I", "-S", shim.__file__))
        self._secrets_source = secrets_source

    def path(self, run_id: str) -> str:
        """Raises: HostError for an id that could lead out of the root."""
        return str(self._root.directory(run_id))

    async def probe(self) -> dict[str, Any]:
        """What the machine is, its GPUs by what stays the same while they work."""
        return await asyncio.to_thread(lambda: onhost.probe([asdict(gpu) for gpu in gpus.look().gpus]))

    async def put(self, run_id: str, name: str, data: bytes) -> None:
        """File `name` of the run holds `data`; repeating the same is fine at any time.

        Raises:
            HostError: the name is taken or no plain name, the run was started, or the disk refuses.
        """
        await asyncio.to_thread(self._root.put, run_id, name, data)

    async def start(self, run_id: str, spec: RunSpec) -> RunStatus:
        """The run was begun exactly once, by this call or an earlier one with the same spec.

        A program that cannot be executed is an outcome (`failed_to_start`), not an error.

        Raises:
            HostError: another spec has this id, a secret is missing, or the directory cannot be written.
        """
        secrets = secret_values(spec, self._secrets_source)
        return RunStatus.from_record(await asyncio.to_thread(self._root.start, run_id, spec.to_json(), secrets))

    async def status(self, run_id: str) -> RunStatus:
        """Where the run stands now."""
        return RunStatus.from_record(await asyncio.to_thread(self._root.status, run_id))

    async def wait(self, run_id: str, timeout_s: float) -> RunStatus:
        """Where the run stands once it is over, or after `timeout_s` seconds."""
        pause, longest = POLL_S
        deadline = time.monotonic() + timeout_s
        while True:
            state = await self.status(run_id)
            left = deadline - time.monotonic()
            if state.over or left <= 0:
                return state
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, longest)

    async def stop(self, run_id: str) -> RunStatus:
        """Where the run stands after it and everything it started was ended; a run that is over stays."""
        return RunStatus.from_record(await asyncio.to_thread(self._root.stop, run_id))

    async def read(self, run_id: str, name: str, offset: int = 0, limit: int = _DEFAULT_LIMIT) -> bytes:
        """At most `limit` bytes of file `name` of the run, from byte `offset`.

        Raises:
            HostError: there is no such file in the run's directory.
        """
        return await asyncio.to_thread(self._root.read, run_id, name, offset, limit)

    async def processes(self, run_id: str) -> list[int]:
        """The pids of the run's command and of everything below it; none when it is not running."""
        return await asyncio.to_thread(self._root.processes, run_id)

    async def list_runs(self, prefix: str = "") -> list[str]:
        """The ids, sorted, of the runs that were ever asked for and begin with `prefix`."""
        return await asyncio.to_thread(self._root.list_runs, prefix)

    async def place(self, name: str, data: bytes) -> str:
        """Where a file `name` holds `data`, below `files` by its SHA-256.

        Raises:
            HostError: the name is no plain one, or the disk refuses.
        """
        path = await asyncio.to_thread(self._root.place, name, hashlib.sha256(data).hexdigest(), data)
        assert path is not None
        return path

    async def holds(self, sha256: str) -> bool:
        """Whether a file with this content was placed."""
        return await asyncio.to_thread(self._root.holds, sha256)

    async def environment(self, *names: str) -> dict[str, str]:
        """The everyday variables, and `names`, as far as they are set."""
        return allowed_environment(*names)

    async def free_port(self) -> int:
        """A TCP port of the loopback that nothing listens on now."""
        return free_port()

    async def forward(self, port: int) -> str:
        """The base URL of TCP `port` of the loopback: nothing lies in between."""
        return f"http://127.0.0.1:{port}"

    async def offset_ns(self) -> tuple[int, int]:
        """Zero: it is the same clock."""
        return 0, 0

    async def close(self) -> None:
        """Nothing is open."""
