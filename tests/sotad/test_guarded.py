"""A guarded command, with a real kernel: what an engine that runs a patch's code cannot do, and what it still can."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rig.campaign import Rig, git
from rig.records import Records

from ledger.artifacts import Artifacts
from sotad import sandbox
from sotad.activities.agents import _confined
from sotad.activities.context import Context
from sotad.activities.guard import guarded
from sotad.activities.patch import run_tests
from sotad.activities.server import Server, render_launch
from sotad.agents.call import Call, Command
from sotad.config import parse_campaign
from sotad.hosts.local import LocalHost
from statemachine.state import Attempt, Campaign, Job

pytestmark = pytest.mark.skipif(bool(sandbox.available()), reason=sandbox.available() or "guarded")

Ended = subprocess.CompletedProcess[str]


class World:
    """A state directory with a server's run in it, a checkout of somebody else's, and a folder for anything."""

    def __init__(self, root: Path) -> None:
        self.state, self.theirs, self.any = root / "state", root / "theirs", root / "any"
        self.tree, self.traces = self.state / "worktrees" / "fork", self.state / "runs" / "server" / "traces"
        for folder in (self.tree, self.traces, self.theirs, self.any):
            folder.mkdir(parents=True)
        (self.state / "ledger.db").write_text("the chain")
        (self.state / "runs" / "server" / "spec.json").write_text("what runs")
        (self.tree / "engine.py").write_text("serve")
        (self.theirs / "engine.py").write_text("serve well")
        (self.any / "notes.txt").write_text("notes")
        (self.any / "link").symlink_to(self.state / "ledger.db")

    def python(self, text: str, **env: str) -> Ended:
        """A guarded program; ``S``, ``T``, ``O`` and ``A`` are state, own tree, another's checkout, and anything."""
        names = f"S, T, O, A = {[str(self.state), str(self.tree), str(self.theirs), str(self.any)]!r}\n"
        argv = sandbox.guarded(
            [sys.executable, "-c", "import os, sys\n" + names + textwrap.dedent(text)],
            hidden=[self.state],
            protected=[self.theirs],
            writable=[self.traces],
            readable=[self.tree],
        )
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.any), **env}
        return subprocess.run(argv, cwd=self.tree, env=environment, capture_output=True, text=True, timeout=60)

    def contents(self) -> dict[str, str]:
        """Every file that is to stay as it is."""
        files = [path for root in (self.state, self.theirs) for path in sorted(root.rglob("*")) if path.is_file()]
        return {str(path): path.read_text() for path in files}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def short() -> Iterator[World]:
    """A world on a path that leaves room for the names of sockets."""
    root = Path(tempfile.mkdtemp(prefix="g-", dir="/tmp"))
    yield World(root)
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "attempt",
    [
        "open(S + '/ledger.db').read()",
        "open(S + '/runs/server/spec.json').read()",
        "open(A + '/link').read()",
        "open('/proc/self/root' + S + '/ledger.db').read()",
        "os.chdir(S); open('ledger.db').read()",
        "os.listdir(S)",
        "os.link(S + '/ledger.db', A + '/chain')",
        "os.rename(S + '/ledger.db', A + '/chain')",
        "open(S + '/runs/server/exit.json', 'w')",
        "open(T + '/engine.py', 'a')",
        "open(O + '/engine.py', 'a')",
        "os.truncate(O + '/engine.py', 0)",
        "os.unlink(O + '/engine.py')",
        "os.mkdir(O + '/folder')",
        "open(A + '/new', 'w').close(); os.rename(A + '/new', O + '/engine.py')",
        "os.rename(O, A + '/gone')",
        "os.symlink(A, O + '/way')",
        "os.mknod(A + '/disk', 0o60600, os.makedev(8, 0))",
    ],
)
def test_the_hidden_is_not_read_and_the_protected_not_written(world: World, attempt: str) -> None:
    """Neither the ledger nor its run's record is in reach, nor is another's code changed, on any way."""
    before = world.contents()
    ended = world.python(attempt)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "PermissionError" in ended.stderr or "Errno 18" in ended.stderr  # EXDEV: the kernel's answer to a rename out
    assert world.contents() == before


def test_all_else_is_as_usual(world: World) -> None:
    """It reads its tree and others' code, writes traces, temporary files and anywhere else, and runs programs."""
    ended = world.python(
        """
        import subprocess, tempfile
        assert [open(p + '/engine.py').read() for p in (T, O)] == ['serve', 'serve well'] and os.listdir(O)
        open(S + '/runs/server/traces/trace.json', 'w').write('{}')
        os.mkdir(A + '/d'); open(A + '/d/f', 'w').write('x')
        os.rename(A + '/d/f', A + '/notes.txt'); os.rmdir(A + '/d')
        with tempfile.NamedTemporaryFile() as file: file.write(b'x')
        open('/dev/null', 'w').write('x'); os.listdir('/dev'); os.listdir('/proc'); os.listdir('/sys')
        assert subprocess.run(['sh', '-c', 'echo $((6 * 7)) | cat'], capture_output=True).stdout == b'42\\n'
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert (world.traces / "trace.json").read_text() == "{}"
    assert (world.any / "notes.txt").read_text() == "x"


def test_an_engines_processes_talk_to_each_other(short: World) -> None:
    """Spawned workers share memory, and connect over socket pairs, sockets in files, and signals, as engines do."""
    program = short.any / "engine.py"
    program.write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, signal, socket, sys, tempfile
            from multiprocessing import shared_memory
            from multiprocessing.managers import BaseManager

            def worker(name, path, pair, parent):
                block = shared_memory.SharedMemory(name)
                block.buf[:4] = b'done'
                block.close()
                with socket.socket(socket.AF_UNIX) as door:
                    door.connect(path)
                    door.sendall(b'ipc')
                pair.sendall(b'pair')
                os.kill(parent, signal.SIGUSR1)

            if __name__ == '__main__':
                heard = []
                signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
                spawn = multiprocessing.get_context('spawn')
                path = os.path.join(tempfile.mkdtemp(), 'ipc')
                block = shared_memory.SharedMemory(create=True, size=4096)
                mine, theirs = socket.socketpair()
                with socket.socket(socket.AF_UNIX) as door:
                    door.bind(path)
                    door.listen()
                    child = spawn.Process(target=worker, args=(block.name, path, theirs, os.getpid()))
                    child.start()
                    talk, _ = door.accept()
                    said = talk.recv(3), mine.recv(4)
                child.join(30)
                with BaseManager(ctx=spawn):
                    pass
                said += (bytes(block.buf[:4]), child.exitcode, len(heard))
                block.close()
                block.unlink()
                print(said)
            """
        )
    )
    argv = sandbox.guarded(
        [sys.executable, str(program)], hidden=[short.state], protected=[short.theirs], readable=[short.tree]
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(short.any)}
    ended = subprocess.run(argv, cwd=short.tree, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.stdout.strip(), ended.returncode) == ("(b'ipc', b'pair', b'done', 0, 1)", 0), ended.stderr


@pytest.mark.skipif(sandbox.abi() < sandbox.SIGNALS_ABI, reason="signals are scoped from Linux 6.12 on")
def test_the_daemon_and_competitors_are_not_signalled_or_looked_into(world: World) -> None:
    """No signal reaches a process outside; its memory and open files stay closed."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        ended = world.python(
            f"""
            import signal
            for pid in ({other.pid}, {os.getpid()}):
                for number, attempt in enumerate((
                    lambda: os.kill(pid, 0),
                    lambda: os.kill(pid, signal.SIGKILL),
                    lambda: open(f'/proc/{{pid}}/mem', 'r+b'),
                    lambda: os.readlink(f'/proc/{{pid}}/fd/0'),
                )):
                    try:
                        attempt()
                    except PermissionError:
                        continue
                    sys.exit(f'reached {{pid}} by {{number}}')
            """
        )
        assert (ended.returncode, other.poll()) == (0, None), ended.stderr
    finally:
        other.kill()
        other.wait(10)


def test_capabilities_and_limits_stay(world: World) -> None:
    """What a GPU runtime may do it still may: the sets are as they were, and no filter of calls is on."""

    def facts(text: str) -> dict[str, str]:
        return {line.split(":")[0]: line.split()[-1] for line in text.splitlines() if line.startswith(("Cap", "Secc"))}

    ended = world.python("print(open('/proc/self/status').read())")
    assert facts(ended.stdout) == facts(Path("/proc/self/status").read_text())


def test_temporary_files_have_a_place_beside_what_is_hidden(world: World) -> None:
    """Where the folder for temporary files holds a hidden tree, one in it takes its place, the user's own."""
    around = world.state.parent
    ended = world.python("import tempfile; print(tempfile.mkstemp()[1])", TMPDIR=str(around))
    made = Path(ended.stdout.strip())
    assert made.parent == around / f"sotad-guarded-{os.getuid()}"
    assert made.parent.stat().st_mode & 0o777 == 0o700
    elsewhere = world.python("import tempfile; print(tempfile.mkstemp()[1])", TMPDIR=str(world.any))
    assert Path(elsewhere.stdout.strip()).parent == world.any


def test_a_place_for_temporary_files_that_is_no_folder_of_ours_is_refused(world: World) -> None:
    """A link that somebody else laid there would lead the engine's files away."""
    around = world.state.parent
    (around / f"sotad-guarded-{os.getuid()}").symlink_to(world.any)
    ended = world.python("pass", TMPDIR=str(around))
    assert (ended.returncode, "belongs to somebody else" in ended.stderr) == (126, True)


def test_caches_of_a_home_that_holds_something_hidden_can_be_made(world: World) -> None:
    """An engine's first start makes folders in the home, which cannot take new ones beside a hidden tree."""
    ended = world.python(
        "for name in ('.triton/cache', '.nv/ComputeCache'): os.makedirs(os.environ['HOME'] + '/' + name)",
        HOME=str(world.state.parent),
    )
    assert ended.returncode == 0, ended.stderr


def test_what_is_not_there_is_no_hindrance(world: World) -> None:
    """A hidden or protected tree that does not exist takes nothing away."""
    argv = sandbox.guarded(
        ["touch", f"{world.any}/new"], hidden=[world.any / "gone"], protected=[world.any / "no" / "checkout"]
    )
    assert subprocess.run(argv, timeout=30).returncode == 0


def test_exceptions_that_would_undo_it_are_refused(world: World) -> None:
    """Rules add up: below a writable folder nothing is protected, below a readable one nothing hidden."""
    with pytest.raises(ValueError, match="stay hidden"):
        sandbox.guarded(["true"], hidden=[world.state], readable=[world.state.parent])
    with pytest.raises(ValueError, match="stay as it is"):
        sandbox.guarded(["true"], hidden=[], protected=[world.theirs], writable=[world.theirs.parent])


def test_how_the_command_ends_is_how_it_ends(world: World) -> None:
    """Exit codes are the command's; what cannot start says why."""
    assert world.python("sys.exit(7)").returncode == 7
    ended = subprocess.run(sandbox.guarded(["no-such"], hidden=[]), capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (127, "sandbox: cannot execute no-such: No such file or directory\n")


# --- where the daemon uses it -------------------------------------------------------------------------------------

SPY = """
import os
for name, mode in (("{home}/state/ledger.db", "r"), ("{home}/.ssh/key", "r"), ("{home}/rig/leader/new", "w"),
                   ("{home}/rig/target/new", "w"), ("{home}/new", "w"), ("here", "w"), (".git", "r")):
    try:
        open(name, mode).close()
        print("SPY did", mode, os.path.relpath(name, "{home}") if name[0] == "/" else name, flush=True)
    except OSError:
        pass
"""


class Bench:
    """A campaign whose attempt a1 has put a spy into the target."""

    def __init__(self, home: Path, **changes: Any) -> None:
        self.home, self.state, self.rig = home, home / "state", Rig(home / "rig")
        for name in (".ssh", "state"):
            (home / name).mkdir()
        for secret in (home / ".ssh" / "key", self.state / "ledger.db"):
            secret.write_text("secret")
        spec = parse_campaign(yaml.safe_dump(self.rig.spec(**changes)), "test.yaml", home)
        with (self.rig.target / "refengine" / "__init__.py").open("a") as source:
            source.write(SPY.format(home=home))
        git(self.rig.target, "commit", "--quiet", "--all", "-m", "Look around")
        self.commit = git(self.rig.target, "rev-parse", "HEAD")
        attempt = Attempt("a1", 0, [], "", "applied", self.commit, 1, commit=self.commit)
        self.c = Campaign("small", spec=spec, attempts={"a1": attempt}, current_attempt="a1", champion=self.commit)
        self.artifacts = Artifacts(self.state / "artifacts")
        command = [sys.executable, "-m", "refengine", "--help"]
        said = subprocess.run(command, cwd=self.rig.leader, check=True, capture_output=True, timeout=30).stdout
        self.c.probes["fork"] = {"help": self.artifacts.put_bytes(said)}

    def context(self, job: str) -> Context:
        self.c.jobs[job] = Job(job, job, 1, "running", 0, 1, params={})
        parts = (Records(self.c), LocalHost(self.state / "runs"), self.artifacts, self.state)
        return Context("small", job, 1, {}, time.time_ns() + 60 * 10**9, *parts)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Bench(tmp_path)


def deeds(log: bytes) -> set[str]:
    return {line[8:] for line in log.decode().splitlines() if line.startswith("SPY did ")}


async def test_a_patched_server_serves_and_sees_nothing(bench: Bench) -> None:
    """It comes up; ledger, keys and checkouts are out of its reach, and its own tree is as git made it."""
    ctx = bench.context("launch")
    server = await Server.start(ctx, "reference", await render_launch(ctx, "fork", bench.commit, {}))
    try:
        await server.ready()
        assert deeds(await server.log()) == {"r .git"}
    finally:
        await server.stop()
    assert not sandbox.is_confined(server.command.argv)  # what is on record is the framework's own command


async def test_patched_tests_write_to_a_copy_and_see_nothing(bench: Bench) -> None:
    """Tests write where they run, with the variables of a server but no secret; the worktree stays as git made it."""
    ctx = bench.context("tests")
    bench.c.spec["frameworks"]["fork"] |= {"env": {"PYTHONHASHSEED": "7"}, "env_from": ["LENT_TO_SERVERS"]}
    assert (await run_tests(ctx)).startswith("exit code 0; ")
    asked = json.loads(await ctx.output("tests", "spec.json"))
    assert (asked["env"]["PYTHONHASHSEED"], asked["secrets"]) == ("7", [])
    assert deeds(await ctx.output("tests")) == {"r .git", "w here"}
    assert not list(bench.state.rglob("here")) and not Path(ctx.path("tests", "tree")).exists()


async def test_only_what_a_patch_can_change_is_guarded(bench: Bench, tmp_path: Path) -> None:
    """A competitor's server runs as it is, and everything does when a person said so."""
    ctx, argv = bench.context("launch"), ("true",)
    assert guarded(ctx, "fork", argv, writable=[])[-1:] == argv != guarded(ctx, "fork", argv, writable=[])
    assert guarded(ctx, "upstream", argv, writable=[]) == argv
    bench.c.spec["implementer"]["sandbox"] = "off"
    assert guarded(ctx, "fork", argv, writable=[]) == argv


def test_agents_do_not_see_the_users_logins(bench: Bench) -> None:
    """Keys and tokens of the user stay closed to an agent, files and folders; what its home holds is lent to it."""
    home, desk = bench.home, bench.home / "desk"
    secrets = [".ssh/key", ".netrc", ".aws/credentials", ".codex/auth.json", ".claude/.credentials.json"]
    secrets += [".cache/huggingface/token", ".docker/config.json", ".config/gh/hosts.yml"]
    for name in (*secrets, ".docker/other", ".bashrc"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("text")
    desk.mkdir()

    def seen(*lent: Path) -> list[str]:
        script = 'for f in "$@"; do cat "$HOME/$f" > /dev/null 2>&1 && echo "$f"; done; true'
        call = Call(role="implementer", folder=str(bench.rig.target), desk=str(desk), schema={}, confined=True)
        command = Command(("sh", "-c", script, "sh", *secrets, ".docker/other", ".bashrc", "state/ledger.db"))
        argv = _confined(bench.context("propose"), call, command, [desk, *lent])
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout.split()

    assert seen() == [".docker/other", ".bashrc"]
    assert seen(home / ".codex") == [".codex/auth.json", ".docker/other", ".bashrc"]
