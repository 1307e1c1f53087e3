"""``doctor``: is this machine fit to run the daemon? Each check is one function and one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sotad.cli.doctor_hosts import examined, place
from sotad.cli.options import places, subcommand
from sotad.cli.output import emit_json, table
from sotad.errors import SotadError, of
from sotad.paths import StateDir

if TYPE_CHECKING:
    from sotad.config.hosts import HostConfig
    from sotad.config.sections import Agent

FREE_BYTES = 1 << 30
SLOW_FSYNC_MS = 50.0
LEAST_GIT = (2, 32)
"""The first that can be told to leave the user's configuration alone (``GIT_CONFIG_GLOBAL``)."""
MODELS = ("claude", "codex")


class Finding(NamedTuple):
    """One line: ``state`` is ok, warn (it works, but know this) or fail; ``next`` is what to do."""

    state: str
    detail: str
    next: str = ""


Check = Callable[[StateDir], Finding]


def add(commands: Any) -> None:
    """Add the group to the parser."""
    what = "check this machine, its state directory and the daemon's hosts; status 1 when something must be mended"
    examples = "  sotactl doctor\n  sotactl doctor campaign.yaml --json | jq '.checks[] | select(.state != \"ok\")'"
    parser = subcommand(commands, "doctor", what, examples)
    asked = "campaign files whose agents are looked at, too; without one, claude and codex as the PATH has them"
    parser.add_argument("configs", metavar="CONFIG", nargs="*", type=Path, help=asked)
    there = "a machine that is reached over ssh, and the folder there that is to be the daemon's; may be repeated"
    parser.add_argument("--ssh", metavar="HOST:/ROOT", action="append", type=place, default=[], help=there)
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    here = places(args)
    asked = {f"host {address}": partial(_over_ssh, address, root) for address, root in args.ssh}
    checks = CHECKS | _agents(args.configs) | _hosts(here) | asked
    found = [(name, _guarded(check, here)) for name, check in checks.items()]
    if args.json:
        emit_json({"checks": [{"check": name, **finding._asdict()} for name, finding in found]})
    else:
        print(table(((name, *finding) for name, finding in found), ("CHECK", "STATE", "FOUND", "NEXT")))
    return 1 if any(finding.state == "fail" for _, finding in found) else 0


def _guarded(check: Check, here: StateDir) -> Finding:
    """A check that cannot be made is a finding too."""
    try:
        return check(here)
    except Exception as error:  # the point of a doctor is to go on
        fault: SotadError = of(error)
        return Finding("fail", str(fault), fault.next)


def _python(here: StateDir) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("ok", f"{version} at {sys.executable}")


def _sqlite(here: StateDir) -> Finding:
    from ledger.schema import sqlite_build

    build = sqlite_build()
    if build.affected:
        return Finding("ok", f"{build.version} has the WAL-reset bug, kept harmless: {build.arrangement}")
    return Finding("ok", f"{build.version} without the WAL-reset bug")


def _state_directory(here: StateDir) -> Finding:
    import os
    import shutil

    if not here.root.is_dir():
        return Finding("warn", f"{here.root} does not exist yet", "`sotad start` or `sotad init` makes it")
    if not os.access(here.root, os.W_OK | os.X_OK):
        return Finding("fail", f"{here.root} is not writable", "choose another --dir, or change its owner")
    free = shutil.disk_usage(here.root).free
    said = f"{here.root}, {free / 1e9:.1f} GB free"
    return Finding("ok", said) if free > FREE_BYTES else Finding("fail", said, "free some space")


def _fsync(here: StateDir) -> Finding:
    """The median of 20 appends of 4 KiB, each synced, where the ledger lies."""
    import os
    import statistics
    import tempfile
    import time

    if not os.access(here.root, os.W_OK):
        return Finding("warn", "not measured: there is no writable state directory")
    times = []
    with tempfile.TemporaryFile(dir=here.root) as file:
        for _ in range(20):
            start = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fsync(file.fileno())
            times.append(1e3 * (time.perf_counter() - start))
    median = statistics.median(times)
    said = f"{median:.2f} ms median, {max(times):.2f} ms worst"
    if median > SLOW_FSYNC_MS:
        return Finding("warn", said, "put the state directory on a local SSD")
    return Finding("ok", said)


def _lock(here: StateDir) -> Finding:
    from sotad.cli.lock import holder

    found = holder(here.lock)
    return Finding("ok", f"held by {found}" if found else "free: no daemon runs here")


def _daemon(here: StateDir) -> Finding:
    from sotad.cli.lock import holder
    from sotad.client import Client
    from sotad.errors import Unreachable

    try:
        daemon = Client(here.socket).get("/v1/status")["daemon"]
    except Unreachable as gone:
        if holder(here.lock):
            return Finding("fail", str(gone), f"a daemon holds the lock but does not answer: see {here.log}")
        return Finding("warn", str(gone), gone.next)
    ready = "ready" if daemon["ready"] else "not ready"
    return Finding("ok", f"{ready}, pid {daemon['pid']}, answers at {here.socket}")


def _ledger(here: StateDir) -> Finding:
    from ledger.reader import Reader

    if not here.ledger.exists():
        return Finding("ok", "none yet")
    with Reader(here.ledger) as reader:
        seq, head = reader.head()
    return Finding("ok", f"{seq} events, head {head[:16]}; `sotactl ledger verify` checks them")


def _clock(here: StateDir) -> Finding:
    """Events carry this clock: it must not be before the last of them, or before this program was written."""
    import time

    from ledger.reader import Reader
    from sotad.cli.output import utc

    now = time.time_ns()
    last = 1_750_000_000_000_000_000
    if here.ledger.exists():
        with Reader(here.ledger) as reader:
            event = reader.event(reader.head()[0])
            last = max(last, event.time_ns if event else 0)
    if now < last:
        return Finding("fail", f"{utc(now)} is before {utc(last)}, the last event", "set the clock; use NTP")
    return Finding("ok", utc(now))


def _boot_id(here: StateDir) -> Finding:
    path = Path("/proc/sys/kernel/random/boot_id")
    if not path.exists():
        return Finding("fail", f"{path} is missing", "use Linux: runs are told apart across reboots by it")
    return Finding("ok", path.read_text().strip())


def _git(here: StateDir) -> Finding:
    import re
    import shutil
    import subprocess

    if shutil.which("git") is None:
        return Finding("fail", "git is not in the PATH", "install git: patches are commits")
    asked = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=10, check=True)
    version = tuple(map(int, re.findall(r"\d+", asked.stdout)[:2]))
    if version < LEAST_GIT:
        return Finding("fail", asked.stdout.strip(), f"install git {'.'.join(map(str, LEAST_GIT))} or later")
    return Finding("ok", asked.stdout.strip())


def _sandbox(here: StateDir) -> Finding:
    """Whether agents can be kept to their own folders."""
    from sotad import sandbox

    why = sandbox.available()
    if why:
        return Finding("warn", f"agents would run unconfined: {why}", "trust the agents, or run the daemon elsewhere")
    signals = "" if sandbox.abi() >= sandbox.SIGNALS_ABI else "; signals to other processes are not kept in"
    return Finding("ok", f"Landlock {sandbox.abi()}{signals}")


def _torch(here: StateDir) -> Finding:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return Finding("warn", "not installed", "only the demo needs it: pip install 'sotad[demo]'")
    return Finding("ok", "installed, for the reference engine")


def _configuration(here: StateDir) -> Finding:
    """The daemon's file, as the next start will read it."""
    from sotad.config import load_daemon

    if not here.config.exists():
        return Finding("ok", f"no {here.config}: everything is at its default")
    hosts = ", ".join(load_daemon(here.config).hosts) or "none but local"
    return Finding("ok", f"{here.config}; hosts: {hosts}")


def _hosts(here: StateDir) -> dict[str, Check]:
    """A check for each host of the daemon's file; that the file is wrong is another check's to say."""
    from sotad.config import load_daemon

    try:
        defined = load_daemon(here.config).hosts
    except SotadError:
        return {}
    return {f"host {name}": partial(_host, name, config) for name, config in defined.items()}


def _over_ssh(address: str, root: str, here: StateDir) -> Finding:
    from sotad.config.hosts import HostConfig

    return _host(address, HostConfig(kind="ssh", address=address, root=root), here)


def _host(name: str, defined: HostConfig, here: StateDir) -> Finding:
    return Finding(*examined(name, defined))


def _agents(configs: Sequence[Path]) -> dict[str, Check]:
    """A check for each agent of the campaign files; for the known tools where there are no files."""
    if not configs:
        return {name: partial(_tool, name) for name in MODELS}
    pairs = [(path, role) for path in configs for role in ("implementer", "reviewer")]
    return {f"{role} of {path}": partial(_agent, path, role) for path, role in pairs}


def _tool(name: str, here: StateDir) -> Finding:
    """A tool that no campaign has asked for yet: without it only such campaigns cannot run."""
    from sotad.agents.flags import BadTool
    from sotad.config.sections import Agent

    try:
        return Finding("ok", _version(Agent.model_validate({"driver": name})))
    except BadTool as error:
        return Finding("warn", str(error), f"only campaigns with driver: {name} need it")


def _agent(path: Path, role: str, here: StateDir) -> Finding:
    """An agent that a campaign file names: its tool, its sandbox, and the variables that it is to get."""
    import os

    from sotad import sandbox
    from sotad.agents.flags import BadTool
    from sotad.config import load_campaign
    from sotad.config.sections import Agent

    spec = load_campaign(path)
    if role == "reviewer" and spec["review"]["mode"] == "self":
        return Finding("ok", "not asked: review.mode is self")
    agent = Agent.model_validate(spec[role])
    try:
        said = _version(agent) if agent.driver in MODELS else _program(agent)
    except BadTool as error:
        return Finding("fail", str(error))
    doubts = {}
    if unset := [name for name in agent.env_from if name not in os.environ]:
        doubts[f"not set here: {', '.join(unset)}"] = "set it where the daemon is started"
    if agent.driver in (*MODELS, "command") and (agent.sandbox == "off" or sandbox.available()):
        doubts["runs unconfined"] = "see docs/gates.md, The sandbox"
    return Finding("warn" if doubts else "ok", "; ".join([said, *doubts]), "; ".join(doubts.values()))


def _version(agent: Agent) -> str:
    """Driver and version. Raises: BadTool when a call of it could not be made."""
    import asyncio

    from sotad.agents.examine import examine

    return f"{agent.driver} {asyncio.run(examine(agent))} has every flag that a call passes"


def _program(agent: Agent) -> str:
    """Raises: BadTool when the program of a ``command`` is not there."""
    import shutil

    from sotad.agents.flags import BadTool

    if agent.driver != "command":
        return f"{agent.driver}: a script of this package"
    if shutil.which(agent.argv[0]) is None:
        raise BadTool(f"cannot run {agent.argv[0]}: install it, or name its path in argv")
    return f"command {agent.argv[0]}"


CHECKS: dict[str, Check] = {
    "python": _python,
    "sqlite": _sqlite,
    "state directory": _state_directory,
    "fsync": _fsync,
    "configuration": _configuration,
    "lock": _lock,
    "daemon": _daemon,
    "ledger": _ledger,
    "clock": _clock,
    "boot id": _boot_id,
    "git": _git,
    "sandbox": _sandbox,
    "torch": _torch,
}
