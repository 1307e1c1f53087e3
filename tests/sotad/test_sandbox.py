"""The sandbox, with a real kernel: what a command in it cannot do, and what it still can."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sotad import sandbox

pytestmark = pytest.mark.skipif(bool(sandbox.available()), reason=sandbox.available() or "confined")

Ended = subprocess.CompletedProcess[str]


class World:
    """Folders of somebody else's around a workspace, the ledger hidden among them."""

    def __init__(self, root: Path) -> None:
        self.state, self.outside = root / "state", root / "outside"
        self.work, self.scratch = self.state / "workspaces" / "tree", self.state / "desk" / "tmp"
        self.ledger = self.state / "ledger.db"
        for folder in (self.work, self.scratch, self.outside):
            folder.mkdir(parents=True)
        self.ledger.write_text("the chain")
        (self.outside / "notes.txt").write_text("theirs")
        (self.outside / "link").symlink_to(self.ledger)

    def run(self, *argv: str, cwd: Path | None = None) -> Ended:
        """A command in the sandbox, its working directory the workspace."""
        whole = sandbox.confined(argv, writable=[self.work, self.scratch], hidden=[self.state])
        env = {"PATH": os.environ["PATH"], "TMPDIR": str(self.scratch), "HOME": str(self.scratch)}
        place = cwd or self.work
        return subprocess.run(whole, cwd=place, env=env, capture_output=True, text=True, timeout=60, check=False)

    def python(self, text: str) -> Ended:
        """A program in the sandbox; ``W``, ``O`` and ``S`` are workspace, outside and state."""
        names = f"import os, sys\nW, O, S = {str(self.work)!r}, {str(self.outside)!r}, {str(self.state)!r}\n"
        return self.run(sys.executable, "-c", names + text)

    def contents(self) -> dict[str, str]:
        """Every file outside of the workspace, and what it holds."""
        places = [path for root in (self.outside, self.state) for path in sorted(root.rglob("*"))]
        files = [path for path in places if path.is_file() and not path.is_relative_to(self.state / "workspaces")]
        return {str(path): path.read_text() for path in files}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    "attempt",
    [
        "open(O + '/new', 'w')",
        "open(O + '/notes.txt', 'a')",
        "os.truncate(O + '/notes.txt', 0)",
        "os.unlink(O + '/notes.txt')",
        "os.mkdir(O + '/folder')",
        "os.symlink(W, O + '/back')",
        "os.mkfifo(O + '/pipe')",
        "open(W + '/a', 'w').close(); os.rename(W + '/a', O + '/a')",
        "open(W + '/b', 'w').close(); os.link(W + '/b', O + '/b')",
        "os.link(O + '/notes.txt', W + '/theirs')",
        "os.symlink(O, W + '/way'); open(W + '/way/new', 'w')",
        "os.mkdir(W + '/../beside')",
        "open(S + '/new', 'w')",
        "open(S + '/ledger.db').read()",
        "open(O + '/link').read()",
        "open('/proc/self/root' + S + '/ledger.db').read()",
        "os.listdir(S)",
        "os.chdir(S); open('ledger.db').read()",
        "os.rename(S + '/ledger.db', W + '/ledger.db')",
        "os.listdir('/dev')",
        "os.mknod(W + '/disk', 0o60600, os.makedev(8, 0))",
    ],
)
def test_what_is_outside_is_not_touched_and_what_is_hidden_not_read(world: World, attempt: str) -> None:
    """Every way out of the workspace ends in a refusal by the kernel, and leaves the world as it was."""
    before = world.contents()
    ended = world.python(attempt)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "PermissionError" in ended.stderr or "Errno 18" in ended.stderr  # EXDEV: the kernel's answer to a rename out
    assert world.contents() == before


def test_a_grandchild_that_left_its_session_is_no_freer(world: World) -> None:
    """Two forks, a new session and an exec later the boundary is the same."""
    ended = world.python(
        "import subprocess\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        code = subprocess.call(['sh', '-c', f'echo out > {O}/escaped'], stderr=subprocess.DEVNULL)\n"
        "        open(W + '/said', 'w').write(str(code))\n"
        "    os._exit(0)\n"
    )
    assert ended.returncode == 0, ended.stderr
    said = world.work / "said"
    deadline = time.monotonic() + 20
    while not (said.exists() and said.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert said.read_text() not in ("", "0")
    assert not (world.outside / "escaped").exists()


@pytest.mark.skipif(sandbox.abi() < sandbox.SIGNALS_ABI, reason="signals are scoped from Linux 6.12 on")
def test_no_signal_reaches_a_process_outside(world: World) -> None:
    """The daemon and the servers of competitors cannot be stopped, killed or traced; its own children can."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        ended = world.python(
            "import signal, subprocess\n"
            f"for pid in ({other.pid}, {os.getpid()}):\n"
            "    for number in (0, signal.SIGKILL, signal.SIGSTOP):\n"
            "        try:\n"
            "            os.kill(pid, number)\n"
            "            sys.exit(f'{number} reached {pid}')\n"
            "        except PermissionError:\n"
            "            pass\n"
            f"    try:\n        open(f'/proc/{{pid}}/environ').read()\n        sys.exit('read')\n"
            "    except PermissionError:\n        pass\n"
            "own = subprocess.Popen(['sleep', '60'])\n"
            "own.kill()\n"
            "sys.exit(own.wait() != -9)\n"
        )
        assert ended.returncode == 0, ended.stderr
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait(10)


def test_the_daemons_socket_cannot_be_reached(world: World) -> None:
    """No Unix socket leads out, wherever it lies; pairs between own processes work, and so does TCP."""
    place = world.outside / "sotad.sock"
    with socket.socket(socket.AF_UNIX) as door, socket.create_server(("127.0.0.1", 0)) as web:
        door.bind(str(place))
        door.listen()
        ended = world.python(
            "import socket\n"
            "a, b = socket.socketpair()\n"
            "a.send(b'x')\n"
            "assert b.recv(1) == b'x'\n"
            f"socket.create_connection(('127.0.0.1', {web.getsockname()[1]}), timeout=10).close()\n"
            f"try:\n    socket.socket(socket.AF_UNIX).connect({str(place)!r})\n"
            "except PermissionError:\n    sys.exit(0)\n"
            "sys.exit('connected')\n"
        )
    assert ended.returncode == 0, ended.stderr


def test_no_privilege_is_left_or_to_be_had(world: World) -> None:
    """No capability, no setuid program's rights, no limits set on other processes."""
    ended = world.python(
        "import resource\n"
        "lines = [line.split(':\\t') for line in open('/proc/self/status').read().splitlines()]\n"
        "status = {line[0]: line[-1] for line in lines}\n"
        "print(status['CapEff'], status['NoNewPrivs'], status['Seccomp'])\n"
        "try:\n    resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))\n"
        "except PermissionError:\n    sys.exit(0)\n"
        "sys.exit('limited')\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["0" * 16, "1", "2"]


def test_ordinary_work_goes_on(world: World) -> None:
    """Files, links and renames in the workspace, temporary files, /dev/null, mmap, threads, children, shared memory."""
    ended = world.python(
        "import mmap, multiprocessing, subprocess, tempfile, threading\n"
        "os.mkdir(W + '/d'); open(W + '/d/f', 'w').write('x' * 8192); os.rename(W + '/d/f', W + '/g')\n"
        "os.link(W + '/g', W + '/h'); os.symlink('g', W + '/l'); os.unlink(W + '/h')\n"
        "with open(W + '/g', 'r+b') as file, mmap.mmap(file.fileno(), 0) as view: view[0:1] = b'y'\n"
        "assert tempfile.gettempdir().startswith(S) and tempfile.NamedTemporaryFile().write(b'z') == 1\n"
        "open('/dev/null', 'w').write('gone'); assert open('/dev/urandom', 'rb').read(4)\n"
        "assert open(O + '/notes.txt').read() == 'theirs'\n"
        "lock = multiprocessing.get_context('fork').Lock(); lock.acquire()\n"
        "done = []\n"
        "thread = threading.Thread(target=done.append, args=(1,)); thread.start(); thread.join(); assert done\n"
        "assert subprocess.run(['sh', '-c', 'echo $((6 * 7)) | cat'], capture_output=True).stdout == b'42\\n'\n"
        "import pty; main, side = pty.openpty(); os.write(side, b'tty'); assert os.read(main, 3) == b'tty'\n"
    )
    assert ended.returncode == 0, ended.stderr


def test_git_commits_in_the_workspace(world: World) -> None:
    """An implementer's everyday tool works there, and nowhere else."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    assert world.run("git", "init", "--quiet", ".").returncode == 0
    (world.work / "file").write_text("text\n")
    assert world.run("git", "add", "--all").returncode == 0
    made = world.run("git", *identity, "commit", "--quiet", "-m", "A commit")
    assert made.returncode == 0, made.stderr
    assert world.run("git", "log", "--format=%s").stdout == "A commit\n"
    assert world.run("git", "init", "--quiet", str(world.outside / "repo")).returncode != 0


def test_readable_is_seen_but_not_written(world: World) -> None:
    """A hidden tree can be opened for reading in one place."""
    shown = world.state / "shown"
    shown.mkdir()
    (shown / "text").write_text("seen")
    argv = sandbox.confined(
        ["sh", "-c", f"cat {shown}/text && echo more >> {shown}/text"],
        writable=[world.work],
        readable=[shown],
        hidden=[world.state],
    )
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.returncode != 0) == ("seen", True)
    assert (shown / "text").read_text() == "seen"


def test_a_sandbox_in_a_sandbox_is_no_way_out(world: World) -> None:
    """The command may confine itself further, not less."""
    inner = sandbox.confined(["sh", "-c", f"echo x > {world.outside}/new"], writable=[world.outside], hidden=[])
    assert world.run(*inner).returncode != 0
    assert not (world.outside / "new").exists()


def test_no_open_file_of_the_daemon_is_handed_on(world: World) -> None:
    """A descriptor that was open before would go past every rule."""
    whole = sandbox.confined(
        [sys.executable, "-c", "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:4])"],
        writable=[world.work],
        hidden=[world.state],
    )
    with world.ledger.open() as ledger:
        ended = subprocess.run(
            whole, capture_output=True, text=True, pass_fds=[ledger.fileno()], timeout=30, check=True
        )
    assert json.loads(ended.stdout) == [0, 1, 2, 3]  # 3 is the listing itself


def test_how_the_command_ends_is_how_the_sandbox_ends(world: World) -> None:
    """Exit codes and signals are the command's; what cannot start says why."""
    assert world.run("sh", "-c", "exit 7").returncode == 7
    assert world.run("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    missing = world.run("no-such-program")
    assert (missing.returncode, missing.stderr) == (
        127,
        "sandbox: cannot execute no-such-program: No such file or directory\n",
    )
    gone = sandbox.confined(["true"], writable=[world.work / "gone"], hidden=[])
    ended = subprocess.run(gone, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, "no such folder" in ended.stderr) == (126, True)


def test_a_writable_folder_that_holds_what_is_hidden_is_refused(world: World) -> None:
    """Rules add up: what is below a writable folder cannot be hidden again."""
    with pytest.raises(ValueError, match="is to stay hidden"):
        sandbox.confined(["true"], writable=[world.state.parent], hidden=[world.state])


def test_a_confined_command_is_known_as_one() -> None:
    """A run's record tells whether it was confined."""
    argv = sandbox.confined(["true"], writable=[], hidden=[])
    assert (sandbox.is_confined(argv), sandbox.is_confined(["true"])) == (True, False)
