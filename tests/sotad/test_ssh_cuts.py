"""A line between daemon and host that is cut, for seconds and for longer: nothing is lost, repeated or left behind."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ssh_rig import NO_SSHD, SSHD, Server, Wire, serving, why_no_wire

from sotad.hosts import HostUnreachable, RunSpec, RunStatus, allowed_environment
from sotad.hosts.ssh import SshHost
from sotad.hosts.ssh_link import Connection
from sotad.hosts.ssh_program import program

pytestmark = pytest.mark.skipif(SSHD is None, reason=NO_SSHD)

IMPATIENT = {"keepalive_s": 0.5}  # a dead line is noticed after two seconds
SIGHTED = {"ClientAliveInterval": "2", "ClientAliveCountMax": "3"}  # sshd notices it, too


@pytest.fixture
def wire() -> Iterator[Wire]:
    reason = why_no_wire()
    if reason:
        pytest.skip(reason)
    wire = Wire()
    try:
        wire.lay()
        yield wire
    finally:
        wire.remove()


@pytest.fixture
def server(wire: Wire, tmp_path: Path) -> Iterator[Server]:
    with serving(Server(tmp_path / "sshd", wire.there, wire.inside, **SIGHTED)) as server:
        yield server
        wire.mend()


def command(line: str, **options: Any) -> RunSpec:
    fields = {"argv": ("sh", "-c", line), "cwd": "/", "env": allowed_environment(), "timeout_s": 300, "grace_s": 0.5}
    return RunSpec(**{**fields, **options})


async def only_sshd_is_left(wire: Wire) -> None:
    """Behind the wire nothing runs any more but the server itself, waiting for connections."""
    deadline = time.monotonic() + 60
    while len(left := wire.processes()) > 1:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.2)


WHOLE_S = 2.0  # the longest time between two cuts: the pages of `work` need three of them


@asynccontextmanager
async def cutting(wire: Wire, longest_s: float, seed: int) -> AsyncIterator[list[float]]:
    """The line is cut at random moments for random times meanwhile; the seconds of each cut."""
    cuts: list[float] = []
    chance = random.Random(seed)

    async def work() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.0, WHOLE_S))
            cuts.append(chance.uniform(0.1, longest_s))
            await asyncio.to_thread(wire.cut)
            await asyncio.sleep(cuts[-1])
            await asyncio.to_thread(wire.mend)

    task = asyncio.create_task(work())
    try:
        yield cuts
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wire.mend)


async def test_a_cut_of_seconds_is_not_noticed(wire: Wire, server: Server, tmp_path: Path) -> None:
    """Cut while a run is waited for, longer than the connection lives: the same end, begun once, nothing left."""
    host = SshHost(server.target(tmp_path / "root", **IMPATIENT))
    ran, go = tmp_path / "ran", tmp_path / "go"
    await host.start("c/x", command(f"echo ran >> {ran}; until [ -e {go} ]; do sleep 0.1; done; echo out; exit 7"))
    first = await host._link.get()
    waiting = asyncio.create_task(host.wait("c/x", 120))
    await asyncio.sleep(0.5)
    wire.cut()
    go.touch()
    await first.ssh.wait_closed()
    assert not waiting.done()
    wire.mend()
    state = await waiting
    assert (state.phase, state.reason, state.exit_code) == ("exited", "exited", 7)
    assert await host.read("c/x", "stdout.log") == b"out\n" and ran.read_text() == "ran\n"
    assert await host._link.get() is not first
    await host.close()
    await only_sshd_is_left(wire)


async def test_a_server_that_is_started_anew(wire: Wire, server: Server, tmp_path: Path) -> None:
    """sshd gone and back again, with all its connections: runs go on, calls wait."""
    host = SshHost(server.target(tmp_path / "root", **IMPATIENT))
    ran, go = tmp_path / "ran", tmp_path / "go"
    await host.start("c/x", command(f"echo ran >> {ran}; until [ -e {go} ]; do sleep 0.1; done"))
    server.stop()
    server.end_sessions(wire)
    asking = asyncio.create_task(host.status("c/x"))
    await asyncio.sleep(0.5)
    assert not asking.done()
    server.start()
    assert (await asking).phase == "running"
    go.touch()
    assert (await host.wait("c/x", 60)).succeeded and ran.read_text() == "ran\n"
    await host.close()


async def test_a_long_call_that_breaks_has_all_patience_left(wire: Wire, server: Server, tmp_path: Path) -> None:
    """Patience is about silence, not about how long a call has taken when its connection breaks."""
    host = SshHost(server.target(tmp_path / "root", patience_s=1.0))
    go = tmp_path / "go"
    await host.start("c/x", command(f"until [ -e {go} ]; do sleep 0.1; done"))
    first = await host._link.get()
    waiting = asyncio.create_task(host.wait("c/x", 120))
    await asyncio.sleep(3)
    server.end_sessions(wire)
    await first.ssh.wait_closed()
    go.touch()
    assert (await waiting).succeeded
    await host.close()


@pytest.mark.slow
async def test_out_of_patience_and_attached_again(wire: Wire, server: Server, tmp_path: Path) -> None:
    """A cut that outlasts patience is HostUnreachable; the run goes on, and another daemon takes it over."""
    target = server.target(tmp_path / "root", **IMPATIENT, patience_s=2.0)
    host = SshHost(target)
    ran, go = tmp_path / "ran", tmp_path / "go"
    spec = command(f"echo ran >> {ran}; until [ -e {go} ]; do sleep 0.1; done; echo over")
    await host.start("c/x", spec)
    wire.cut()
    with pytest.raises(HostUnreachable, match=r"has not answered .* what runs there goes on"):
        await host.wait("c/x", 120)
    await host.close()
    go.touch()
    wire.mend()
    successor = SshHost(server.target(tmp_path / "root", **IMPATIENT))
    assert (await successor.start("c/x", spec)).phase in ("running", "exited")
    assert (await successor.wait("c/x", 60)).succeeded
    assert await successor.read("c/x", "stdout.log") == b"over\n" and ran.read_text() == "ran\n"
    await successor.close()
    await only_sshd_is_left(wire)


async def test_a_request_that_arrives_too_late_is_not_carried_out(tmp_path: Path) -> None:
    """What waited in some buffer until we gave up begins nothing when it gets through after all."""
    tool = tmp_path / "host.pyz"
    tool.write_bytes(program().data)
    spec = command(f"touch {tmp_path}/ran").to_json()
    request = {"do": "start", "root": str(tmp_path / "root"), "size": 0, "not_after": time.monotonic() - 0.001}
    line = json.dumps({**request, "with": {"run_id": "c/x", "spec": spec, "secrets": {}}}) + "\n"
    asked = [sys.executable, "-I", "-S", str(tool)]
    done = await asyncio.to_thread(subprocess.run, asked, input=line.encode(), capture_output=True, timeout=60)
    assert b'{"late": true}' in done.stdout
    assert not (tmp_path / "root").exists() and not (tmp_path / "ran").exists()


async def test_a_late_request_is_sent_again(server: Server, tmp_path: Path) -> None:
    """Our idea of the host's time is renewed with the connection, and the request then carried out."""
    host = SshHost(server.target(tmp_path / "root"))
    known = await host._link.get()
    host._link._current = Connection(known.chain, known.command, known.there_s - 3600, known.here_s)
    assert (await host.status("c/x")).phase == "absent"
    await host.close()


# -------------------------------------------------------------------------------- a whole day's work


async def work(host: SshHost, root: Path) -> dict[str, Any]:
    """What a campaign asks of a host, and all that it learns: runs waited for, stopped, failing; files; pages."""
    port = await host.free_port()
    url = await host.forward(port)
    site = root.parent / f"site-{root.name}"
    site.mkdir()
    (site / "page").write_bytes(bytes(range(256)) * 4000)
    server = command(f"exec {sys.executable} -m http.server {port} --bind 127.0.0.1", cwd=str(site))
    await host.start("d/server", server)
    learned = dict(await asyncio.gather(*(one(host, root, number) for number in range(6)), pages(url, site / "page")))
    learned["server"] = told(await host.stop("d/server"))
    return learned


async def one(host: SshHost, root: Path, number: int) -> tuple[str, Any]:
    """Input, run, outcome, output. Each run leaves a line for each time that it is begun."""
    run, counted = f"d/run{number}", root.parent / f"count-{root.name}-{number}"
    await host.put(run, "in", bytes([number]) * 70_000)
    seconds = 2 + number
    endless = number == 5
    line = f"echo begun >> {counted}; sleep {'300' if endless else seconds}; cat in; exit {number}"
    await host.start(run, command(line, cwd=host.path(run)))
    if endless:
        await asyncio.sleep(4)
        state = await host.stop(run)
    else:
        state = await host.wait(run, 280)
    out = await host.read(run, "stdout.log", limit=2**20)
    placed = Path(await host.place(f"file{number}", out)).read_bytes() == out
    return run, (told(state), len(out), set(out), placed, counted.read_text())


def told(state: RunStatus) -> tuple[Any, ...]:
    return state.phase, state.reason, state.exit_code, state.leftovers


async def pages(url: str, page: Path) -> tuple[str, Any]:
    """The page twenty times; a broken transfer is an error to the client, never a short page."""
    import aiohttp

    whole = page.read_bytes()
    wrong = fetched = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        deadline = time.monotonic() + 240
        while fetched < 20 and time.monotonic() < deadline:
            try:
                async with session.get(f"{url}/page") as answer:
                    body = await answer.read()
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)
                continue
            fetched, wrong = fetched + 1, wrong + (body != whole)
            await asyncio.sleep(0.3)
    return "pages", (fetched, wrong)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_cuts_change_nothing(wire: Wire, server: Server, tmp_path: Path, seed: int) -> None:
    """The same work over a whole line and over one that is cut again and again has the same outcome."""
    host = SshHost(server.target(tmp_path / "whole", **IMPATIENT))
    expected = await work(host, tmp_path / "whole")
    await host.close()
    assert expected["pages"] == (20, 0) and expected["d/run3"][0] == ("exited", "exited", 3, ())
    host = SshHost(server.target(tmp_path / "cut", **IMPATIENT, patience_s=120.0))
    async with cutting(wire, longest_s=6.0, seed=seed) as cuts:
        found = await work(host, tmp_path / "cut")
    assert found == expected, cuts
    assert len(cuts) >= 3
    assert await host.list_runs() == ["d/run0", "d/run1", "d/run2", "d/run3", "d/run4", "d/run5", "d/server"]
    await host.close()
    await only_sshd_is_left(wire)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_cut_of_minutes(wire: Wire, server: Server, tmp_path: Path) -> None:
    """Two minutes without a line, at the default signs of life: the call that waits goes on as if nothing had been."""
    host = SshHost(server.target(tmp_path / "root", patience_s=300.0))
    ran = tmp_path / "ran"
    await host.start("c/x", command(f"echo ran >> {ran}; sleep 60; echo out; exit 7"))
    waiting = asyncio.create_task(host.wait("c/x", 600))
    await asyncio.sleep(random.uniform(0, 3))
    wire.cut()
    await asyncio.sleep(120)
    assert not waiting.done()
    wire.mend()
    state = await waiting
    assert (state.phase, state.reason, state.exit_code) == ("exited", "exited", 7)
    assert state.ended_ns is not None and state.started_ns is not None and state.ended_ns - state.started_ns < 90e9
    assert await host.read("c/x", "stdout.log") == b"out\n" and ran.read_text() == "ran\n"
    await host.close()
    await only_sshd_is_left(wire)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_start_that_we_gave_up_begins_nothing_later(wire: Wire, server: Server, tmp_path: Path) -> None:
    """Asked for while the line is cut and given up: whatever comes through when it is mended, nothing is orphaned."""
    host = SshHost(server.target(tmp_path / "root", **IMPATIENT, patience_s=40.0))
    await host.status("c/x")
    wire.cut()
    with pytest.raises(HostUnreachable):
        await host.start("c/x", command(f"touch {tmp_path}/ran; sleep 300"))
    wire.mend()
    await asyncio.sleep(30)
    assert (await host.status("c/x")).phase == "absent" and not (tmp_path / "ran").exists()
    await host.close()
    await only_sshd_is_left(wire)
