"""What can be wrong with an ssh host: each is one clear message that says what, where, and what to do next."""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ssh_rig import NO_SSHD, SSHD, USER, Server, new_key, serving

from sotad.cli.doctor_hosts import examined, place
from sotad.config.hosts import HostConfig
from sotad.hosts import HostError, HostUnreachable, RunSpec, allowed_environment
from sotad.hosts.base import clock_problem
from sotad.hosts.ssh import SshHost, SshTarget

pytestmark = pytest.mark.skipif(SSHD is None, reason=NO_SSHD)

HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(Server(tmp_path_factory.mktemp("sshd"))) as server:
        yield server


def command(line: str, cwd: str = "/") -> RunSpec:
    return RunSpec(argv=("sh", "-c", line), cwd=cwd, env=allowed_environment(), timeout_s=60, grace_s=0.5)


async def complaint(about: Awaitable[Any], kind: type[HostError] = HostError) -> str:
    """The one line that it ends with."""
    with pytest.raises(HostError) as caught:
        await about
    text = str(caught.value)
    assert type(caught.value) is kind and "\n" not in text and "Traceback" not in text
    return text


async def refusal(target: SshTarget, kind: type[HostError] = HostError) -> str:
    host = SshHost(target)
    try:
        return await complaint(host.status("c/x"), kind)
    finally:
        await host.close()


async def test_a_wrong_host_key_is_refused(server: Server, tmp_path: Path) -> None:
    """Another key than the known one: nothing is sent, both fingerprints are shown."""
    other = new_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(server.known_hosts.read_text().split(" ")[0] + " " + other.export_public_key().decode())
    said = await refusal(server.target(tmp_path / "root", known_hosts=known))
    assert said.startswith(f"wrong host key: {server.address}") and str(known) in said and "ssh-keygen -R" in said
    assert server.host_key.get_fingerprint() in said and other.get_fingerprint() in said
    assert not (tmp_path / "root").exists()


async def test_an_unknown_host_key_is_refused(server: Server, tmp_path: Path) -> None:
    """No key known for the host: nothing is sent, and nothing is learned by itself."""
    known = tmp_path / "known_hosts"
    known.touch()
    said = await refusal(server.target(tmp_path / "root", known_hosts=known))
    assert said.startswith(f"unknown host key: {server.address}") and str(known) in said
    assert server.host_key.get_fingerprint() in said and f"ssh-keyscan -p {server.port}" in said
    assert known.read_text() == "" and not (tmp_path / "root").exists()


@pytest.mark.parametrize("wish", ["StrictHostKeyChecking no", "UserKnownHostsFile none"])
async def test_host_keys_are_checked_whatever_the_configuration_wishes(
    server: Server, tmp_path: Path, wish: str
) -> None:
    """Neither setting of ssh_config lets an unknown host pass."""
    config = tmp_path / "config"
    known = "" if "KnownHosts" in wish else f"UserKnownHostsFile {tmp_path}/known_hosts\n"
    config.write_text(f"Host *\n{wish}\n{known}")
    said = await refusal(server.target(tmp_path / "root", known_hosts=None, config=(config,)))
    assert "unknown host key" in said or "host keys are always checked" in said


async def test_a_wrong_user_is_named(server: Server, tmp_path: Path) -> None:
    """The message names the user, the host and where to correct it."""
    said = await refusal(server.target(tmp_path / "root", user="nobody-of-that-name"))
    assert f"{server.address}:{server.port}" in said and "refuses user nobody-of-that-name" in said
    assert "correct User or IdentityFile" in said


async def test_a_refused_key_is_named(server: Server, tmp_path: Path) -> None:
    """A key that authorized_keys does not hold; the agent's are counted, too."""
    new_key(tmp_path / "stranger")
    said = await refusal(server.target(tmp_path / "root", identity_file=tmp_path / "stranger"))
    assert f"refuses user {USER}" in said and "1 key file" in said and "authorized_keys" in said


async def test_a_missing_key_file_is_named(server: Server, tmp_path: Path) -> None:
    """The key file that was asked for is not there."""
    said = await refusal(server.target(tmp_path / "root", identity_file=tmp_path / "gone"))
    assert str(tmp_path / "gone") in said and "correct that file" in said


async def test_a_key_with_a_passphrase_belongs_into_the_agent(server: Server, tmp_path: Path) -> None:
    """Nobody is there to type it."""
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret words", "-f", str(tmp_path / "locked")]
    await asyncio.to_thread(subprocess.run, made, check=True)
    said = await refusal(server.target(tmp_path / "root", identity_file=tmp_path / "locked"))
    assert "load that key into the ssh agent" in said


async def test_a_broken_configuration_file_is_named(server: Server, tmp_path: Path) -> None:
    """File and line of ~/.ssh/config that cannot be understood."""
    config = tmp_path / "config"
    config.write_text("Host *\n  Port many\n")
    said = await refusal(server.target(tmp_path / "root", config=(config,), port=None))
    assert f"{config} line 2" in said


async def test_no_python_there(server: Server, tmp_path: Path) -> None:
    """The interpreter is not installed on the host."""
    said = await refusal(server.target(tmp_path / "root", python="/opt/none/bin/python3"))
    assert "has no Python at /opt/none/bin/python3" in said and "install Python 3.8 or later" in said


async def test_a_python_that_is_too_old(server: Server, tmp_path: Path) -> None:
    """Python 2 or 3.7 is not what is needed: the message says which it is."""
    places = (Path.home().glob(f".pyenv/versions/{version}.*/bin/python") for version in ("2.7", "3.6", "3.7"))
    old = [python for place in places for python in place]
    if not old:
        pytest.skip("no Python older than 3.8 on this machine")
    for python in old:
        said = await refusal(server.target(tmp_path / "root", python=str(python)))
        assert str(python) in said and "3.8 or later" in said


OLD_PYTHONS = [*Path.home().glob(".pyenv/versions/3.8.*/bin/python"), shutil.which("python3.8")]


@pytest.mark.skipif(not any(OLD_PYTHONS), reason="no Python 3.8 on this machine")
async def test_python_3_8_is_enough(server: Server, tmp_path: Path) -> None:
    """The oldest Python that is promised answers every kind of request."""
    python = str(next(filter(None, OLD_PYTHONS)))
    host = SshHost(server.target(tmp_path / "root", python=python))
    assert (await host.probe())["python"].startswith("3.8.")
    await host.put("c/x", "in", b"some input")
    await host.start("c/x", command("cat in; exit 3", cwd=host.path("c/x")))
    assert (await host.wait("c/x", 60)).exit_code == 3
    assert await host.read("c/x", "stdout.log") == b"some input"
    assert await host.holds(sha256(b"data").hexdigest()) is False
    assert Path(await host.place("f", b"data")).read_bytes() == b"data"
    assert await host.list_runs() == ["c/x"] and await host.processes("c/x") == []
    assert (await host.stop("c/x")).exit_code == 3
    assert await host.free_port() > 0 and (await host.offset_ns())[1] > 0 and await host.environment()
    await host.close()


async def test_something_else_than_a_python(server: Server, tmp_path: Path) -> None:
    """What answers is not Python: what it said is shown."""
    said = await refusal(server.target(tmp_path / "root", python="echo"))
    assert "echo on 127.0.0.1 does not work" in said and "-I -S -" in said


async def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    """A host that does not answer is unreachable, not a failure of what runs there."""
    gone = Server(tmp_path / "gone")
    said = await refusal(gone.target(tmp_path / "root", patience_s=0.5), HostUnreachable)
    assert f"{gone.address}:{gone.port}" in said and "what runs there goes on" in said and "Connection refused" in said


async def test_forwarding_that_the_server_forbids(tmp_path: Path) -> None:
    """AllowTcpForwarding no: said at once, not at the first request."""
    with serving(Server(tmp_path / "sshd", AllowTcpForwarding="no")) as server:
        host = SshHost(server.target(tmp_path / "root"))
        said = await complaint(host.forward(8000))
        await host.close()
    assert "does not forward to its port 8000" in said and "AllowTcpForwarding" in said


async def test_a_login_shell_that_talks(tmp_path: Path) -> None:
    """What a profile prints does not disturb the answers."""
    with serving(Server(tmp_path / "sshd", ForceCommand='echo Welcome!; eval "$SSH_ORIGINAL_COMMAND"')) as server:
        host = SshHost(server.target(tmp_path / "root"))
        await host.put("c/x", "in", b"\x01\x02")
        assert await host.read("c/x", "in") == b"\x01\x02"
        await host.close()


# ---------------------------------------------------------------------------------- full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Not a byte is free any more."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


async def test_a_disk_full_from_the_beginning(server: Server, small_disk: Path) -> None:
    """Not even the host program can be placed."""
    fill(small_disk)
    said = await refusal(server.target(small_disk / "root"))
    assert "cannot place the host program on 127.0.0.1" in said
    assert "No space left on device" in said and str(small_disk) in said and "free some space there" in said


async def test_a_disk_that_becomes_full(server: Server, small_disk: Path) -> None:
    """Starting, putting and placing say so, begin nothing, and work again once there is space."""
    host = SshHost(server.target(small_disk / "root"))
    ran = small_disk.parent / "ran"
    spec = command(f"echo ran >> {ran}")
    assert (await host.status("c/x")).phase == "absent"
    filler = fill(small_disk)
    attempts = (
        lambda: host.start("c/x", spec),
        lambda: host.put("c/y", "in", bytes(9999)),
        lambda: host.place("f", bytes(9999)),
    )
    for attempt in attempts:
        said = await complaint(attempt())
        assert said.startswith("127.0.0.1: cannot ") and "No space left on device" in said
        assert str(small_disk) in said and "free some space there" in said
    filler.unlink()
    await host.start("c/x", spec)
    assert (await host.wait("c/x", 30)).succeeded and ran.read_text() == "ran\n"
    await host.close()


# -------------------------------------------------------------------------------------- clock


def python_with_another_clock(folder: Path) -> Path:
    """Stands in for a host whose clock is an hour ahead: the host program's own `time.time_ns` is."""
    fake = folder / "python"
    code = (
        "import runpy, sys, time; true = time.time_ns; "
        f"time.time_ns = lambda: true() + {HOUR_NS}; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    fake.write_text(
        f'#!/bin/sh\ncase "$3" in\n-) exec {sys.executable} "$@";;\n'
        f'*) shift 2; exec {sys.executable} -I -S -c "{code}" "$@";;\nesac\n'
    )
    fake.chmod(0o755)
    return fake


async def test_a_clock_that_is_an_hour_off(server: Server, tmp_path: Path) -> None:
    """The offset is measured to far better than the second, and said in one line."""
    host = SshHost(server.target(tmp_path / "root", python=str(python_with_another_clock(tmp_path))))
    offset, uncertainty = await host.offset_ns()
    assert abs(offset - HOUR_NS) <= uncertainty + 50_000_000 and 0 < uncertainty < 10**9
    said = clock_problem(host.name, offset, uncertainty)
    assert said.startswith("the clock of 127.0.0.1 is 3600.0 s ahead of ours") and "NTP" in said
    assert clock_problem(host.name, -offset, uncertainty).startswith("the clock of 127.0.0.1 is 3600.0 s behind ours")
    assert clock_problem(host.name, 40_000_000, 1_000_000) == ""
    await host.close()


# ------------------------------------------------------------------- the way there, and secrets


async def test_a_name_of_the_configuration_file_is_enough(server: Server, tmp_path: Path) -> None:
    """HostName, Port, User, IdentityFile, UserKnownHostsFile come from ssh_config."""
    config = tmp_path / "config"
    config.write_text(described("gpu", server))
    host = SshHost(SshTarget(host="gpu", root=str(tmp_path / "root"), python=sys.executable, config=(config,)))
    assert (await host.probe())["cores"] >= 1 and host.name == "gpu"
    await host.close()


def described(name: str, server: Server, *more: str) -> str:
    lines = (
        f"Host {name}",
        f"HostName {server.address}",
        f"Port {server.port}",
        f"User {USER}",
        f"IdentityFile {server.folder}/user_key",
        f"UserKnownHostsFile {server.known_hosts}",
        *more,
    )
    return "\n  ".join(lines) + "\n"


async def test_through_jump_hosts_each_with_its_own_key(server: Server, tmp_path: Path) -> None:
    """ProxyJump over two hosts works, and the host key of each hop is checked."""
    with serving(Server(tmp_path / "first")) as first, serving(Server(tmp_path / "second")) as second:
        config = tmp_path / "config"
        config.write_text(
            described("gpu", server, "ProxyJump first,second") + described("first", first) + described("second", second)
        )
        target = SshTarget(host="gpu", root=str(tmp_path / "root"), python=sys.executable, config=(config,))
        host = SshHost(target)
        await host.start("c/x", command("echo here"))
        assert (await host.wait("c/x", 30)).succeeded
        assert len(connections(first)) == len(connections(second)) == 1
        await host.close()
        second.know(new_key(tmp_path / "other"))
        assert (await refusal(target)).startswith(f"wrong host key: second ({second.address}:{second.port})")


def connections(server: Server) -> list[str]:
    log = (server.folder / "sshd.log").read_text()
    return re.findall(r"Accepted publickey for", log)


async def test_jump_hosts_in_a_circle(server: Server, tmp_path: Path) -> None:
    """A configuration that leads nowhere is refused by name."""
    config = tmp_path / "config"
    config.write_text(described("a", server, "ProxyJump b") + described("b", server, "ProxyJump a"))
    said = await refusal(SshTarget(host="a", root=str(tmp_path / "root"), config=(config,)))
    assert "a -> b -> a" in said


async def test_the_agent_is_asked_for_keys(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that only the ssh agent holds opens the door."""
    socket = tmp_path / "agent"
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(socket), stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        await agent.stdout.readline()  # it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        monkeypatch.setenv("HOME", str(tmp_path))  # no key files of ours
        await asyncio.to_thread(subprocess.run, ["ssh-add", "-q", f"{server.folder}/user_key"], check=True)
        host = SshHost(server.target(tmp_path / "root", identity_file=None))
        assert (await host.status("c/x")).phase == "absent"
        await host.close()
    finally:
        agent.terminate()
        await agent.wait()


async def test_secrets_touch_no_disk_and_no_command_line(server: Server, tmp_path: Path) -> None:
    """The value reaches the command; no file below the root, no argument of a process and no log of sshd holds it."""
    secret = "k-0123456789-abcdef"
    host = SshHost(server.target(tmp_path / "root"), secrets_source={"API_KEY": secret})
    line = 'printf %s "$API_KEY" | sha256sum; cat /proc/*/cmdline > /dev/shm/all-$$ 2>/dev/null; '
    line += 'grep -c "$(printf %s k-0123456789)-abcdef" /dev/shm/all-$$; rm /dev/shm/all-$$; true'
    spec = RunSpec(argv=("sh", "-c", line), cwd="/", env=allowed_environment(), secrets=("API_KEY",), timeout_s=60)
    await host.start("c/x", spec)
    assert (await host.wait("c/x", 30)).succeeded
    out = (await host.read("c/x", "stdout.log")).decode().splitlines()
    assert out[0].startswith(sha256(secret.encode()).hexdigest()) and out[1] == "0"
    files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert files and not [path for path in (*files, server.folder / "sshd.log") if secret.encode() in path.read_bytes()]
    await host.close()


async def test_more_at_once_than_the_server_has_sessions(server: Server, tmp_path: Path) -> None:
    """Many waits and many questions share ten sessions, and none of them starves."""
    host = SshHost(server.target(tmp_path / "root"))
    runs = [f"c/{number}" for number in range(6)]
    await asyncio.gather(*(host.start(run, command(f"until [ -e {tmp_path}/go ]; do sleep 0.1; done")) for run in runs))
    waits = [asyncio.create_task(host.wait(run, 120)) for run in runs]
    assert {state.phase for state in await asyncio.gather(*(host.status(run) for run in runs))} == {"running"}
    (tmp_path / "go").touch()
    assert all(state.succeeded for state in await asyncio.gather(*waits))
    await host.close()


async def test_a_removed_program_is_placed_again(server: Server, tmp_path: Path) -> None:
    """Somebody who tidied up on the host costs one more connection."""
    host = SshHost(server.target(tmp_path / "root"))
    await host.put("c/x", "in", b"1")
    for file in (tmp_path / "root" / "files").rglob("host.pyz"):
        file.unlink()
    assert await host.read("c/x", "in") == b"1"
    await host.close()


@pytest.mark.parametrize(
    "wrong",
    [{"host": "-oProxyCommand=x"}, {"host": ""}, {"root": "here"}, {"root": "/"}, {"root": "/a/../b"}, {"port": 0}],
)
def test_targets_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    """A target is checked where it is written."""
    with pytest.raises(ValueError, match="give"):
        SshTarget(**{"host": "gpu", "root": "/srv/sotad", **wrong})


async def test_doctor_tells_the_same(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sotactl doctor --ssh HOST:/ROOT` finds a good host good, and passes on what is wrong with another."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(described("gpu", server))
    monkeypatch.setenv("HOME", str(tmp_path))
    gpu = HostConfig(kind="ssh", address="gpu", root=str(tmp_path / "root"))
    state, found, _ = await asyncio.to_thread(examined, "gpu", gpu)
    assert state == "ok" and "Python 3" in found and "cores" in found and "clock" in found
    server_key = server.known_hosts.read_text()
    try:
        server.known_hosts.write_text("")
        with pytest.raises(HostError, match="unknown host key"):
            await asyncio.to_thread(examined, "gpu", gpu)
    finally:
        server.known_hosts.write_text(server_key)
    assert place("gpu:/srv/sotad") == ("gpu", "/srv/sotad")
    for wrong in ("gpu", "gpu:srv", ":/srv", "gpu:/"):
        with pytest.raises(argparse.ArgumentTypeError, match="HOST:/ROOT"):
            place(wrong)
