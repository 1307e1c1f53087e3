"""What a host promises: files in, one run at most once, how it ended, files out.

A run is a directory on the host (see `sotad.shim`), named by a relative path such as
`demo-1/launch-003/server`. Nothing here assumes that the host is this machine.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sotad.hosts.runs import HostError, allowed_environment, check_run_id
from sotad.shim import SHORTEST_SECRET

__all__ = [
    "Host",
    "HostError",
    "HostUnreachable",
    "RunSpec",
    "RunStatus",
    "allowed_environment",
    "check_run_id",
    "clock_problem",
    "secret_values",
]

Phase = Literal["absent", "starting", "running", "exited", "lost"]
Reason = Literal["exited", "timeout", "stopped", "failed_to_start"]


class HostUnreachable(HostError):
    """The host does not answer. What runs there goes on, and can be attached to once it answers again."""


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
    `exit.json`, or the machine was booted since (`message` says which): it will never end, and its results
    are not to be used; `stop` kills what may be left of it. Times are UTC nanoseconds. `leftovers` and `survivors` hold
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
    """A place where runs happen.

    Every method may be repeated, raises `HostError` when the host cannot do it, and `HostUnreachable` when it
    does not answer for longer than the host is patient.

    Attributes:
        name: what people call it.
        here: whether paths of this machine are paths of the host.
        python: the interpreter there, for programs that need nothing but the standard library.
    """

    name: str
    here: bool
    python: str

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

    async def place(self, name: str, data: bytes) -> str:
        """Where on the host a file `name` holds `data`, sent only when no file there does."""

    async def holds(self, sha256: str) -> bool:
        """Whether a file with this content was placed on the host."""

    async def environment(self, *names: str) -> dict[str, str]:
        """The everyday variables of the host's user there, and `names`, as far as they are set."""

    async def free_port(self) -> int:
        """A TCP port of the host's loopback that nothing listens on now."""

    async def forward(self, port: int) -> str:
        """The base URL by which this process reaches TCP `port` of the host's loopback."""

    async def offset_ns(self) -> tuple[int, int]:
        """The host's UTC clock minus ours, and how far off that may be, in nanoseconds."""

    async def close(self) -> None:
        """Nothing of this process leads to the host any more; its runs go on."""


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


def clock_problem(name: str, offset_ns: int, uncertainty_ns: int) -> str:
    """One line when the host's clock is surely off by more than a second; else empty."""
    if abs(offset_ns) - uncertainty_ns <= 10**9:
        return ""
    way = "ahead of" if offset_ns > 0 else "behind"
    return (
        f"the clock of {name} is {abs(offset_ns) / 1e9:.1f} s {way} ours (measured to {uncertainty_ns / 1e6:.1f} ms): "
        "times in its logs and run records are off by that; let NTP set both clocks (`timedatectl set-ntp true`)"
    )
