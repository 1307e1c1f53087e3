"""A real podman runs real containers from an image of busybox: start, exit status, stop, secrets. Skipped without."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from podman_rig import LIMITED, containers, podman, ran, said

from sotad import contained as program
from sotad.activities.cleanup import REMOVAL_PAUSE_S, REMOVALS
from sotad.activities.containing import in_container
from sotad.config.container import Container
from sotad.containers import contained, container_name, listing, removal
from sotad.hosts.base import RunSpec
from sotad.hosts.local import LocalHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SECRET = "hf_nobody-may-read-this"
SHELL = ("/bin/sh", "-c")


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with podman() as section:
        yield Container(**section)


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalHost]:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    host = LocalHost(tmp_path)
    yield host
    for run in await host.list_runs():
        await host.stop(run)


def run_of(container: Container, run_id: str, *argv: str, secret: bool = False, grace_s: float = 3.0) -> RunSpec:
    env = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "GREETING": "good day $HOME"}
    secrets = ("HF_TOKEN",) if secret else ()
    spec = RunSpec(argv=argv, cwd="/tmp", env=env, secrets=secrets, timeout_s=120, grace_s=grace_s)
    where = {"campaign": "/runs/c", "python": sys.executable, "supervisor": program.__file__}
    return contained(spec, container, run_id=run_id, **where)


def alive(mark: str) -> list[str]:
    """Arguments of live processes that hold a mark; this program's own do not count."""
    found = said(["ps", "axww", "-o", "args"]).splitlines()
    return [line for line in found if mark in line and "ps axww" not in line]


async def until_up(host: LocalHost, run_id: str) -> None:
    """Until the command in the container has printed its first line."""
    while not await host.read(run_id, "stdout.log"):
        status = await host.wait(run_id, 0.1)
        if status.over and not await host.read(run_id, "stdout.log"):
            raise AssertionError(f"{status}: {await host.read(run_id, 'stderr.log')!r}")


async def test_a_command_runs_with_its_variables_and_its_status_comes_back(
    container: Container, host: LocalHost
) -> None:
    """In its folder, with what was asked for and not the host's HOME; no container is left."""
    run = run_of(container, "c/ok", *SHELL, 'echo "$GREETING"; echo oops >&2; cat /proc/self/cwd/x; pwd; exit 3')
    await host.start("c/ok", run)
    status = await host.wait("c/ok", 90)
    assert (status.reason, status.exit_code) == ("exited", 3)
    assert (await host.read("c/ok", "stdout.log")).decode().split("\n")[:2] == ["good day $HOME", "/tmp"]
    assert b"oops" in await host.read("c/ok", "stderr.log")
    assert container_name("c/ok") not in containers(container)


async def test_a_secret_reaches_the_command_and_nothing_else(container: Container, host: LocalHost) -> None:
    """Not the container's settings, no command line, no file of the run."""
    script = 'case "$HF_TOKEN" in hf_nobody*) echo yes;; *) echo no;; esac; sleep 300'
    await host.start("c/secret", run_of(container, "c/secret", *SHELL, script, secret=True))
    await until_up(host, "c/secret")
    assert (await host.read("c/secret", "stdout.log")).strip() == b"yes"
    inspected = said([*container.command, "inspect", container_name("c/secret")])
    assert container_name("c/secret") in inspected and SECRET not in inspected
    assert not alive(SECRET)
    texts = [path.read_bytes() for path in Path(host.path("c/secret")).rglob("*") if path.is_file()]
    assert texts and not any(SECRET.encode() in text for text in texts)


async def test_a_stop_ends_the_command_and_its_children_gently(container: Container, host: LocalHost) -> None:
    """SIGTERM arrives inside; afterwards there is no process and no container."""
    script = "trap 'echo bye; exit 0' TERM; sleep 31400 & echo up; wait"
    await host.start("c/stop", run_of(container, "c/stop", *SHELL, script))
    await until_up(host, "c/stop")
    assert alive("sleep 31400")
    status = await host.stop("c/stop")
    assert status.phase == "exited" and not status.survivors
    assert b"bye" in await host.read("c/stop", "stdout.log")
    assert not alive("sleep 31400") and container_name("c/stop") not in containers(container)


async def test_a_stop_ends_what_ignores_sigterm(container: Container, host: LocalHost) -> None:
    """After the grace, by removing the container."""
    script = "trap '' TERM; echo up; while true; do sleep 31500; done"
    await host.start("c/deaf", run_of(container, "c/deaf", *SHELL, script, grace_s=1.0))
    await until_up(host, "c/deaf")
    await host.stop("c/deaf")
    assert not alive("31500") and container_name("c/deaf") not in containers(container)


async def test_a_killed_client_leaves_no_container(container: Container, host: LocalHost) -> None:
    """The supervisor ends what its client was told to run."""
    await host.start("c/kill", run_of(container, "c/kill", *SHELL, "echo up; sleep 31600"))
    await until_up(host, "c/kill")
    client = said(["pgrep", "-f", f"run --rm --name {container_name('c/kill')}"]).split()
    clients = [pid for pid in client if b"contained" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert clients
    for pid in clients:
        os.kill(int(pid), 9)
    status = await host.wait("c/kill", 60)
    assert status.exit_code == 137
    assert not alive("sleep 31600") and container_name("c/kill") not in containers(container)


async def test_what_a_killed_supervisor_left_is_found_again(container: Container, host: LocalHost) -> None:
    """After kill -9 of all that watched, the clean-up's commands name the container and remove it."""
    await host.start("c/gone", run_of(container, "c/gone", *SHELL, "echo up; sleep 31700"))
    await until_up(host, "c/gone")
    for pid in said(["pgrep", "-f", container_name("c/gone")]).split():
        os.kill(int(pid), 9)
    await host.wait("c/gone", 60)
    for _ in range(REMOVALS):
        removed = ran(removal(container, *said(listing(container, "/runs/c")).split()))
        if removed.returncode == 0:
            break
        await asyncio.sleep(REMOVAL_PAUSE_S)
    assert removed.returncode == 0, removed.stderr
    assert not alive("sleep 31700") and container_name("c/gone") not in containers(container)


async def test_what_is_written_below_a_folder_is_there_on_the_host(
    container: Container, tmp_path: Path, host: LocalHost
) -> None:
    """The supervisor is placed on the host; a folder that nobody made is made, and mounted at its own path."""
    made = tmp_path / "caches" / "new"
    env = {"PATH": os.environ["PATH"], "HOME": str(Path.home())}
    spec = RunSpec(argv=(*SHELL, f"echo warm >{made}/compiled"), cwd="/tmp", env=env, timeout_s=60)
    run = await in_container(host, spec, container, run_id="c/folder", folders=[str(made)])
    await host.start("c/folder", run)
    assert (await host.wait("c/folder", 60)).succeeded, await host.read("c/folder", "stderr.log")
    assert (made / "compiled").read_text() == "warm\n"
    assert await in_container(host, spec, None, run_id="c/folder") is spec


async def test_exec_ends_its_own_processes_only(container: Container, host: LocalHost) -> None:
    """In a container of the operator, what was there before goes on."""
    start = ["run", "--detach", "--rm", "--name", "theirs", "--network", "host", *LIMITED, container.image]
    ran([*container.command, *start, "sleep", "31800"])
    inside = Container(runtime="podman", mode="exec", name="theirs", command=container.command)
    script = 'case "$HF_TOKEN" in hf_nobody*) echo yes;; esac; sleep 31900 & sleep 31900'
    await host.start("c/exec", run_of(inside, "c/exec", *SHELL, script, secret=True))
    await until_up(host, "c/exec")
    assert SECRET not in said([*container.command, "inspect", "theirs"]) and not alive(SECRET)
    status = await host.stop("c/exec")
    assert status.phase == "exited"
    assert not alive("sleep 31900") and alive("sleep 31800")
    ran([*container.command, "rm", "--force", "--time", "0", "theirs"])
