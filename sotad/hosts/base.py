"""What a host promises: files in, one run at most once, how it ended, files out.

A run is a directory on the host (see `sotad.shim`), named by a relative path such as
`demo-1/launch-003/server`. Nothing here assumes that the host is this machine.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sotad.shim import SHORTEST_SECRET

Phase = Literal["absent", "starting", "running", "exited", "lost"]
Reason = Literal["exited", "timeout", "stopped", "failed_to_start"]

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_RUN_ID_LENGTH = 200
_EVERYDAY = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")


class HostError(Exception):
    """The host could not do what it was asked; the text says what, where, and what to do next."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One command, complete: nothing but this decides what runs.

    Attributes:
        argv: the program (looked up in the PATH of `env`) and its arguments.
        cwd: absolute path on the host.
        env: every variable that the command sees, apart from the secrets and the run's token.
        secrets: names of variables whose values come from the daemon's environment and touch no disk.
        timeout_s: seconds after which the host ends the run, whether or not anybody watches.
        grace_s: seconds between SIGTERM and SIGKILL.

    Raises:
        ValueError: a field that no host could carry out.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    timeout_s: float
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("argv is empty; name the program to run")
        if not self.cwd.startswith("/"):
            raise ValueError(f"cwd {self.cwd!r} is not an absolute path")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ValueError(f"timeout_s is {self.timeout_s}; give a positive number of seconds")
        if not (math.isfinite(self.grace_s) and self.grace_s >= 0):
            raise ValueError(f"grace_s is {self.grace_s}; give zero or more seconds")
        twice = sorted(set(self.secrets) & set(self.env))
        if twice:
            raise ValueError(f"{', '.join(twice)} is both in env and in secrets; keep it in secrets only")

    def to_json(self) -> dict[str, Any]:
        """The content of `spec.json`: everything but the values of the secrets."""
        return {
            "argv": list(self.argv),
            "cwd": self.cwd,
            "env": dict(self.env),
            "secrets": sorted(self.secrets),
            "timeout_s": self.timeout_s,
            "grace_s": self.grace_s,
        }


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Where a run stands.

    `absent`: never begun, `start` will begin it. `lost`: begun, but its shim is gone and left no
    `exit.json`, or the machine was booted since: it will never end, and its results are not to be used;
    `stop` kills what may be left of it. Times are UTC nanoseconds. `leftovers` and `survivors` hold
    `{"pid", "command"}` of processes that outlived the command, and of those that no signal could end.
    """

    phase: Phase
    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None
    message: str | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    pid: int | None = None
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    leftovers: tuple[Mapping[str, Any], ...] = ()
    survivors: tuple[Mapping[str, Any], ...] = ()

    @property
    def over(self) -> bool:
        """Whether waiting longer is pointless."""
        return self.phase in ("absent", "exited", "lost")

    @property
    def succeeded(self) -> bool:
        return self.phase == "exited" and self.reason == "exited" and self.exit_code == 0

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "RunStatus":
        """The status that `shim.py RUN_DIR status` printed; what it does not know is ignored."""
        known = {name: value for name, value in record.items() if name in cls.__dataclass_fields__}
        for name in ("leftovers", "survivors"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


class Host(Protocol):
    """A place where runs happen. Every method raises `HostError` when the host cannot do it."""

    name: str

    async def probe(self) -> dict[str, Any]:
        """What the machine is: cpu, cores, memory_bytes, kernel, python, boot_id, gpus."""

    async def put(self, run_id: str, name: str, data: bytes) -> None:
        """File `name` of the run holds `data`; only before the run is started."""

    async def start(self, run_id: str, spec: RunSpec) -> RunStatus:
        """The run was begun exactly once, by this call or an earlier one with the same spec."""

    async def status(self, run_id: str) -> RunStatus:
        """Where the run stands now."""

    async def wait(self, run_id: str, timeout_s: float) -> RunStatus:
        """Where the run stands once it is over, or after `timeout_s` seconds."""

    async def stop(self, run_id: str) -> RunStatus:
        """Where the run stands after it and everything it started was ended."""

    async def read(self, run_id: str, name: str, offset: int = 0, limit: int = ...) -> bytes:
        """At most `limit` bytes of file `name` of the run, from byte `offset`; empty behind its end."""

    async def processes(self, run_id: str) -> list[int]:
        """The pids of the run's command and of everything below it; none when it is not running."""

    async def list_runs(self, prefix: str = "") -> list[str]:
        """The ids, sorted, of the runs that were ever asked for and begin with `prefix`."""

    def path(self, run_id: str) -> str:
        """The run's directory on the host."""


def check_run_id(run_id: str) -> str:
    """`run_id`, when it names a directory below a root and nothing else.

    Raises:
        HostError: it could lead elsewhere.
    """
    if len(run_id) > _RUN_ID_LENGTH or not _RUN_ID.fullmatch(run_id):
        raise HostError(
            f"{run_id!r} is no run id; use parts of letters, digits, '.', '_' and '-' joined by '/', "
            f"each beginning with a letter or digit, {_RUN_ID_LENGTH} characters at most"
        )
    return run_id


def allowed_environment(*names: str, source: Mapping[str, str] | None = None, **extra: str) -> dict[str, str]:
    """The everyday variables and `names` as they are in `source` (default: this process), and `extra`."""
    source = os.environ if source is None else source
    kept = {name: source[name] for name in (*_EVERYDAY, *names) if name in source}
    return {**kept, **extra}


def secret_values(spec: RunSpec, source: Mapping[str, str]) -> dict[str, str]:
    """The values of the spec's secrets, to be sent to the run and nowhere else.

    Raises:
        HostError: one is not set, or its value stands in the clear in the arguments or variables.
    """
    missing = [name for name in spec.secrets if name not in source]
    if missing:
        raise HostError(f"secret {', '.join(missing)} is not set in the daemon's environment; set it, restart")
    values = {name: source[name] for name in spec.secrets}
    public = "\0".join((*spec.argv, spec.cwd, *spec.env.values()))
    for name, value in values.items():
        if len(value) >= SHORTEST_SECRET and value in public:
            raise HostError(f"the value of secret {name} stands in the command itself; refer to it by name")
    return values
