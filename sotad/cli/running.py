"""``start`` and ``stop``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

from sotad.api.address import parse_address
from sotad.cli.lock import holder
from sotad.cli.options import places, subcommand
from sotad.cli.output import emit_json, say
from sotad.client import Client
from sotad.errors import HostFault, OperatorFault, SotadError, Unreachable
from sotad.paths import StateDir

POLL_S = 0.1
EXAMPLES = """\
  sotad start
  sotad start --detach --dir /srv/sotad
  sotad start --tcp 127.0.0.1:7660

TCP asks for the token in DIR/keys/api.token and is not encrypted: keep it on loopback, or behind TLS."""


def add(commands: Any) -> None:
    """Add the group to the parser."""
    start = subcommand(commands, "start", "run the daemon, in the foreground unless told otherwise", EXAMPLES)
    start.add_argument("--detach", action="store_true", help="return when it is ready; output goes to the log")
    start.add_argument("--tcp", metavar="HOST:PORT", help="answer there too; without HOST on loopback")
    start.set_defaults(run=_start)
    stop = subcommand(commands, "stop", "ask the daemon to end, and wait until it has", "  sotad stop")
    stop.set_defaults(run=_stop)
    for parser in (start, stop):
        parser.add_argument("--wait", metavar="S", type=float, default=60.0, help="seconds, at most (60)")


def _start(args: argparse.Namespace) -> int:
    here = places(args)
    if args.tcp is not None:
        parse_address(args.tcp)
    if args.detach:
        return _detach(here, args)
    from sotad.daemon.service import run

    return run(here.root, args.tcp)


def _detach(here: StateDir, args: argparse.Namespace) -> int:
    running = holder(here.lock)
    if running:
        raise OperatorFault(f"{here.root} is in use by {running}", "`sotad stop` it, or choose another --dir")
    here.log.parent.mkdir(parents=True, exist_ok=True)
    with here.log.open("ab") as log:
        began = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "sotad.cli.daemon", "start", "--dir", str(here.root)]
            + ([] if args.tcp is None else ["--tcp", args.tcp]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _wait_ready(here, child, began, args.wait)
    emit_json({"pid": child.pid, "log": str(here.log)}) if args.json else print(child.pid)
    child.returncode = 0  # it lives on: we do not wait for it
    return 0


def _wait_ready(here: StateDir, child: subprocess.Popen[bytes], began: int, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not _answers(here, child.pid):
        if child.poll() is not None:
            raise _died(here, child.returncode, began)
        if time.monotonic() > deadline:
            message = f"the daemon (pid {child.pid}) is not ready after {patience_s:g} s; it goes on starting"
            child.returncode = 0
            raise HostFault(message, f"watch {here.log}")
        time.sleep(POLL_S)


def _answers(here: StateDir, pid: int) -> bool:
    """Whether this very daemon is ready."""
    try:
        health = Client(here.socket, timeout=2).get("/healthz")
    except SotadError:
        return False
    return bool(health["ready"]) and health["pid"] == pid


def _died(here: StateDir, status: int, began: int) -> SotadError:
    """The child's own error: its last line and its exit status."""
    with here.log.open("rb") as log:
        log.seek(began)
        lines = log.read().decode("utf-8", "replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    error = SotadError(f"the daemon ended with status {status}: {last}", f"see {here.log}", "died")
    error.exit_status = status if status in (1, 2, 3, 4) else 4
    return error


def _stop(args: argparse.Namespace) -> int:
    here = places(args)
    try:
        Client(here.socket).post("/v1/shutdown")
    except Unreachable as gone:
        held = holder(here.lock)
        if held:
            raise Unreachable(f"{held} holds {here.root} but does not answer", f"see {here.log}") from None
        advice = "nothing to stop; name another with --dir"
        raise Unreachable(f"no daemon runs in {here.root}", advice) from gone
    deadline = time.monotonic() + args.wait
    while (held := holder(here.lock)) is not None:
        if time.monotonic() > deadline:
            raise HostFault(f"{held} is still there after {args.wait:g} s", f"see {here.log}")
        time.sleep(POLL_S)
    emit_json({"stopped": True}) if args.json else say("stopped")
    return 0
