"""Runs the real ``sotad start`` in a process that something happens to.

``launcher.py STATE_DIR [--kill WHEN:WHAT] [--kill-in SECONDS] ...``. WHEN is ``before`` or ``after`` the commit,
WHAT the number of an event or a type. The product knows nothing of this: its functions are wrapped here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ledger.events import Draft
from ledger.planning import Outcome, Request
from ledger.store import Ledger
from sotad.cli.daemon import main
from sotad.config.hosts import HostConfig
from sotad.daemon import hosts, service
from sotad.daemon.driver import Driver
from sotad.hosts.base import Host, RunSpec, RunStatus
from sotad.hosts.local import LocalHost
from statemachine.state import Campaign

OUTSIDE = ("daemon.started", "daemon.stopped")
VARYING = re.compile("[0-9a-f]{12}|[0-9]+")  # of a run's name


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # nothing more happens in this thread


def kill_at(when: str, what: str) -> None:
    """SIGKILL this process right before, or right after, the commit of one event."""
    original = Ledger.append_group

    def append_group(self: Ledger, requests: Sequence[Request]) -> list[Outcome]:
        types = [draft.type for request in requests for draft in request.drafts]
        due = what in types
        if what.isdigit():
            due = self.head()[0] < int(what) <= self.head()[0] + len(types)
        if due and when == "before":
            die()
        outcomes = original(self, requests)
        if due:
            die()
        return outcomes

    Ledger.append_group = append_group  # type: ignore[method-assign]


def kill_each(path: Path) -> None:
    """SIGKILL this process before, and another time after, the first commit of each kind of event.

    The file has a line for each kill so far, so that the next life goes on where this one ended.
    """
    original = Ledger.append_group

    def append_group(self: Ledger, requests: Sequence[Request]) -> list[Outcome]:
        drafts = [draft for request in requests for draft in request.drafts if draft.type not in OUTSIDE]
        _die_once(path, [f"before {kind(draft)}" for draft in drafts])
        outcomes = original(self, requests)
        _die_once(path, [f"after {kind(draft)}" for draft in drafts])
        return outcomes

    Ledger.append_group = append_group  # type: ignore[method-assign]


def kill_each_call(path: Path) -> None:
    """The same for each kind of thing done on a host: a file put, a run started, a run stopped."""
    for verb in ("put", "start", "stop"):
        _kill_around(verb, path)


def _kill_around(verb: str, path: Path) -> None:
    original = getattr(LocalHost, verb)

    async def call(self: LocalHost, run_id: str, *rest: Any) -> Any:
        _, activity, *_, name = PurePosixPath(run_id).parts
        file = rest[0] if verb == "put" else ""
        what = f"{verb} {activity}/{VARYING.sub('N', name)} {file}".strip()
        _die_once(path, [f"before {what}"])
        answer = await original(self, run_id, *rest)
        _die_once(path, [f"after {what}"])
        return answer

    setattr(LocalHost, verb, call)


def kind(draft: Draft) -> str:
    """Its type, and for what works on many things: which of them."""
    job = str(draft.payload.get("job", "")).partition("/")[0]
    return f"{draft.type} {draft.payload.get('gate', job)}".strip()


def _die_once(path: Path, points: Sequence[str]) -> None:
    done = path.read_text().splitlines() if path.exists() else []
    if new := [point for point in points if point not in done]:
        path.write_text("\n".join([*done, *new, ""]))
        die()


def kill_in(seconds: float) -> None:
    """SIGKILL this process after a time, whatever it is doing."""
    timer = threading.Timer(seconds, die)
    timer.daemon = True
    timer.start()


def kill_at_run(pattern: str) -> None:
    """SIGKILL this process when it is about to start a run whose name is like that."""
    original = LocalHost.start

    async def start(self: LocalHost, run_id: str, spec: RunSpec) -> RunStatus:
        if PurePosixPath(run_id).match(pattern):
            die()
        return await original(self, run_id, spec)

    LocalHost.start = start  # type: ignore[method-assign]


def take_ports(count: int) -> None:
    """The next ``count`` ports that servers are given are held by somebody else: this process."""
    original, held = LocalHost.free_port, []

    async def free_port(self: LocalHost) -> int:
        port = await original(self)
        if len(held) < count:
            import socket

            held.append(socket.create_server(("127.0.0.1", port)))
        return port

    LocalHost.free_port = free_port  # type: ignore[method-assign]


def as_if_away(switch: Path, home: Path) -> None:
    """Every host with a definition is treated as another machine, and does not answer while ``switch`` is there."""
    from away import AwayHost  # this file is run as a script

    elsewhere = tuple(home / name for name in ("state", "target", "leader"))

    def opened(name: str, defined: HostConfig) -> Host:
        return AwayHost(Path(defined.root), name, switch, elsewhere)

    hosts.opened = opened


def wedge(after_s: float, whole_loop: bool) -> None:
    """From a moment on the driver never comes round again: it waits for ever, or blocks the whole loop."""
    original, began = Driver._advance, time.monotonic()

    async def advance(self: Driver, c: Campaign) -> None:
        if time.monotonic() - began > after_s:
            threading.Event().wait() if whole_loop else await asyncio.Event().wait()
        await original(self, c)

    Driver._advance = advance  # type: ignore[method-assign]


def arguments(argv: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("--kill", default="")
    parser.add_argument("--kill-in", type=float)
    parser.add_argument("--kill-each", type=Path)
    parser.add_argument("--kill-each-call", type=Path)
    parser.add_argument("--kill-at-run", metavar="PATTERN", help="of the last part of a run's id")
    parser.add_argument("--take-ports", type=int)
    parser.add_argument("--away", type=Path)
    parser.add_argument("--wedge", choices=("driver", "loop"))
    parser.add_argument("--wedge-after", type=float, default=0.0)
    parser.add_argument("--stalled", type=float, help="seconds after which the loop counts as stuck")
    return parser.parse_args(argv)


if __name__ == "__main__":
    wanted = arguments(sys.argv[1:])
    if wanted.kill:
        kill_at(*wanted.kill.split(":", 1))
    if wanted.kill_each:
        kill_each(wanted.kill_each)
    if wanted.kill_each_call:
        kill_each_call(wanted.kill_each_call)
    if wanted.kill_at_run:
        kill_at_run(wanted.kill_at_run)
    if wanted.kill_in:
        kill_in(wanted.kill_in)
    if wanted.take_ports:
        take_ports(wanted.take_ports)
    if wanted.away:
        as_if_away(wanted.away, Path(wanted.state).parent)
    if wanted.wedge:
        wedge(wanted.wedge_after, wanted.wedge == "loop")
    if wanted.stalled:
        service.STALLED_S = wanted.stalled
    sys.exit(main(["start", "--dir", wanted.state]))
