"""The unit file's own command under a service manager's socket: ready, fed, stuck, stopping."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.campaign import Rig

UNIT = Path(__file__).parents[2] / "systemd" / "sotad.service"
WATCHDOG_S = 1.5


class Manager:
    """The service manager's end of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.door.bind(os.fspath(path))
        usec = str(round(WATCHDOG_S * 1e6))
        self.environment = {"NOTIFY_SOCKET": os.fspath(path), "WATCHDOG_USEC": usec}

    def next(self, patience_s: float = 30.0) -> dict[str, str]:
        """The next message; empty when none comes in time."""
        self.door.settimeout(max(patience_s, 0.001))
        try:
            lines = self.door.recv(65536).decode().splitlines()
        except TimeoutError:
            return {}
        return dict(line.split("=", 1) for line in lines)

    def until(self, name: str, patience_s: float = 30.0) -> dict[str, str]:
        """The first message with a field."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if name in (found := self.next(deadline - time.monotonic())):
                return found
        raise AssertionError(f"no {name} within {patience_s:g} s")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    yield found
    found.door.close()


def setting(name: str) -> list[str]:
    """Every value that the unit gives to a key."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines())
    return [value for key, _, value in lines if key == name]


def start_unit(rig: Rig, manager: Manager) -> subprocess.Popen[bytes]:
    """What the unit executes, with its own state directory in place of the system's."""
    (command,) = setting("ExecStart")
    assert any("SOTAD_DIR=%S/sotad" in line for line in setting("Environment"))
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {**os.environ, **manager.environment, "SOTAD_DIR": str(rig.paths.root), "PATH": path}
    with (rig.home / "daemon.err").open("ab") as errors:
        rig.process = subprocess.Popen(shlex.split(command), stdout=errors, stderr=errors, env=env)
    return rig.process


def a_blocked_campaign(rig: Rig) -> int:
    """A ledger with a campaign that waits for a person; return its last event."""
    rig.start()
    rig.submit(frameworks__fork__checkout=str(rig.home / "nowhere"))
    rig.seen("lease.released")
    rig.kill()
    return rig.events()[-1].seq


def test_ready_after_the_replay_fed_while_it_works_stopping_at_sigterm(rig: Rig, manager: Manager) -> None:
    """READY comes with the replayed ledger, WATCHDOG again and again, STOPPING before the end, which is exit 0."""
    last = a_blocked_campaign(rig)
    process = start_unit(rig, manager)
    ready = manager.next()
    assert ready["READY"] == "1"
    assert f"ledger at {last + 1}" in ready["STATUS"]
    assert rig.client.get("/v1/status")["daemon"]["pid"] == process.pid
    assert [manager.until("WATCHDOG", WATCHDOG_S)["WATCHDOG"] for _ in range(3)] == ["1"] * 3
    process.send_signal(signal.SIGTERM)
    assert manager.until("STOPPING")["STOPPING"] == "1"
    assert process.wait(30) == 0
    assert manager.next(0.2) == {}


@pytest.mark.parametrize("log", ["kept", "gone"])
def test_a_ledger_that_cannot_be_replayed_is_never_ready(rig: Rig, manager: Manager, log: str) -> None:
    """The manager sees a failed start, and no READY; also where the killed daemon left its log beside the file."""
    a_blocked_campaign(rig)
    rig.paths.ledger.write_bytes(b"not a ledger at all\n" * 500)
    if log == "gone":
        for path in rig.paths.root.glob("ledger.db-*"):
            path.unlink()
    assert start_unit(rig, manager).wait(30) in ({1, 2} if log == "kept" else {2})
    assert (rig.home / "daemon.err").read_text().splitlines()[-1].startswith(f"sotad: {rig.paths.ledger}: ")
    assert manager.next(0.2) == {}


@pytest.mark.parametrize("stuck", ["driver", pytest.param("loop", marks=pytest.mark.slow)])
def test_a_stuck_daemon_is_not_fed(rig: Rig, manager: Manager, stuck: str) -> None:
    """The campaign loop waits for ever, or blocks everything: systemd hears nothing more and will kill it."""
    a_blocked_campaign(rig)
    stalled, wedged_after = 2.0, 1.5
    rig.launch("--wedge", stuck, "--wedge-after", str(wedged_after), "--stalled", str(stalled), **manager.environment)
    assert "READY" in manager.next()
    ready, fed = time.monotonic(), []
    while message := manager.next(stalled + WATCHDOG_S):
        if "WATCHDOG" in message:
            fed.append(time.monotonic() - ready)
    assert fed
    assert fed[-1] < wedged_after + stalled + WATCHDOG_S
    assert rig.process is not None
    assert rig.process.poll() is None


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    """systemd-analyze finds no fault; and what the daemon relies on is set."""
    assert setting("Type") == ["notify"]
    assert setting("KillMode") == ["process"]
    assert setting("PrivateDevices") == setting("PrivateTmp") == ["no"]
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    shutil.copy(UNIT, tmp_path)
    found = subprocess.run([analyze, "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
