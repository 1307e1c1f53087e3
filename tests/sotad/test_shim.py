"""The shim as a program of its own: real processes, real signals."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sotad import shim

SHIM = shim.__file__
DAEMONISE = "setsid sh -c 'setsid sleep 300 & echo $! > {file}; wait' & sleep 0.2"

LIBC_SIGNALS = 1 << 31 | 1 << 32  # 32 and 33 belong to glibc: nobody else can set them back


def prepare(directory: Path, command: str, **overrides: Any) -> Path:
    directory.mkdir(parents=True)
    spec: dict[str, Any] = {
        "argv": ["sh", "-c", command],
        "cwd": str(directory),
        "env": {"PATH": os.environ["PATH"]},
    }
    spec |= {"secrets": [], "timeout_s": 30, "grace_s": 0.5} | overrides
    (directory / "spec.json").write_text(json.dumps(spec))
    return directory


def call(run: Path, *words: str, python: str = sys.executable, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-I", "-S", SHIM, str(run), *words], input=stdin, capture_output=True, text=True, timeout=30
    )


def begin(run: Path, **options: str) -> dict[str, Any]:
    done = call(run, **options)
    assert done.returncode == 0, done.stderr
    return shim.status(run)


def until(condition: Callable[[], Any], patience_s: float = 15.0) -> Any:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def finish(run: Path) -> dict[str, Any]:
    until(lambda: shim.status(run)["phase"] in ("exited", "lost"))
    return shim.status(run)


MAPS = """
import mmap, sys, time
held = []
for path in sys.argv[1:]:
    file = open(path, "a+b")
    file.truncate(64)
    held.append(mmap.mmap(file.fileno(), 64))
print("mapped", flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no shared memory here")
def test_shared_memory_that_a_run_made_goes_with_it(tmp_path: Path) -> None:
    """Not what was there before it, and not what somebody else still uses."""
    before, own, shared = (Path("/dev/shm", f"sotad-test-{os.getpid()}-{name}") for name in ("before", "own", "shared"))
    before.write_bytes(b"somebody's")
    argv = [sys.executable, "-c", MAPS, *map(str, (before, own, shared))]
    run = prepare(tmp_path / "r", "", argv=argv)
    other = None
    try:
        begin(run)
        until(lambda: "mapped" in (run / "stdout.log").read_text())
        other = subprocess.Popen([sys.executable, "-c", MAPS, str(shared)], stdout=subprocess.PIPE)
        assert other.stdout is not None and other.stdout.readline()
        call(run, "stop")
        assert finish(run)["shared_memory"] == [own.name]
        assert before.exists() and shared.exists() and not own.exists()
    finally:
        if other is not None:
            other.kill()
            other.communicate()
        for path in (before, own, shared):
            path.unlink(missing_ok=True)


SEMAPHORE = """
import sys, time
from _multiprocessing import SemLock
held = SemLock(1, 1, 1, sys.argv[1], False)  # recursive or not, value, most, name, unlinked at once
print("made", flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no shared memory here")
def test_a_semaphore_that_a_killed_run_made_goes_with_it(tmp_path: Path) -> None:
    """Its maker's map shows another name than the one it has."""
    made = Path("/dev/shm", f"sem.sotad-test-{os.getpid()}")
    run = prepare(tmp_path / "r", "", argv=[sys.executable, "-c", SEMAPHORE, f"/sotad-test-{os.getpid()}"])
    try:
        begin(run)
        until(lambda: "made" in (run / "stdout.log").read_text())
        assert made.exists()
        call(run, "stop")
        assert finish(run)["shared_memory"] == [made.name]
        assert not made.exists()
    finally:
        made.unlink(missing_ok=True)


def number_in(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text().strip()))


def test_exit_code_output_and_usage_are_recorded(tmp_path: Path) -> None:
    """A finished run says how it ended, when, and what it cost."""
    run = prepare(tmp_path / "r", "echo out; echo err >&2; exit 7")
    begin(run)
    state = finish(run)
    assert (state["phase"], state["reason"], state["exit_code"], state["signal"]) == (
        "exited",
        "exited",
        7,
        None,
    )
    assert state["started_ns"] <= state["ended_ns"] <= time.time_ns()
    assert state["cpu_s"] >= 0 and state["max_rss_bytes"] > 0
    assert (run / "stdout.log").read_text() == "out\n"
    assert (run / "stderr.log").read_text() == "err\n"


def test_death_by_signal_is_told_from_an_exit_code(tmp_path: Path) -> None:
    """A command killed by a signal has a signal and no exit code."""
    run = prepare(tmp_path / "r", "kill -SEGV $$")
    begin(run)
    state = finish(run)
    assert (state["exit_code"], state["signal"]) == (None, signal.SIGSEGV)


def test_missing_binary_is_an_outcome_with_a_clear_message(tmp_path: Path) -> None:
    """A command that cannot be executed is failed_to_start and says which, and where it was looked for."""
    run = prepare(tmp_path / "r", "", argv=["no-such-program"])
    state = begin(run)
    assert (state["phase"], state["reason"], state["exit_code"]) == ("exited", "failed_to_start", None)
    assert "no-such-program" in state["message"] and "No such file" in state["message"]


def test_missing_working_directory_is_named(tmp_path: Path) -> None:
    """The message blames the directory, not the program, when the directory is missing."""
    state = begin(prepare(tmp_path / "r", "true", cwd="/no/such/place"))
    assert state["reason"] == "failed_to_start"
    assert "working directory /no/such/place" in state["message"]


FREEZES = """
import os, signal, sys
from sotad import shim

write_json = shim.write_json

def write_and_freeze(path, record):
    write_json(path, record)
    if path.name == "pid.json":
        os.kill(record["pid"], signal.SIGSTOP)

shim.write_json = write_and_freeze
sys.exit(shim.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("limit_s", "end", "reason"),
    [
        (30, lambda run: call(run, "stop"), "stopped"),
        (30, lambda run: os.kill(shim.status(run)["shim_pid"], signal.SIGTERM), "stopped"),
        (0.3, lambda run: None, "timeout"),
    ],
    ids=["stop", "sigterm", "deadline"],
)
def test_a_command_that_hangs_before_it_is_executed_is_ended(
    tmp_path: Path, limit_s: float, end: Callable[[Path], object], reason: str
) -> None:
    """As on a file system that does not answer: the process is there, but not yet the command's program."""
    run = prepare(tmp_path / "r", "touch began", timeout_s=limit_s, grace_s=0.1)
    starter = subprocess.Popen([sys.executable, "-c", FREEZES, str(run)], stdin=subprocess.DEVNULL)
    until((run / "pid.json").exists)
    end(run)
    state = finish(run)
    assert starter.wait(15) == 0
    assert (state["phase"], state["reason"], state["message"]) == ("exited", reason, None)
    assert (state["signal"], state["survivors"]) == (signal.SIGKILL, [])
    assert not (run / "began").exists()


def test_deadline_ends_a_command_that_ignores_sigterm(tmp_path: Path) -> None:
    """After timeout_s comes SIGTERM, after grace_s SIGKILL, with nobody watching."""
    run = prepare(tmp_path / "r", "trap '' TERM; while :; do sleep 0.1; done", timeout_s=0.3, grace_s=0.3)
    begin(run)
    state = finish(run)
    assert (state["reason"], state["signal"]) == ("timeout", signal.SIGKILL)
    assert 0.6 <= (state["ended_ns"] - state["started_ns"]) / 1e9 < 5


def test_stop_lets_the_command_clean_up(tmp_path: Path) -> None:
    """A stop is a SIGTERM first: the command's own exit code is kept."""
    run = prepare(tmp_path / "r", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done", grace_s=5)
    begin(run)
    until(lambda: (run / "stdout.log").read_text() == "up\n")
    state = json.loads(call(run, "stop").stdout)
    assert (state["phase"], state["reason"], state["exit_code"]) == ("exited", "stopped", 5)
    assert (run / "stdout.log").read_text() == "up\nbye\n"


def test_stop_file_alone_is_enough(tmp_path: Path) -> None:
    """A run whose shim gets no signal still ends once the stop file is there."""
    run = prepare(tmp_path / "r", "sleep 300")
    begin(run)
    (run / "stop").touch()
    assert finish(run)["reason"] == "stopped"


def test_sigterm_to_the_shim_ends_the_run(tmp_path: Path) -> None:
    """Whoever ends the shim politely ends the run, and the exit is written."""
    run = prepare(tmp_path / "r", "sleep 300")
    os.kill(begin(run)["shim_pid"], signal.SIGTERM)
    state = finish(run)
    assert (state["phase"], state["reason"], state["signal"]) == ("exited", "stopped", signal.SIGTERM)


def test_daemons_left_behind_are_ended(tmp_path: Path) -> None:
    """A grandchild that left the session and the group does not outlive the run, and is named."""
    run = prepare(tmp_path / "r", DAEMONISE.format(file="daemon.pid"))
    begin(run)
    state = finish(run)
    daemon = number_in(run / "daemon.pid")
    assert shim.inspect(daemon) is None
    assert (state["reason"], state["exit_code"], state["survivors"]) == ("exited", 0, [])
    assert {"pid": daemon, "command": "sleep"} in state["leftovers"]


def test_stop_reaches_processes_outside_the_group(tmp_path: Path) -> None:
    """Stopping ends the daemonised descendants too."""
    run = prepare(tmp_path / "r", DAEMONISE.format(file="daemon.pid") + "; sleep 300")
    begin(run)
    daemon = number_in(run / "daemon.pid")
    assert shim.stop(run)["reason"] == "stopped"
    assert shim.inspect(daemon) is None


def test_killed_shim_takes_the_command_along_and_the_run_is_lost(tmp_path: Path) -> None:
    """Without its shim a command dies, and no result of it can be mistaken for one."""
    run = prepare(tmp_path / "r", "sleep 300")
    state = begin(run)
    os.kill(state["shim_pid"], signal.SIGKILL)
    until(lambda: shim.inspect(state["pid"]) is None)
    assert shim.status(run)["phase"] == "lost"
    assert begin(run)["phase"] == "lost", "a lost run must not be executed again"


def test_leftovers_of_a_killed_shim_are_found_by_their_token(tmp_path: Path) -> None:
    """Stopping a lost run kills what escaped with the shim gone, and nobody else's processes."""
    run = prepare(tmp_path / "r", DAEMONISE.format(file="daemon.pid") + "; sleep 300")
    other = prepare(tmp_path / "other", "sleep 300")
    state, neighbour = begin(run), begin(other)
    daemon = number_in(run / "daemon.pid")
    os.kill(state["shim_pid"], signal.SIGKILL)
    until(lambda: shim.inspect(state["pid"]) is None)
    assert shim.inspect(daemon) is not None, "the test needs a survivor"
    assert shim.stop(run)["phase"] == "lost"
    until(lambda: shim.inspect(daemon) is None)
    assert shim.inspect(neighbour["pid"]) is not None
    shim.stop(other)


def test_another_boot_means_lost(tmp_path: Path) -> None:
    """A pid of an earlier boot is never taken for the run, even if a process has that pid now."""
    run = prepare(tmp_path / "r", "sleep 300")
    state = begin(run)
    claim = json.loads((run / "pid.json").read_text())
    shim.write_json(run / "pid.json", {**claim, "boot_id": "another"})
    assert shim.status(run)["phase"] == "lost"
    os.kill(state["shim_pid"], signal.SIGTERM)
    until(lambda: shim.status(run)["phase"] == "exited")


def test_reused_pid_is_not_the_run(tmp_path: Path) -> None:
    """A live process with the shim's pid but another start time is somebody else, and is not signalled."""
    run = prepare(tmp_path / "r", "true")
    begin(run)
    finish(run)
    (run / "exit.json").unlink()
    bystander = subprocess.Popen(["sleep", "300"])
    claim = json.loads((run / "pid.json").read_text())
    shim.write_json(run / "pid.json", {**claim, "shim_pid": bystander.pid, "pid": bystander.pid})
    assert shim.stop(run)["phase"] == "lost"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("attempt", range(4))
def test_starts_at_the_same_moment_execute_once(tmp_path: Path, attempt: int) -> None:
    """Eight starters let go together: one execution, and no starter is told of a failure."""
    run = prepare(tmp_path / "r", "echo ran >> ran.txt; sleep 0.2")
    argv = [sys.executable, "-I", "-S", SHIM, str(run)]
    starters = [subprocess.Popen(argv, stdin=subprocess.PIPE) for _ in range(8)]
    time.sleep(0.5)  # by now they wait for the end of their stdin; one that is late only weakens the test
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.close()
    assert [starter.wait(timeout=30) for starter in starters] == [0] * 8
    finish(run)
    assert begin(run)["phase"] == "exited"
    assert (run / "ran.txt").read_text() == "ran\n"


def test_secret_reaches_the_command_and_no_file(tmp_path: Path) -> None:
    """A secret is in the command's environment and nowhere in the run directory."""
    secret = "s3cr3t-" + os.urandom(8).hex()
    run = prepare(tmp_path / "r", 'test "$KEY" = "$(cat ../key)" && echo same', secrets=["KEY"])
    (tmp_path / "key").write_text(secret)
    begin(run, stdin=json.dumps({"KEY": secret}))
    assert finish(run)["exit_code"] == 0
    assert (run / "stdout.log").read_text() == "same\n"
    assert not [path for path in run.iterdir() if secret.encode() in path.read_bytes()]


ECHO = """
import os, sys, time
value = os.environ["API_KEY"]
os.write(1, b"env: " + value[:9].encode())
time.sleep(0.3)
os.write(1, value[9:].encode() + b" end\\n")
os.write(2, b"x" * 70_000 + value.encode() + b"y" * 70_000)
os.write(2, b"\\nkey:\\n" + os.environ["PEM"].encode() + b"\\nunknown: hf_" + b"A1b2" * 6 + b"\\r")
"""


def test_what_the_command_echoes_of_a_secret_never_reaches_a_file(tmp_path: Path) -> None:
    """A value printed in two writes, inside a line without an end, over several lines, or of a known shape."""
    value, pem = "very-secret-value-0123456789", "-----BEGIN KEY-----\nMIIEvAIBADANBgkq\n-----END KEY-----"
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    run = prepare(tmp_path / "r", f"{sys.executable} -B {script}", secrets=["API_KEY", "PEM"])
    begin(run, stdin=json.dumps({"API_KEY": value, "PEM": pem}))
    assert finish(run)["exit_code"] == 0
    kept = b"".join(path.read_bytes() for path in run.iterdir())
    assert (run / "stdout.log").read_text() == "env: [redacted:API_KEY] end\n"
    errors = (run / "stderr.log").read_text()
    assert errors.startswith("x" * 70_000 + "[redacted:API_KEY]" + "y" * 70_000 + "\nkey:\n[redacted:PEM]\n")
    assert errors.endswith("unknown: [redacted]\n"), "a carriage return ends a line too"
    assert value.encode() not in kept and b"MIIEvAIBADANBgkq" not in kept and b"A1b2A1b2" not in kept


def test_a_full_disk_does_not_stop_the_command(tmp_path: Path) -> None:
    """What does not fit is lost; the command is not kept waiting."""
    run = prepare(tmp_path / "r", "head -c 3000000 /dev/zero; echo done >&2")
    (run / "stdout.log").symlink_to("/dev/full")
    begin(run)
    assert finish(run)["exit_code"] == 0
    assert (run / "stderr.log").read_text() == "done\n"


@pytest.mark.parametrize("sent", ["", "{}", '{"KEY": "val'])
def test_starter_that_died_sending_secrets_leaves_the_run_startable(tmp_path: Path, sent: str) -> None:
    """Without every secret nothing is begun, and a later start succeeds."""
    run = prepare(tmp_path / "r", "echo $KEY", secrets=["KEY"])
    refused = call(run, stdin=sent)
    assert refused.returncode == 1 and "secrets" in refused.stderr and "Traceback" not in refused.stderr
    assert shim.status(run)["phase"] == "absent"
    begin(run, stdin='{"KEY": "value"}')
    assert finish(run)["exit_code"] == 0


def test_command_sees_the_listed_environment_only(tmp_path: Path) -> None:
    """Nothing of the starter's environment leaks into the command."""
    run = prepare(tmp_path / "r", "", argv=["env"], env={"PATH": os.environ["PATH"], "ONLY": "this"})
    begin(run)
    finish(run)
    names = {line.partition("=")[0] for line in (run / "stdout.log").read_text().splitlines()}
    assert names == {"PATH", "ONLY", shim.TOKEN_VARIABLE}


def test_command_inherits_no_blocked_or_ignored_signals(tmp_path: Path) -> None:
    """What the shim blocks and the interpreter ignores is back to normal for the command."""
    run = prepare(tmp_path / "r", "", argv=["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
    begin(run)
    finish(run)
    masks = [int(line.split()[1], 16) for line in (run / "stdout.log").read_text().splitlines()]
    assert [mask & ~LIBC_SIGNALS for mask in masks] == [0, 0]


def test_command_inherits_three_descriptors(tmp_path: Path) -> None:
    """Neither the lock nor a pipe of the shim is open in the command."""
    run = prepare(tmp_path / "r", "", argv=["ls", "/proc/self/fd"])
    begin(run)
    finish(run)
    assert (run / "stdout.log").read_text().split() == ["0", "1", "2", "3"], "ls itself opens the fourth"


def test_log_is_bounded_and_keeps_its_start_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runaway log does not fill the disk; the cut is marked."""
    monkeypatch.setattr(shim, "LOG_LIMIT_BYTES", 1000)
    log = tmp_path / "stdout.log"
    log.write_bytes(b"first\n" + b"x" * 2000)
    with log.open("ab") as writer:
        shim._limit_log(log)
        writer.write(b"last\n")
    text = log.read_bytes()
    assert text.startswith(b"first\n") and text.endswith(b"last\n") and len(text) < 700
    assert b"dropped here" in text


def test_bad_call_is_one_line(tmp_path: Path) -> None:
    """A directory without a spec, or a wrong word, is refused without a traceback."""
    missing = call(tmp_path)
    assert (missing.returncode, missing.stderr) == (1, f"{tmp_path} has no spec.json\n")
    assert call(tmp_path, "dance").returncode == 2


def test_syntax_is_that_of_python_3_8() -> None:
    """The file can be copied to hosts with an old Python."""
    ast.parse(Path(SHIM).read_text(), feature_version=(3, 8))


OLD_PYTHONS = [*Path.home().glob(".pyenv/versions/3.8.*/bin/python"), shutil.which("python3.8")]


@pytest.mark.skipif(not any(OLD_PYTHONS), reason="no Python 3.8 on this machine")
def test_old_python_runs_it(tmp_path: Path) -> None:
    """Python 3.8 executes a run from start to exit."""
    run = prepare(tmp_path / "r", "exit 4")
    begin(run, python=str(next(filter(None, OLD_PYTHONS))))
    assert finish(run)["exit_code"] == 4
