"""Run one command in a run directory, outlive whoever asked, and write down how it ended.

    python shim.py RUN_DIR           start `RUN_DIR/spec.json`, at most once however often it is asked;
                                     the secrets that the spec names arrive as a JSON object on stdin
    python shim.py RUN_DIR status    print where the run stands, as JSON
    python shim.py RUN_DIR stop      end the run and everything it started, then print where it stands

One file, standard library only, Python 3.8 or later, Linux: it is copied to the hosts that it works on.

    spec.json    argv, cwd, env, secrets (names only), timeout_s, grace_s     written by the host
    lock         held (flock) by the shim for as long as it lives
    pid.json     who runs: pid, start_ticks, pgid, shim_pid, shim_start_ticks, boot_id, token, started_ns
    stdout.log, stderr.log       what it printed, without the secrets and what else looks like a token
    shim.log
    stop         exists once somebody asked the run to end
    exit.json    how it ended; written once, last

The command is executed only after `pid.json` is durable, and never when a `pid.json` is already there: a
run that was begun is not begun again, whoever died in between. The command dies with the shim
(PR_SET_PDEATHSIG); what it leaves behind is handed to the shim (PR_SET_CHILD_SUBREAPER) and ended by it.
Every process of the run carries `SOTAD_RUN=token` in its environment, so that leftovers of a shim that was
killed can be told from other people's processes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import re
import resource
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, NamedTuple  # noqa: UP035

LOG_LIMIT_BYTES = 256 * 2**20
TICK_S = 0.5  # how often the shim looks for the stop file and at the size of the logs
KILL_WAIT_S = 5.0  # after SIGKILL, a process that still exists is stuck in the kernel
TOKEN_VARIABLE = "SOTAD_RUN"
SHARED_MEMORY = Path("/dev/shm")
WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
TOKEN_SHAPES = (
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abp]-[A-Za-z0-9-]{10,}"
    r"|AKIA[0-9A-Z]{16}|Bearer [A-Za-z0-9._~+/=-]{16,})"
)
SHORTEST_SECRET = 8  # shorter values occur in text by chance
LONGEST_LINE = 2**16  # bytes that are held back while a line has no end
LONGEST_SECRET = 2**13
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

Record = Dict[str, Any]  # noqa: UP006 (evaluated, so in the words of Python 3.8)


# ------------------------------------------------------------------------------ files


def read_json(path: Path) -> Record | None:
    """The record in `path`, or None when there is no such file."""
    try:
        record: Record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return record


def write_atomically(path: Path, data: bytes) -> None:
    """`path` holds either what it held before or all of `data`, also after a power cut."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:  # a full disk should not be filled with what did not fit
        if draft.exists():
            draft.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Names created in or renamed into directory `path` survive a power cut."""
    descriptor = os.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, record: Record) -> None:
    write_atomically(path, json.dumps(record, sort_keys=True).encode())


def is_locked(run_dir: Path) -> bool:
    """Whether a shim holds the run's lock at this moment."""
    try:
        descriptor = os.open(str(run_dir / "lock"), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# -------------------------------------------------------------------------- processes


class Process(NamedTuple):
    """The part of /proc/PID/stat (proc_pid_stat(5)) that identifies a process."""

    pid: int
    command: str
    state: str
    parent: int
    start_ticks: int


def inspect(pid: int) -> Process | None:
    """The live process `pid`, or None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = text.rpartition(")")  # the command name may itself hold parentheses and spaces
    fields = tail.split()
    process = Process(pid, head.partition("(")[2], fields[0], int(fields[1]), int(fields[19]))
    return None if process.state in "ZX" else process


def live_processes() -> list[Process]:
    found = (inspect(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208
    return [process for process in found if process is not None]


def descendants(root: int) -> list[Process]:
    """Every live process below `root`, children before grandchildren."""
    children: dict[int, list[Process]] = {}
    for process in live_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    frontier = [root]
    while frontier:
        below = children.get(frontier.pop(), [])
        found += below
        frontier += [process.pid for process in below]
    return found


def marked(token: str) -> list[Process]:
    """Every live process that was started with `token` in its environment."""
    mark = f"{TOKEN_VARIABLE}={token}".encode()
    return [process for process in live_processes() if mark in _environment(process.pid)]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def shared_memory(processes: list[Process]) -> set[tuple[str, str]]:
    """Shared memory and semaphores (shm_overview(7)) that processes have mapped, each by device and inode.

    Not by name: glibc makes a semaphore under a passing name, and that is the one that its maker's map goes on to show.
    """
    found = set()
    for process in processes:
        for line in _maps(process.pid):
            fields = line.split(None, 5)  # address, permissions, offset, device, inode, path
            if len(fields) == 6 and Path(fields[5]).parent == SHARED_MEMORY:
                found.add((fields[3], fields[4]))
    return found


def _maps(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/maps").read_bytes().decode("utf-8", "replace").splitlines()
    except OSError:  # gone, or another user's
        return []


def shared_names() -> set[str]:
    try:
        return set(os.listdir(str(SHARED_MEMORY)))  # noqa: PTH208
    except OSError:  # there is none
        return set()


def unlink_unused(mapped: set[tuple[str, str]], others: set[str]) -> list[str]:
    """Of what an ended run had mapped, remove what nobody uses and is none of `others`; return the names."""
    unused = mapped - shared_memory(live_processes()) if mapped else set()
    removed = []
    for name in sorted(shared_names() - others) if unused else []:
        try:
            found = (SHARED_MEMORY / name).stat()
            if (f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}", str(found.st_ino)) in unused:
                (SHARED_MEMORY / name).unlink()
                removed.append(name)
        except OSError:  # gone already, or another user's
            pass
    return removed


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def prctl(option: int, value: int) -> None:
    """Raises: OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


# ------------------------------------------------------- asking about a run, ending it


def status(run_dir: Path) -> Record:
    """Where the run stands: `phase` (absent, starting, running, exited, lost) and its records."""
    claim, ended = read_json(run_dir / "pid.json"), read_json(run_dir / "exit.json")
    if ended is not None:
        return {**(claim or {}), **ended, "phase": "exited"}
    if claim is None:
        return {"phase": "starting" if is_locked(run_dir) else "absent"}
    same_boot = claim["boot_id"] == boot_id()
    shim = inspect(claim["shim_pid"]) if same_boot else None
    if shim is not None and shim.start_ticks == claim["shim_start_ticks"]:
        return {**claim, "phase": "running"}
    ended = read_json(run_dir / "exit.json")  # it may have ended between the two looks
    if ended is not None:
        return {**claim, **ended, "phase": "exited"}
    cause = "its shim was killed" if same_boot else f"{platform.node()} was booted again since it began"
    return {**claim, "phase": "lost", "message": f"{cause}; its results are not to be used: start another run"}


def stop(run_dir: Path) -> Record:
    """Where the run stands once it, and what it started, was ended.

    A run that is absent or over stays as it is. Leftovers of a lost run are killed, by their token.
    """
    state = status(run_dir)
    if state["phase"] in ("starting", "running"):
        (run_dir / "stop").touch()
        patience = (read_json(run_dir / "spec.json") or {}).get("grace_s", 0) + 2 * KILL_WAIT_S + 10 * TICK_S
        state = _await_end(run_dir, time.monotonic() + patience)
    if state["phase"] == "lost" and state["boot_id"] == boot_id():
        _sweep(state["token"])
    return state


def _await_end(run_dir: Path, deadline: float) -> Record:
    signalled = False
    while True:
        state = status(run_dir)
        if state["phase"] not in ("starting", "running") or time.monotonic() >= deadline:
            return state
        if state["phase"] == "running" and not signalled:
            send(state["shim_pid"], signal.SIGTERM)  # only wakes it: the stop file is the request
            signalled = True
        time.sleep(0.01)


def _sweep(token: str) -> None:
    deadline = time.monotonic() + KILL_WAIT_S
    while time.monotonic() < deadline:
        left = marked(token)
        if not left:
            return
        for process in left:
            send(process.pid, signal.SIGKILL)
        time.sleep(0.01)


# ------------------------------------------------------------------------ the shim


class Scrubber:
    """Takes secrets out of bytes before they touch a disk."""

    def __init__(self, secrets: dict[str, str]) -> None:
        parts = ((part.encode(), name) for name, value in secrets.items() for part in value.splitlines())
        known = [(part, name) for part, name in parts if len(part) >= SHORTEST_SECRET]
        self._secrets = sorted(known, key=lambda each: len(each[0]), reverse=True)
        self._shapes = re.compile(TOKEN_SHAPES.encode())

    def clean(self, data: bytes) -> bytes:
        for secret, name in self._secrets:
            data = data.replace(secret, b"[redacted:%s]" % name.encode())
        return self._shapes.sub(b"[redacted]", data)


class LogCopier(threading.Thread):
    """Copies one output of the command into its log, whole lines at a time, scrubbed."""

    def __init__(self, source: int, log: Path, scrubber: Scrubber) -> None:
        super().__init__(name=log.name, daemon=True)
        self._source, self._log, self._scrubber = source, log, scrubber

    def run(self) -> None:
        held = b""
        while True:
            data = os.read(self._source, LONGEST_LINE)
            held += data
            ends = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
            if not data:
                ends = len(held)
            elif not ends and len(held) > LONGEST_LINE:  # no line: a token may be cut off at the end only
                held = self._scrubber.clean(held)
                ends = len(held) - LONGEST_SECRET
            self._write(self._scrubber.clean(held[:ends]))
            held = held[ends:]
            if not data:
                return os.close(self._source)

    def _write(self, data: bytes) -> None:
        """What does not fit on the disk is lost: the command must not wait for it."""
        try:
            if data:
                with self._log.open("ab") as log:
                    log.write(data)
                _limit_log(self._log)
        except OSError:
            pass


class Run:
    """One execution: the shim's side of a run directory."""

    def __init__(self, directory: Path, spec: Record, secrets: dict[str, str]) -> None:
        self.directory = directory
        self.spec = spec
        self.token = os.urandom(16).hex()
        self.env = {**spec["env"], **secrets, TOKEN_VARIABLE: self.token}
        self.scrubber = Scrubber(secrets)
        self.copiers: list[LogCopier] = []
        self.child = 0
        self.wait_status: int | None = None
        self.started_ns = 0
        self.deadline = 0.0
        self.unlinked: list[str] = []
        self.others = shared_names()

    def launch(self) -> str | None:
        """The command runs and `pid.json` says so; else the reason why it could not be executed."""
        go_read, go_write = os.pipe()
        error_read, error_write = os.pipe()
        outputs = {name: os.pipe() for name in ("stdout.log", "stderr.log")}
        self.child = os.fork()
        if self.child == 0:
            os.close(go_write)
            self._become_command(go_read, error_write, [write for _, write in outputs.values()])
        for descriptor in (go_read, error_write, *(write for _, write in outputs.values())):
            os.close(descriptor)
        self._copy_logs({name: read for name, (read, _) in outputs.items()})
        self.started_ns = time.time_ns()
        self.deadline = time.monotonic() + self.spec["timeout_s"]
        write_json(self.directory / "pid.json", self._claim())
        os.write(go_write, b"!")
        os.close(go_write)
        return self._refusal(error_read)

    def _refusal(self, errors: int) -> str | None:
        """Why the command could not be executed; None once it is, or when its end is due while it is still on the way.

        A file system that does not answer can keep it there, and must not keep the shim from ending it.
        """
        try:
            while not select.select([errors], [], [], TICK_S)[0]:
                asked = (self.directory / "stop").exists() or signal.SIGTERM in signal.sigpending()
                if asked or time.monotonic() >= self.deadline:
                    return None
            return os.read(errors, LONGEST_LINE).decode("utf-8", "replace") or None
        finally:
            os.close(errors)

    def _claim(self) -> Record:
        child, shim = inspect(self.child), inspect(os.getpid())
        if child is None or shim is None:
            raise RuntimeError("the command's process died before it was executed")
        return {
            "pid": self.child,
            "start_ticks": child.start_ticks,
            "pgid": self.child,
            "shim_pid": shim.pid,
            "shim_start_ticks": shim.start_ticks,
            "boot_id": boot_id(),
            "token": self.token,
            "started_ns": self.started_ns,
        }

    def _copy_logs(self, sources: dict[str, int]) -> None:
        for name, source in sources.items():
            log = self.directory / name
            log.touch(0o644)
            self.copiers.append(LogCopier(source, log, self.scrubber))
            self.copiers[-1].start()

    def _become_command(self, go: int, errors: int, outputs: list[int]) -> None:
        """Runs in the forked child; waits for `go`, so that no command runs that no `pid.json` names."""
        argv, cwd = self.spec["argv"], self.spec["cwd"]
        what = "cannot prepare"
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.read(go, 1) != b"!":
                os._exit(127)  # the shim is gone
            os.setsid()
            for descriptor, output in enumerate(outputs, start=1):
                os.dup2(output, descriptor)
            what = f"cannot enter the working directory {cwd}"
            os.chdir(cwd)
            what = f"cannot execute {argv[0]} (PATH={self.env.get('PATH', '')})"
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            for number in signal.valid_signals():  # by the interpreter, or by whoever put the daemon into background
                if signal.getsignal(number) == signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            os.execvpe(argv[0], argv, self.env)
        except BaseException as error:
            reason = error.strerror if isinstance(error, OSError) else repr(error)
            os.write(errors, f"{what}: {reason}".encode("utf-8", "replace"))
        finally:
            os._exit(127)

    def supervise(self) -> str:
        """Why it is over: exited, stopped or timeout."""
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            event = signal.sigtimedwait(WATCHED, min(TICK_S, left))
            self._reap()
            if self.wait_status is not None:
                return "exited"
            if (event and event.si_signo == signal.SIGTERM) or (self.directory / "stop").exists():
                return "stopped"

    def end_all(self) -> list[Process]:
        """No process of the run is left, except the returned ones, which even SIGKILL did not end."""
        mapped = shared_memory(descendants(os.getpid()))
        stuck = self._end_processes()
        self.unlinked = unlink_unused(mapped, self.others)
        for copier in self.copiers:
            copier.join(KILL_WAIT_S)  # to the end of what was printed, unless somebody still holds the output
        return stuck

    def _end_processes(self) -> list[Process]:
        self._signal_all(signal.SIGTERM)
        if self._await_none(self.spec["grace_s"]):
            return []
        deadline = time.monotonic() + KILL_WAIT_S
        while time.monotonic() < deadline:  # again and again: they may fork while they are being killed
            self._signal_all(signal.SIGKILL)
            if self._await_none(0.05):
                return []
        return descendants(os.getpid())

    def _signal_all(self, number: int) -> None:
        if self.wait_status is None:  # not reaped, so the group is surely ours
            try:
                os.killpg(self.child, number)
            except ProcessLookupError:  # it has not called setsid yet
                send(self.child, number)
        for process in descendants(os.getpid()):
            send(process.pid, number)

    def _await_none(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while True:
            self._reap()
            if self.wait_status is not None and not descendants(os.getpid()):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            signal.sigtimedwait({signal.SIGCHLD}, min(left, 0.05))

    def _reap(self) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.wait_status = wait_status

    def outcome(self, reason: str, message: str | None, leftovers: list[Process], stuck: list[Process]) -> Record:
        """The content of `exit.json`; cpu_s and max_rss_bytes cover every process that was waited for."""
        state = self.wait_status
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "reason": reason,
            "message": message,
            "exit_code": os.WEXITSTATUS(state) if state is not None and os.WIFEXITED(state) else None,
            "signal": os.WTERMSIG(state) if state is not None and os.WIFSIGNALED(state) else None,
            "started_ns": self.started_ns,
            "ended_ns": time.time_ns(),
            "leftovers": [{"pid": each.pid, "command": each.command} for each in leftovers],
            "survivors": [{"pid": each.pid, "command": each.command} for each in stuck],
            "shared_memory": self.unlinked,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "max_rss_bytes": usage.ru_maxrss * 1024,
        }


def _open_log(path: Path) -> int:
    return os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _limit_log(path: Path) -> None:
    """Drops the newest half of a log that grew beyond the limit; its start and what follows are kept."""
    try:
        if path.stat().st_size <= LOG_LIMIT_BYTES:
            return
        with path.open("r+b") as log:
            log.truncate(LOG_LIMIT_BYTES // 2)
        with path.open("ab") as log:
            log.write(b"\n[the log grew beyond %d bytes: a part was dropped here]\n" % LOG_LIMIT_BYTES)
    except OSError:
        return


def _acquire(run_dir: Path) -> bool:
    """The run is this process's to execute, until it dies; False when somebody has begun it already."""
    descriptor = os.open(str(run_dir / "lock"), os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:  # another shim, or somebody who only asked for the status
            if (run_dir / "pid.json").exists() or time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
    return not any((run_dir / name).exists() for name in ("pid.json", "exit.json"))


def execute(run: Run, started: int) -> None:
    """Holds the run from its claim to its `exit.json`; tells `started` once the claim is durable."""
    if not _acquire(run.directory):
        return
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    failure = run.launch()
    if failure is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), started, inheritable=False)  # the starter reads its end
        reason = run.supervise()
    else:
        reason = "failed_to_start"
    leftovers = descendants(os.getpid()) if run.wait_status is not None else []
    stuck = run.end_all()
    record = run.outcome(reason, failure, leftovers, stuck)
    if failure is not None:
        record["exit_code"] = None  # the 127 is the shim's own
    _write_patiently(run.directory / "exit.json", record)


def _write_patiently(path: Path, record: Record) -> None:
    """A full disk is waited out for ten minutes: until then the run counts as running, not as lost."""
    deadline = time.monotonic() + 600.0
    while True:
        try:
            return write_json(path, record)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() >= deadline:
                raise
            time.sleep(1.0)


def start(run_dir: Path, secrets: dict[str, str]) -> int:
    """The run has begun, by this call or another one, in a process that no longer belongs to the caller.

    Returns 0, or 1 after saying on stderr why nothing was begun.
    """
    spec = read_json(run_dir / "spec.json")
    if spec is None:
        return _refuse(f"{run_dir} has no spec.json")
    missing: set[str] = set(spec["secrets"]) - set(secrets)
    if missing:  # also when the starter died while it was sending them
        return _refuse(f"no value arrived for the secrets {', '.join(sorted(missing))}")
    ready_read, ready_write = os.pipe()
    if os.fork() == 0:
        os.close(ready_read)
        _detach(Run(run_dir, spec, secrets), ready_write)
    os.close(ready_write)
    with os.fdopen(ready_read, "rb") as ready:
        complaint = ready.read().decode("utf-8", "replace")
    return _refuse(complaint) if complaint else 0


def _detach(run: Run, ready: int) -> None:
    """Runs in the process that stays; what goes wrong before the command runs is told through `ready`."""
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for source, target in ((null, 0), (null, 1), (_open_log(run.directory / "shim.log"), 2)):
            os.dup2(source, target)
        execute(run, ready)
    except BaseException as error:
        print(f"shim: {error!r}", file=sys.stderr, flush=True)
        os.write(ready, str(error).encode("utf-8", "replace"))
        os._exit(1)
    os._exit(0)


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def main(argv: list[str]) -> int:
    if len(argv) not in (1, 2) or argv[1:] not in ([], ["start"], ["status"], ["stop"]):
        print("usage: shim.py RUN_DIR [start|status|stop]", file=sys.stderr)
        return 2
    run_dir = Path(argv[0]).absolute()
    if argv[1:] in (["status"], ["stop"]):
        print(json.dumps((status if argv[1] == "status" else stop)(run_dir)))
        return 0
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    try:
        secrets = json.loads(text or "{}")
    except ValueError:  # the starter died half-way
        return _refuse("the secrets on stdin are not a complete JSON object")
    return start(run_dir, secrets)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
