"""Runs through the host protocol: on this machine, and the same over ssh."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ssh_rig import NO_SSHD, SSHD, Server, serving

from sotad import shim
from sotad.hosts import Host, HostError, LocalHost, RunSpec, allowed_environment, free_port, gpus
from sotad.hosts.base import check_run_id
from sotad.hosts.gpus_reading import Gpu, Reading
from sotad.hosts.ssh import SshHost

STARTER = """
import asyncio, os, signal, sys
from pathlib import Path
from sotad.hosts import LocalHost, RunSpec, allowed_environment

async def main():
    host = LocalHost(Path(sys.argv[1]))
    spec = RunSpec(argv=("sh", "-c", sys.argv[3]), cwd="/", env=allowed_environment(), timeout_s=30)
    print("begin", flush=True)
    await host.start(sys.argv[2], spec)
    os.killpg(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def command(line: str, **options: Any) -> RunSpec:
    fields = {
        "argv": ("sh", "-c", line),
        "cwd": "/",
        "env": allowed_environment(),
        "timeout_s": 30,
        "grace_s": 0.5,
    }
    return RunSpec(**{**fields, **options})


def until(file: Path) -> str:
    """A shell command that lasts until `file` exists."""
    return f"until [ -e {file} ]; do sleep 0.05; done"


async def fetched(url: str) -> str:
    """The body at `url`, as soon as somebody listens there."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def starter(root: Path, run_id: str, line: str) -> subprocess.Popen[str]:
    """A process that starts the run and then kills itself and its group with SIGKILL."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(root), run_id, line],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if SSHD is None:
        pytest.skip(NO_SSHD)
    with serving(Server(tmp_path_factory.mktemp("sshd"))) as server:
        yield server


@pytest.fixture(params=["local", "ssh"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    """A host whose root is `tmp_path/runs`; over ssh it happens to be this machine."""
    secrets = {"API_KEY": "k-1234567890"}
    if request.param == "ssh":
        target = request.getfixturevalue("server").target(tmp_path / "runs")
        found: Host = SshHost(target, secrets_source=secrets)
    else:
        found = LocalHost(tmp_path / "runs", secrets_source=secrets)
    yield found
    await found.close()


async def test_it_is_a_host(host: Host) -> None:
    """The local host knows what machine it is."""
    facts = await host.probe()
    assert facts["cores"] >= 1 and facts["memory_bytes"] > 2**20
    assert facts["boot_id"] == shim.boot_id()


async def test_gpus_are_known_by_what_does_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume compares them: load and temperature must not look like another machine."""
    seen = iter(Gpu(index=0, uuid="GPU-1", name="H", memory_total_mib=9, utilization_pct=busy) for busy in (0, 97))
    monkeypatch.setattr(gpus, "look", lambda: Reading(time_ns=0, source="nvml", gpus=(next(seen),)))
    before, after = [(await LocalHost(tmp_path).probe())["gpus"] for _ in range(2)]
    assert before == after == [{"index": 0, "uuid": "GPU-1", "name": "H", "memory_total_mib": 9}]


async def test_run_from_absent_to_exited(host: Host, tmp_path: Path) -> None:
    """A run goes absent, running, exited, and its output can be read in pieces."""
    assert (await host.status("c/one")).phase == "absent"
    assert (await host.start("c/one", command(f"printf 0123456789; {until(tmp_path / 'go')}"))).phase == "running"
    (tmp_path / "go").touch()
    state = await host.wait("c/one", 30)
    assert state.succeeded and state.over
    assert await host.read("c/one", "stdout.log", offset=3, limit=4) == b"3456"
    assert await host.read("c/one", "stdout.log", offset=10) == b""


async def test_processes_of_a_run_are_told_by_its_token_too(host: Host) -> None:
    """What somebody else's daemon started for it, as for a container, is below that daemon and still the run's."""
    await host.start("c/x", command("sleep 30"))
    token = json.loads(await host.read("c/x", "pid.json"))["token"]
    elsewhere = await asyncio.create_subprocess_exec("sleep", "30", env={"SOTAD_RUN": token})
    try:
        assert elsewhere.pid in await host.processes("c/x")
    finally:
        elsewhere.kill()
        await elsewhere.wait()
    await host.stop("c/x")


async def test_run_outlives_a_daemon_killed_with_sigkill(host: Host, tmp_path: Path) -> None:
    """A new daemon finds the run of a killed one running, and then its exit code."""
    dead = starter(tmp_path / "runs", "c/long", f"{until(tmp_path / 'go')}; exit 9")
    with dead:
        assert dead.wait(timeout=30) == -signal.SIGKILL
    assert (await host.status("c/long")).phase == "running"
    (tmp_path / "go").touch()
    state = await host.wait("c/long", 30)
    assert (state.phase, state.reason, state.exit_code) == ("exited", "exited", 9)


async def test_deadline_holds_while_the_daemon_is_dead(tmp_path: Path) -> None:
    """The run of a killed daemon is ended at its own deadline, not when somebody looks."""
    spec = "import sys; exec(sys.argv.pop(1).replace('timeout_s=30', 'timeout_s=0.5'))"
    argv = [sys.executable, "-c", spec, STARTER, str(tmp_path), "c/long", "sleep 300"]
    await asyncio.to_thread(subprocess.run, argv, start_new_session=True, timeout=30)
    await asyncio.sleep(1.5)
    state = await LocalHost(tmp_path).status("c/long")
    assert state.reason == "timeout" and state.ended_ns is not None and state.started_ns is not None
    assert 0.5e9 <= state.ended_ns - state.started_ns < 1.2e9


async def test_starter_killed_at_any_moment_leads_to_exactly_one_execution(tmp_path: Path) -> None:
    """Killed before, while or after it spawned: starting again executes the command once in total."""
    seen = set()
    for number in range(12):
        root, ran = tmp_path / f"runs{number}", tmp_path / f"ran{number}"
        line = f"echo ran >> {ran}; sleep 0.1"
        process = starter(root, "c/once", line)
        assert process.stdout is not None and process.stdout.readline() == "begin\n"
        await asyncio.sleep(random.Random(number).uniform(0, 0.08))
        process.kill()
        process.communicate()
        host = LocalHost(root)
        seen.add((await host.status("c/once")).phase)
        await host.start("c/once", RunSpec(argv=("sh", "-c", line), cwd="/", env=allowed_environment(), timeout_s=30))
        assert (await host.wait("c/once", 10)).succeeded
        assert ran.read_text() == "ran\n"
    assert "absent" in seen, "no starter was killed early enough to prove anything"


async def test_directory_made_but_nothing_spawned(host: Host, tmp_path: Path) -> None:
    """A daemon that died between making the directory and spawning left a run that can be started."""
    spec = command("echo here")
    directory = tmp_path / "runs" / "c" / "half"
    directory.mkdir(parents=True)
    shim.write_json(directory / "spec.json", spec.to_json())
    assert (await host.status("c/half")).phase == "absent"
    await host.start("c/half", spec)
    assert (await host.wait("c/half", 10)).succeeded


async def test_concurrent_starts_are_one_execution(host: Host, tmp_path: Path) -> None:
    """Starting is idempotent, also at the same moment."""
    spec = command(f"echo ran >> {tmp_path}/ran; sleep 0.1")
    await asyncio.gather(*(host.start("c/x", spec) for _ in range(5)))
    await host.wait("c/x", 10)
    assert (await host.start("c/x", spec)).phase == "exited"
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_same_id_for_another_command_is_refused(host: Host) -> None:
    """An id means one command for ever."""
    await host.start("c/x", command("true"))
    with pytest.raises(HostError, match="another command"):
        await host.start("c/x", command("false"))


async def test_stop_is_final_and_repeatable(host: Host) -> None:
    """Stopping twice tells the same end, and stopping what never began does nothing."""
    await host.start("c/x", command("sleep 300"))
    first = await host.stop("c/x")
    assert (first.reason, first.signal) == ("stopped", signal.SIGTERM)
    assert await host.stop("c/x") == first
    assert (await host.stop("c/never")).phase == "absent"


async def test_waiting_gives_up_without_disturbing_the_run(host: Host) -> None:
    """A wait that times out reports the run as it is."""
    await host.start("c/x", command("sleep 300"))
    assert (await host.wait("c/x", 0.2)).phase == "running"
    waiting = asyncio.create_task(host.wait("c/x", 60))
    await asyncio.sleep(0.1)
    waiting.cancel()
    assert (await host.status("c/x")).phase == "running"
    await host.stop("c/x")


async def test_files_are_placed_once_by_their_digest(host: Host, tmp_path: Path) -> None:
    """The same content lies in one place, under each name that it was given; it is no run."""
    data = bytes(range(256)) * 1000
    digest = sha256(data).hexdigest()
    assert not await host.holds(digest)
    first = Path(await host.place("weights.bin", data))
    assert first == tmp_path / "runs" / "files" / digest / "weights.bin" and first.read_bytes() == data
    before = first.stat()
    assert await host.place("weights.bin", data) == str(first) and first.stat() == before
    assert Path(await host.place("again.bin", data)).read_bytes() == data
    assert await host.holds(digest) and await host.list_runs() == []
    for name in ("../x", "a/b", ".hidden", ""):
        with pytest.raises(HostError, match="no plain file name"):
            await host.place(name, data)


async def test_a_spoilt_file_is_placed_anew(host: Host) -> None:
    """What lies there is believed only while it is what its digest says."""
    path = Path(await host.place("x", b"right"))
    path.write_bytes(b"wrong")
    assert not await host.holds(sha256(b"right").hexdigest())
    assert Path(await host.place("x", b"right")).read_bytes() == b"right"


async def test_its_loopback_is_reached_at_the_same_address_for_ever(host: Host, tmp_path: Path) -> None:
    """A server that listens on the host's loopback answers at the forwarded address."""
    port = await host.free_port()
    url = await host.forward(port)
    (tmp_path / "page").write_text("here")
    argv = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    await host.start("c/web", RunSpec(argv=argv, cwd=str(tmp_path), env=allowed_environment(), timeout_s=60))
    assert await fetched(f"{url}/page") == "here"
    assert await host.forward(port) == url
    await host.stop("c/web")


async def test_its_clock_and_its_variables_are_its_own(host: Host) -> None:
    """The clock's offset comes with its uncertainty, variables as the host's user has them."""
    offset, uncertainty = await host.offset_ns()
    assert abs(offset) <= uncertainty + 20_000_000  # the same clock, read by two busy processes
    assert (await host.environment())["HOME"].startswith("/")


async def test_a_run_from_before_a_boot_is_lost_and_says_so(host: Host, tmp_path: Path) -> None:
    """The host was booted again (its boot id is another than that of pid.json): the run never ends, by name."""
    await host.start("c/x", command("sleep 300"))
    claim = tmp_path / "runs" / "c" / "x" / "pid.json"
    record = shim.read_json(claim)
    assert record is not None
    shim.write_json(claim, {**record, "boot_id": "another"})
    state = await host.wait("c/x", 5)
    assert state.phase == "lost" and state.message is not None
    assert "was booted again" in state.message and "start another run" in state.message
    shim.write_json(claim, record)
    assert (await host.stop("c/x")).reason == "stopped"


async def test_any_bytes_and_big_output_are_kept_as_they_are(host: Host) -> None:
    """Output is bytes: no encoding is assumed and nothing is lost."""
    code = "import os; [os.write(1, bytes(range(256)) * 4096) for _ in range(32)]"
    spec = RunSpec(argv=(sys.executable, "-c", code), cwd="/", env=allowed_environment(), timeout_s=30)
    await host.start("c/big", spec)
    assert (await host.wait("c/big", 20)).succeeded
    assert await host.read("c/big", "stdout.log", limit=2**30) == bytes(range(256)) * 4096 * 32


async def test_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    """A root below a plain file is refused by name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"cannot prepare run c/x.*Not a directory"):
        await LocalHost(tmp_path / "file" / "runs").start("c/x", command("true"))


async def test_missing_secret_is_named_before_anything_happens(host: Host) -> None:
    """A secret that the daemon does not have stops the start, by its name."""
    with pytest.raises(HostError, match="HF_TOKEN"):
        await host.start("c/x", command("true", secrets=("HF_TOKEN",)))
    assert await host.list_runs() == []


async def test_secret_in_the_command_line_is_refused(host: Host, tmp_path: Path) -> None:
    """A secret's value in the arguments would be written to disk, so it is refused."""
    with pytest.raises(HostError, match="API_KEY") as refusal:
        await host.start("c/x", command("curl -H 'key: k-1234567890'", secrets=("API_KEY",)))
    assert "k-1234567890" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()


async def test_secret_is_passed_and_never_on_disk(host: Host, tmp_path: Path) -> None:
    """The command sees the value; no file below the root holds it."""
    await host.start("c/x", command('printf %s "$API_KEY" | sha256sum', secrets=("API_KEY",)))
    assert (await host.wait("c/x", 10)).succeeded
    assert (await host.read("c/x", "stdout.log")).split()[0].decode() == sha256(b"k-1234567890").hexdigest()
    files = [path for path in (tmp_path / "runs" / "c" / "x").iterdir() if path.is_file()]
    assert files and not [path for path in files if b"k-1234567890" in path.read_bytes()]


async def test_files_are_put_before_the_start_only(host: Host) -> None:
    """Input is there when the command starts, and cannot change under it."""
    await host.put("c/x", "in.txt", b"hello")
    spec = command(f"cat {host.path('c/x')}/in.txt")
    await host.start("c/x", spec)
    await host.wait("c/x", 10)
    assert await host.read("c/x", "stdout.log") == b"hello"
    await host.put("c/x", "in.txt", b"hello")
    with pytest.raises(HostError, match="started already"):
        await host.put("c/x", "in.txt", b"other")


@pytest.mark.parametrize("name", ["exit.json", "lock", "../x", "a/b", ".hidden", ""])
async def test_reserved_and_leading_out_names_are_refused(host: Host, name: str) -> None:
    """Nobody can put an exit into a run, or a file outside it."""
    with pytest.raises(HostError, match="cannot be put"):
        await host.put("c/x", name, b"")


async def test_reading_cannot_leave_the_run(host: Host) -> None:
    """Neither dots nor a symbolic link that the command made lead out of the run's directory."""
    await host.start("c/x", command(f"ln -s /etc/passwd {host.path('c/x')}/link"))
    await host.wait("c/x", 10)
    for name in ("link", "../../secret", "/etc/passwd", "nothing"):
        with pytest.raises(HostError, match="has no file"):
            await host.read("c/x", name)


async def test_runs_are_listed_by_prefix_and_do_not_nest(host: Host) -> None:
    """Runs are found on disk alone, and one cannot hide inside another."""
    for run_id in ("b/2", "a/1/server", "a/2"):
        await host.start(run_id, command("true"))
    assert await host.list_runs() == ["a/1/server", "a/2", "b/2"]
    assert await host.list_runs("a/") == ["a/1/server", "a/2"]
    with pytest.raises(HostError, match="inside run a/2"):
        await host.start("a/2/deeper", command("true"))


@pytest.mark.parametrize(
    "run_id", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.", ".a", "a b", "a\n", "é", "a" * 201]
)
def test_ids_that_could_lead_elsewhere_are_refused(run_id: str) -> None:
    """An id is a plain relative path."""
    with pytest.raises(HostError, match="no run id"):
        check_run_id(run_id)


@given(st.text(max_size=30))
def test_accepted_ids_stay_below_the_root(run_id: str) -> None:
    """Whatever is accepted names a place strictly below the root."""
    try:
        check_run_id(run_id)
    except HostError:
        return
    place = os.path.normpath(f"/root/{run_id}")
    assert place == f"/root/{run_id}" and place.startswith("/root/")


@pytest.mark.parametrize(
    "wrong",
    [
        {"argv": ()},
        {"cwd": "here"},
        {"timeout_s": 0},
        {"timeout_s": float("inf")},
        {"grace_s": -1},
        {"secrets": ("PATH",), "env": {"PATH": "/bin"}},
    ],
)
def test_specs_that_no_host_can_carry_out_are_refused(wrong: dict[str, Any]) -> None:
    """A spec is checked where it is written, not where it runs."""
    with pytest.raises(ValueError):
        command("true", **wrong)


def test_environment_is_an_allow_list() -> None:
    """Only everyday variables and those asked for pass."""
    source = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "HF_HOME": "/hf"}
    assert allowed_environment("HF_HOME", source=source, SEED="1") == {
        "PATH": "/bin",
        "HF_HOME": "/hf",
        "SEED": "1",
    }


def test_free_port_can_be_bound() -> None:
    """The port is free right after it was given."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
