"""A whole campaign with the daemon on one machine and the servers on another, behind a real OpenSSH server.

The other machine is a network namespace of its own, so that its loopback cannot be reached from here, and a mount
namespace in which nothing of the daemon's is to be seen: checkouts, state directory, agents' desks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from rig.audit import audit
from rig.campaign import Rig, git
from ssh_rig import NO_SSHD, SSHD, USER, Server, Wire, serving, why_no_wire

from statemachine.state import Campaign

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(SSHD is None, reason=NO_SSHD),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare (Debian: util-linux)"),
]
LONG_S = 2400.0  # every request to the host starts a Python there, and this machine may be busy


@contextmanager
def laid() -> Iterator[Wire]:
    wire = Wire()
    wire.lay()
    try:
        yield wire
    finally:
        wire.remove()


def behind(wire: Wire, hidden: Path) -> tuple[str, ...]:
    """What a command is prefixed with to run on the other machine: there ``hidden`` is an empty folder."""
    hide = f'mount -t tmpfs none {hidden} && exec "$@"'
    return *wire.inside, "unshare", "--mount", "sh", "-c", hide, "sh"


def machine(folder: Path, wire: Wire, rig: Rig, **options: str) -> Server:
    return Server(folder / "sshd", wire.there, behind(wire, rig.home), **options)


def define(rig: Rig, server: Server, root: Path) -> None:
    """The daemon's file with the other machine as ``gpu1``; impatient, so that a cut need not last."""
    defined = {
        "kind": "ssh",
        "address": server.address,
        "port": server.port,
        "user": USER,
        "key": str(server.folder / "user_key"),
        "known_hosts": str(server.known_hosts),
        "config": "/dev/null",
        "root": str(root),
        "python": sys.executable,
        "keepalive_s": 1,
        "patience_s": 5,
    }
    rig.paths.root.mkdir(exist_ok=True)
    rig.paths.config.write_text(yaml.safe_dump({"hosts": {"gpu1": defined}}))
    rig.roots.append(root)


def count(c: Campaign, prefix: str) -> int:
    return sum(1 for name, launch in c.launches.items() if name.startswith(prefix) and launch.status == "stopped")


def test_the_same_campaign_on_another_machine(tmp_path: Path) -> None:
    """Verdict, commits and evidence as on one machine, though the daemon is killed once and the line is cut once."""
    if why := why_no_wire():
        pytest.skip(why)
    rig, root = Rig(tmp_path / "rig"), tmp_path / "there"
    home = tmp_path / "home"  # of the user there: what people have in their own .bashrc is not what is tested
    home.mkdir()
    with laid() as wire, serving(machine(tmp_path, wire, rig, SetEnv=f"HOME={home}")) as server:
        define(rig, server, root)
        try:
            rig.start()
            patient = {"budget__job_s": 300, "budget__ready_s": 120, "budget__wall_clock_s": 7200}
            rig.submit(hardware__host="gpu1", decision__first_look=6, **patient)  # runs of milliseconds are noisy
            rig.until(lambda: count(rig.c, "search/"), "a candidate is measured", LONG_S)
            rig.kill()
            rig.start()
            rig.until(lambda: count(rig.tended(), "aa/") > 1, "two launches of the A/A check", LONG_S)
            rig.until(lambda: running(rig), "something is being measured", LONG_S)
            wire.cut()
            rig.seen("campaign.blocked", LONG_S)
            wire.mend()
            rig.seen("campaign.resumed", LONG_S)
            assert rig.finished(LONG_S) == "success_ahead"
            assert rig.stop() == 0
        finally:
            wire.mend()
            rig.end()
        vanished(rig)
        left_clean(rig, root, wire)
        audit(rig)


def running(rig: Rig) -> bool:
    """Whether a load generator is at work there."""
    began, ended = rig.events("benchmark.started"), rig.events("benchmark.finished", "candidate.lost")
    return len(began) > len(ended)


def vanished(rig: Rig) -> None:
    """The cut was the host's doing: no candidate failed of it, and nothing was begun anew."""
    blocked = [event.payload for event in rig.events("campaign.blocked") if event.payload.get("host")]
    assert blocked and all(each["kind"] == "resources" and each["deadline_ns"] for each in blocked)
    assert not rig.events("candidate.failed", "candidate.lost", "job.lost", "job.timed_out")
    passed = rig.events("preflight.passed")[-1].payload["host"]
    assert passed["name"] == "gpu1" and abs(passed["clock_offset_ms"]) < 1000


def left_clean(rig: Rig, root: Path, wire: Wire) -> None:
    """No folder of the campaign's, no worktree, and no process but sshd is left on either machine."""
    assert not (root / "files" / "trees" / "small").exists()
    assert all("state" not in line for line in git(rig.target, "worktree", "list").splitlines())
    others = {pid: said for pid, said in wire.processes().items() if "sshd" not in said}
    assert not others, others
    champion = rig.events("patch.accepted")[-1].payload["commit"]
    assert git(rig.target, "rev-parse", f"refs/heads/{rig.c.branch}") == champion


def test_the_other_machine_is_another_one(tmp_path: Path) -> None:
    """What the campaign's test rests on: paths of here are not there, nor is its loopback ours."""
    if why := why_no_wire():
        pytest.skip(why)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "file").write_text("x")
    with laid() as wire:
        look = [*behind(wire, tmp_path / "ours"), "ls", "-A", str(tmp_path / "ours")]
        assert subprocess.run(look, capture_output=True, text=True, timeout=30, check=True).stdout == ""
        names = [*behind(wire, tmp_path / "ours"), "readlink", "/proc/self/ns/net", "/proc/self/ns/mnt"]
        there = subprocess.run(names, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        here = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("net", "mnt")]
        assert not set(there) & set(here)
