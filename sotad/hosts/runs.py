"""The run directories and the files by digest below one directory of the machine that this is executed on.

Standard library only, Python 3.8 or later, Linux: it is sent to other hosts (see `sotad.hosts.onhost`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping  # noqa: UP035 (in the words of Python 3.8)

from sotad import shim

FILES = "files"  # below a root: what was placed by digest; everything else there is runs
EVERYDAY = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
START_TIMEOUT_S = 60.0
POLL_S = (0.005, 0.2)  # the first and the longest pause between two looks
RESERVED = {"spec.json", "pid.json", "exit.json", "lock", "stop", "stdout.log", "stderr.log", "shim.log"}

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_RUN_ID_LENGTH = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")

Record = Dict[str, Any]  # noqa: UP006 (evaluated)


class HostError(Exception):
    """The host could not do what it was asked; the text says what, where, and what to do next."""


def check_run_id(run_id: str) -> str:
    """`run_id`, when it names a run's directory below a root and nothing else.

    Raises:
        HostError: it could lead elsewhere.
    """
    if len(run_id) > _RUN_ID_LENGTH or not _RUN_ID.fullmatch(run_id):
        raise HostError(
            f"{run_id!r} is no run id; use parts of letters, digits, '.', '_' and '-' joined by '/', "
            f"each beginning with a letter or digit, {_RUN_ID_LENGTH} characters at most"
        )
    if run_id.split("/")[0] == FILES:
        raise HostError(f"{run_id!r} is no run id: {FILES}/ holds what was placed by digest; choose another")
    return run_id


def allowed_environment(*names: str, source: Mapping[str, str] | None = None, **extra: str) -> dict[str, str]:
    """The everyday variables and `names` as they are in `source` (default: this process), and `extra`."""
    source = os.environ if source is None else source
    kept = {name: source[name] for name in (*EVERYDAY, *names) if name in source}
    return {**kept, **extra}


@contextlib.contextmanager
def complaining(what: str, where: Path) -> Iterator[None]:
    """Turns an OSError into a HostError that says `what` failed, where (at best), and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        then = "free some space there" if full else "check that the directory is writable"
        raise HostError(f"{what}: {error.strerror} {error.filename or where}; {then}") from error


class Root:
    """The runs and files below one directory of this machine. Nothing is kept in memory.

    `shim_command` starts the shim; the run's directory is added to it.
    """

    def __init__(self, path: Path, shim_command: tuple[str, ...]) -> None:
        self.path = path
        self._shim_command = shim_command

    # ------------------------------------------------------------------------- runs

    def directory(self, run_id: str) -> Path:
        """Raises: HostError for an id that could lead out of the root."""
        return self.path / check_run_id(run_id)

    def put(self, run_id: str, name: str, data: bytes) -> None:
        """File `name` of the run holds `data`; repeating the same is fine at any time.

        Raises:
            HostError: the name is taken or no plain name, the run was started, or the disk refuses.
        """
        directory = self.directory(run_id)
        if name in RESERVED or not _plain(name):
            raise HostError(f"{name!r} cannot be put into run {run_id}; choose a plain name of your own")
        with complaining(f"cannot put {name} into run {run_id}", directory):
            if (directory / "spec.json").exists():
                _require_same(directory / name, data, run_id)
            else:
                self._make_directory(run_id)
                shim.write_atomically(directory / name, data)

    def start(self, run_id: str, spec: Record, secrets: Mapping[str, str]) -> Record:
        """The run was begun exactly once, by this call or an earlier one with the same spec.

        Raises:
            HostError: another spec has this id, or nothing could be begun.
        """
        directory = self.directory(run_id)
        with complaining(f"cannot prepare run {run_id}", directory):
            self._make_directory(run_id)
            _claim_spec(directory / "spec.json", spec)
        if self.status(run_id)["phase"] == "absent":
            self._spawn_shim(run_id, directory, secrets)
        state = self.status(run_id)
        if state["phase"] == "absent":
            raise HostError(f"run {run_id} did not begin; see {directory}/shim.log, then start it again")
        return state

    def status(self, run_id: str) -> Record:
        """Where the run stands now."""
        with complaining(f"cannot look at run {run_id}", self.path):
            return shim.status(self.directory(run_id))

    def wait(self, run_id: str, timeout_s: float) -> Record:
        """Where the run stands once it is over, or after `timeout_s` seconds."""
        pause, longest = POLL_S
        deadline = time.monotonic() + timeout_s
        while True:
            state = self.status(run_id)
            left = deadline - time.monotonic()
            if state["phase"] in ("absent", "exited", "lost") or left <= 0:
                return state
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)

    def stop(self, run_id: str) -> Record:
        """Where the run stands after it and everything it started was ended; a run that is over stays."""
        with complaining(f"cannot stop run {run_id}", self.path):
            return shim.stop(self.directory(run_id))

    def read(self, run_id: str, name: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of file `name` of the run, from byte `offset`.

        Raises:
            HostError: there is no such file in the run's directory.
        """
        directory = self.directory(run_id).resolve()
        path = (directory / name).resolve()
        if directory not in path.parents or not path.is_file():
            raise HostError(f"run {run_id} has no file {name!r}; see {directory}")
        with complaining(f"cannot read {name} of run {run_id}", path), path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)

    def processes(self, run_id: str) -> list[int]:
        """The pids of the run's command and of everything below it; none when it is not running.

        What it has a container's runtime start is below that runtime, and is told by the run's token.
        """
        state = self.status(run_id)
        if state["phase"] != "running":
            return []
        own = [*shim.descendants(state["shim_pid"]), *shim.marked(state["token"])]
        return list(dict.fromkeys(process.pid for process in own))

    def list_runs(self, prefix: str) -> list[str]:
        """The ids, sorted, of the runs that were ever asked for and begin with `prefix`."""
        return sorted(run_id for run_id in self._runs(prefix) if run_id.startswith(prefix))

    # ------------------------------------------------------------------------ files

    def place(self, name: str, sha256: str, data: bytes | None = None) -> str | None:
        """Where file `name` with this content lies; None when it has to be sent first.

        Raises:
            HostError: `data` is not what `sha256` says, the name is no plain one, or the disk refuses.
        """
        if not _plain(name):
            raise HostError(f"{name!r} is no plain file name; place it under another")
        path = self._files(sha256) / name
        with complaining(f"cannot place {name}", path):
            held = self._held(sha256)
            if path in held:
                return str(path)
            data = held[0].read_bytes() if held else data
            if data is None:
                return None
            if hashlib.sha256(data).hexdigest() != sha256:
                raise HostError(f"{name} did not arrive as it was sent; send it again")
            path.parent.mkdir(parents=True, exist_ok=True)
            shim.write_atomically(path, data)
        return str(path)

    def holds(self, sha256: str) -> bool:
        """Whether a file with this content was placed, and still is what it was."""
        with complaining(f"cannot look for {sha256}", self.path):
            return bool(self._held(sha256))

    def _held(self, sha256: str) -> list[Path]:
        """The placed files, sorted, whose content has this digest now."""
        folder = self._files(sha256)
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [path for path in found if path.is_file() and _digest(path) == sha256]

    def _files(self, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise HostError(f"{sha256!r} is no SHA-256; give 64 lower-case hexadecimal digits")
        return self.path / FILES / sha256

    # ---------------------------------------------------------------------- details

    def _runs(self, prefix: str) -> Iterator[str]:
        """Those below the directory that a prefix leads into."""
        for directory, subdirectories, files in os.walk(str(self.path / prefix.rpartition("/")[0])):
            if Path(directory) == self.path and FILES in subdirectories:
                subdirectories.remove(FILES)
            if "spec.json" in files:
                subdirectories.clear()  # runs do not nest
                yield str(Path(directory).relative_to(self.path))

    def _make_directory(self, run_id: str) -> None:
        directory = self.directory(run_id)
        for parent in directory.relative_to(self.path).parents:
            if (self.path / parent / "spec.json").exists():
                raise HostError(f"run {run_id} would lie inside run {parent}; choose another id")
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        shim.sync_directory(directory.parent)

    def _spawn_shim(self, run_id: str, directory: Path, secrets: Mapping[str, str]) -> None:
        """Returns once the run was begun, or was found to be somebody else's already.

        Raises:
            HostError: no run was begun.
        """
        try:
            done = subprocess.run(
                [*self._shim_command, str(directory)],
                input=json.dumps(dict(secrets)).encode(),
                capture_output=True,
                start_new_session=True,
                env=allowed_environment("LD_LIBRARY_PATH"),
                timeout=START_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(f"cannot start the shim of run {run_id}: {error}; start it again") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise HostError(f"cannot begin run {run_id}: {said}; remove the cause and start it again")


def _plain(name: str) -> bool:
    return "/" not in name and "\0" not in name and name[:1] not in ("", ".")


def _digest(path: Path) -> str:
    known = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            known.update(piece)
    return known.hexdigest()


def _claim_spec(path: Path, spec: Record) -> None:
    """`path` holds `spec` for good: whoever comes first decides."""
    wanted = json.dumps(spec, sort_keys=True).encode()
    draft = path.with_name(f".spec.{os.getpid()}.{time.monotonic_ns()}")
    try:
        shim.write_atomically(draft, wanted)
        os.link(str(draft), str(path))
    except FileExistsError:
        if path.read_bytes() != wanted:
            raise HostError(f"{path.parent} belongs to another command; choose another run id") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    shim.sync_directory(path.parent)


def _require_same(path: Path, data: bytes, run_id: str) -> None:
    if not path.exists() or path.read_bytes() != data:
        raise HostError(f"run {run_id} was started already; put {path.name} before that, or use another id")
