"""The machine that the daemon is on."""

import asyncio
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sotad import shim
from sotad.hosts import gpus
from sotad.hosts.base import HostError, RunSpec, RunStatus, allowed_environment, check_run_id, secret_values

_START_TIMEOUT_S = 60.0
_POLL_S = (0.005, 0.2)  # the first and the longest pause between two looks
_GPU_IDENTITY = ("index", "uuid", "name", "memory_total_mib")
_DEFAULT_LIMIT = 2**20
_RESERVED = {"spec.json", "pid.json", "exit.json", "lock", "stop", "stdout.log", "stderr.log", "shim.log"}


class LocalHost:
    """Runs on this machine, in directories below `root`; keeps nothing in memory.

    `secrets_source` is where the values of secrets come from (default: this process's environment).
    """

    def __init__(self, root: Path, name: str = "local", secrets_source: Mapping[str, str] = os.environ) -> None:
        self.name = name
        self._root = root.absolute()
        self._secrets_source = secrets_source

    def path(self, run_id: str) -> str:
        """Raises: HostError for an id that could lead out of the root."""
        return str(self._directory(run_id))

    async def probe(self) -> dict[str, Any]:
        """What the machine is, its GPUs by what stays the same while they work."""
        return await asyncio.to_thread(_probe)

    async def put(self, run_id: str, name: str, data: bytes) -> None:
        """File `name` of the run holds `data`; repeating the same is fine at any time.

        Raises:
            HostError: the name is taken or no plain name, the run was started, or the disk refuses.
        """
        await asyncio.to_thread(self._put, run_id, name, data)

    async def start(self, run_id: str, spec: RunSpec) -> RunStatus:
        """The run was begun exactly once, by this call or an earlier one with the same spec.

        A program that cannot be executed is an outcome (`failed_to_start`), not an error.

        Raises:
            HostError: another spec has this id, a secret is missing, or the directory cannot be written.
        """
        return await asyncio.to_thread(self._start, run_id, spec)

    async def status(self, run_id: str) -> RunStatus:
        """Where the run stands now."""
        return await asyncio.to_thread(self._status, run_id)

    async def wait(self, run_id: str, timeout_s: float) -> RunStatus:
        """Where the run stands once it is over, or after `timeout_s` seconds."""
        pause, longest = _POLL_S
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
        record = await asyncio.to_thread(shim.stop, self._directory(run_id))
        return RunStatus.from_record(record)

    async def read(self, run_id: str, name: str, offset: int = 0, limit: int = _DEFAULT_LIMIT) -> bytes:
        """At most `limit` bytes of file `name` of the run, from byte `offset`.

        Raises:
            HostError: there is no such file in the run's directory.
        """
        return await asyncio.to_thread(self._read, run_id, name, offset, limit)

    async def processes(self, run_id: str) -> list[int]:
        """The pids of the run's command and of everything below it; none when it is not running."""
        state = await asyncio.to_thread(shim.status, self._directory(run_id))
        if state["phase"] != "running":
            return []
        return [process.pid for process in await asyncio.to_thread(shim.descendants, state["shim_pid"])]

    async def list_runs(self, prefix: str = "") -> list[str]:
        """The ids, sorted, of the runs that were ever asked for and begin with `prefix`."""
        runs = await asyncio.to_thread(lambda: list(self._runs()))
        return sorted(run_id for run_id in runs if run_id.startswith(prefix))

    def _directory(self, run_id: str) -> Path:
        return self._root / check_run_id(run_id)

    def _status(self, run_id: str) -> RunStatus:
        return RunStatus.from_record(shim.status(self._directory(run_id)))

    def _start(self, run_id: str, spec: RunSpec) -> RunStatus:
        directory = self._directory(run_id)
        secrets = secret_values(spec, self._secrets_source)
        with _complaining(f"cannot prepare run {run_id}"):
            self._make_directory(run_id)
            _claim_spec(directory / "spec.json", spec)
        if self._status(run_id).phase == "absent":
            _spawn_shim(run_id, directory, secrets)
        state = self._status(run_id)
        if state.phase == "absent":
            raise HostError(f"run {run_id} did not begin; see {directory}/shim.log, then start it again")
        return state

    def _put(self, run_id: str, name: str, data: bytes) -> None:
        directory = self._directory(run_id)
        if name in _RESERVED or "/" in name or name[:1] in ("", "."):
            raise HostError(f"{name!r} cannot be put into run {run_id}; choose a plain name of your own")
        with _complaining(f"cannot put {name} into run {run_id}"):
            if (directory / "spec.json").exists():
                _require_same(directory / name, data, run_id)
                return
            self._make_directory(run_id)
            shim.write_atomically(directory / name, data)

    def _read(self, run_id: str, name: str, offset: int, limit: int) -> bytes:
        directory = self._directory(run_id).resolve()
        path = (directory / name).resolve()
        if not path.is_relative_to(directory) or not path.is_file():
            raise HostError(f"run {run_id} has no file {name!r}; see {directory}")
        with _complaining(f"cannot read {name} of run {run_id}"), path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)

    def _runs(self) -> Iterator[str]:
        for directory, subdirectories, files in os.walk(self._root):
            if "spec.json" in files:
                subdirectories.clear()  # runs do not nest
                yield str(Path(directory).relative_to(self._root))

    def _make_directory(self, run_id: str) -> None:
        directory = self._directory(run_id)
        for parent in directory.relative_to(self._root).parents:
            if (self._root / parent / "spec.json").exists():
                raise HostError(f"run {run_id} would lie inside run {parent}; choose another id")
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        shim.sync_directory(directory.parent)


@contextlib.contextmanager
def _complaining(what: str) -> Iterator[None]:
    """Turns an OSError into a HostError that says `what` failed."""
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise HostError(f"{what}: {error.strerror}{where}; check that the directory is writable") from error


def _claim_spec(path: Path, spec: RunSpec) -> None:
    """`path` holds `spec` for good: whoever comes first decides."""
    wanted = json.dumps(spec.to_json(), sort_keys=True).encode()
    draft = path.with_name(f".spec.{os.getpid()}.{time.monotonic_ns()}")
    shim.write_atomically(draft, wanted)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        if path.read_bytes() != wanted:
            raise HostError(f"{path.parent} belongs to another command; choose another run id") from None
    finally:
        draft.unlink()
    shim.sync_directory(path.parent)


def _require_same(path: Path, data: bytes, run_id: str) -> None:
    if not path.exists() or path.read_bytes() != data:
        raise HostError(f"run {run_id} was started already; put {path.name} before that, or use another id")


def _spawn_shim(run_id: str, directory: Path, secrets: Mapping[str, str]) -> None:
    """Returns once the run was begun, or was found to be somebody else's already.

    Raises:
        HostError: no run was begun.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", shim.__file__, str(directory)],
            input=json.dumps(dict(secrets)).encode(),
            capture_output=True,
            start_new_session=True,
            env=allowed_environment("LD_LIBRARY_PATH"),
            timeout=_START_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"cannot start the shim of run {run_id}: {error}; start it again") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise HostError(f"cannot begin run {run_id}: {said}; remove the cause and start it again")


def _probe() -> dict[str, Any]:
    return {
        "hostname": platform.node(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "boot_id": shim.boot_id(),
        "gpus": [{key: getattr(gpu, key) for key in _GPU_IDENTITY} for gpu in gpus.look().gpus],
    }


def _cpu_model() -> str | None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, None)


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on at this moment.

    Another process may take it before the caller does: a server that then fails to bind is started
    again on another port.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
