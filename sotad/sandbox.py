"""Run a command within bounds: confined, for an agent, or guarded, for an engine that runs what an agent wrote.

    python -I -S sandbox.py '{"writable": [...], "readable": [...], "hidden": [...]}' -- COMMAND ...
    python -I -S sandbox.py '{..., "protected": [...]}' -- COMMAND ...

One file, standard library only, no privileges needed. The kernel keeps the boundary (Landlock, landlock(7)), every
child inherits it and nobody can take it off. Confined, a command can write to a few folders only, and cannot read,
signal or reach what is not its own:

- files are written, made, renamed, linked and removed below ``writable`` only: its TMPDIR has to lie there, too;
  everything is readable but the ``hidden`` trees, except for what of them is ``writable`` or ``readable``. Folders
  that a hidden tree lies in cannot be listed, and of devices only harmless ones, shared memory and GPUs are there;
- signals and ptrace reach its own processes only (signals from Linux 6.12 on);
- no setuid program helps, and root is no more than the owner of its files;
- a seccomp filter refuses Unix sockets (the daemon's, Docker's and systemd's would lead out of here), io_uring, which
  goes past such filters, and limits set on others. Pairs of sockets between own processes are fine.

Guarded, with ``protected``, it does what it likes but for this: ``hidden`` trees are neither read nor written,
``protected`` ones not written, apart from what of them is ``writable`` or ``readable``; nothing new is made directly
in a folder that holds such a tree; disks are no devices for it; signals and ptrace reach its own processes only.
Sockets, shared memory, GPUs, io_uring and capabilities are as before.

Not covered: mode, owner and times of files outside, TCP, how processes of the same user are scheduled, and when
guarded the Unix sockets of others: who listens there has to ask who calls.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LEAST_ABI = 3  # Linux 6.2: before, files could be cut short everywhere
SIGNALS_ABI = 6  # Linux 6.12

# linux/landlock.h
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
MAKE_DEVICE = 1 << 6 | 1 << 11
RIGHTS = {3: (1 << 15) - 1, 5: (1 << 16) - 1}  # what each version of the interface can refuse
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1
READ = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

# linux/prctl.h, linux/securebits.h, linux/seccomp.h, linux/capability.h
PR_SET_SECCOMP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 22, 28, 38
NOROOT, NOROOT_LOCKED, SECCOMP_MODE_FILTER, SETPCAP = 1, 2, 2, 1 << 8
ERRNO, ALLOW = 0x0005_0000, 0x7FFF_0000
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF
AF_UNIX, X32, IO_URING_SETUP = 1, 0x4000_0000, 425
CALLS = {"x86_64": (0xC000_003E, 41, 302), "aarch64": (0xC000_00B7, 198, 261)}  # audit arch, socket, prlimit64

CACHES = (".cache", ".config", ".deep_gemm", ".flashinfer", ".local/share", ".nv", ".tilelang", ".triton")
"""Folders of a home that engines make when they are missing."""

DEV = Path("/dev")
MEMORY = ("mem", "kmem", "port")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "nvidia*", "dri", "kfd")
USAGE = "usage: sandbox.py LIMITS -- COMMAND ..."


Limits = dict[str, list[str]]


class Refused(Exception):
    """The command cannot be confined or guarded as asked; the text says why."""


def abi() -> int:
    """The version of the kernel's Landlock interface; 0 without one."""
    found: int = ctypes.CDLL(None).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(0, found)


def available() -> str:
    """An empty text, or why commands cannot be confined here."""
    if sys.platform != "linux":
        return f"Landlock is a part of Linux, this is {sys.platform}"
    if os.uname().machine not in CALLS:
        return f"the numbers of system calls on {os.uname().machine} are not known here"
    found = abi()
    if found == 0:
        return "the kernel has no Landlock, or it is switched off: boot Linux 6.2 or later with lsm=landlock,..."
    if found < LEAST_ABI:
        return f"Landlock {found} of this kernel lets files be cut short: boot Linux 6.2 or later"
    if _capabilities("CapBnd") and os.geteuid() == 0 and not _capabilities("CapEff") & SETPCAP:
        return "root without CAP_SETPCAP cannot give up its other capabilities: run as another user"
    return ""


def _capabilities(which: str) -> int:
    """A set of this process, as proc_pid_status(5) names it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith(f"{which}:"))


def confined(
    argv: Sequence[str], *, writable: Sequence[Path], hidden: Sequence[Path], readable: Sequence[Path] = ()
) -> tuple[str, ...]:
    """The argv that runs ``argv`` so that it writes below ``writable`` only and sees nothing of ``hidden``.

    What is below ``writable`` or ``readable`` is seen although it is hidden. The folders must be there when the
    command starts. It exits as the command does, with 126 when it cannot be confined and 127 when it cannot start.

    Raises:
        ValueError: a hidden tree lies below a folder that is to be seen.
    """
    return _within({"writable": writable, "readable": readable, "hidden": hidden}, argv)


def guarded(
    argv: Sequence[str],
    *,
    hidden: Sequence[Path],
    protected: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    readable: Sequence[Path] = (),
) -> tuple[str, ...]:
    """The argv that runs ``argv`` so that it sees nothing of ``hidden`` and changes nothing of ``protected``.

    All else is as without it, see above. What is below ``writable`` or ``readable`` is an exception, and must be
    there when the command starts; what is hidden or protected need not be there. Where the folder for temporary
    files holds one of these trees, TMPDIR is a folder in it of the user's own. Exit codes are as of :func:`confined`.

    Raises:
        ValueError: a hidden tree lies below a folder that is to be seen, or a protected one below a writable one.
    """
    limits = {"writable": writable, "readable": readable, "hidden": hidden, "protected": protected}
    return _within(limits, argv)


def _within(limits: dict[str, Sequence[Path]], argv: Sequence[str]) -> tuple[str, ...]:
    real = json.dumps(resolved(limits), sort_keys=True)
    return (sys.executable, "-I", "-S", str(Path(__file__).resolve()), real, "--", *argv)


def resolved(limits: Mapping[str, Sequence[Path]]) -> Limits:
    """Limits by the real paths of this machine.

    Raises:
        ValueError: a hidden tree lies below a folder that is to be seen, or a protected one below a writable one.
    """
    real = {name: sorted({str(path.resolve()) for path in paths}) for name, paths in limits.items()}
    for way, apart, what in (
        ("writable", "hidden", "stay hidden"),
        ("readable", "hidden", "stay hidden"),
        ("writable", "protected", "stay as it is"),
    ):
        for seen in real[way]:
            for tree in real.get(apart, []):
                if Path(tree).is_relative_to(seen):
                    raise ValueError(f"{seen} holds {tree}, which is to {what}: name folders that do not")
    return real


def is_confined(argv: Sequence[str]) -> bool:
    """Whether a command is one that :func:`confined` made, or :func:`guarded`."""
    return list(argv[1:4]) == ["-I", "-S", str(Path(__file__).resolve())]


# --- files ---------------------------------------------------------------------------------------------------


def trees(root: str, without: Sequence[Path]) -> Iterator[str]:
    """The largest trees below ``root`` that hold none of ``without``; links are left to where they lead."""
    gone = {str(path) for path in without}
    yield from _walk(root, gone, {str(parent) for path in without for parent in path.parents} - gone)


def _walk(root: str, gone: set[str], opened: set[str]) -> Iterator[str]:
    if root not in opened:
        if root not in gone:
            yield root
        return
    try:
        entries = list(os.scandir(root))
    except OSError:  # gone, or not ours to read
        return
    for entry in entries:
        if not entry.is_symlink():
            yield from _walk(entry.path, gone, opened)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int, *, follow: bool = False) -> None:
    """Raises: OSError for a path that is not there."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= OF_FILES
        _call(libc, ADD_RULE, ruleset, ctypes.c_uint(1), struct.pack("=Qi", rights, descriptor), ctypes.c_uint(0))
    finally:
        os.close(descriptor)


def _allow_trees(libc: ctypes.CDLL, ruleset: int, rights: dict[str, int]) -> None:
    """What is gone meanwhile, or not ours, stays refused."""
    for path, allowed in rights.items():
        try:
            _allow(libc, ruleset, path, allowed)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ELOOP):
                raise


def _ruleset(libc: ctypes.CDLL, handled: int, scoped: int) -> int:
    asked = struct.pack("=QQQ", handled, 0, scoped)[: 24 if scoped else 8]
    return _call(libc, CREATE_RULESET, asked, ctypes.c_size_t(len(asked)), ctypes.c_uint(0))


def _confine_files(libc: ctypes.CDLL, limits: Limits) -> None:
    version = abi()
    handled = RIGHTS[5 if version >= 5 else 3]
    ruleset = _ruleset(libc, handled, ABSTRACT_SOCKETS | SIGNALS if version >= SIGNALS_ABI else 0)
    _allow_trees(libc, ruleset, dict.fromkeys(trees("/", [DEV, *_there(limits["hidden"])]), READ))
    for pattern in DEVICES:
        for device in DEV.glob(pattern):
            _allow(libc, ruleset, str(device), handled & ~MAKE_DEVICE, follow=True)
    _enforce(libc, ruleset, limits, handled)


def _guard_files(libc: ctypes.CDLL, limits: Limits) -> None:
    handled = RIGHTS[3]  # what GPUs are told by ioctl is not looked at
    ruleset = _ruleset(libc, handled, SIGNALS if abi() >= SIGNALS_ABI else 0)
    hidden = [DEV, *_there(limits["hidden"])]
    seen = dict.fromkeys(trees("/", hidden), READ)
    free = [*trees("/", [*hidden, *_there(limits["protected"])]), *_harmless_devices()]
    _allow_trees(libc, ruleset, {**seen, **dict.fromkeys(free, handled & ~MAKE_DEVICE), str(DEV): READ_DIR})
    _enforce(libc, ruleset, limits, handled)


def _harmless_devices() -> list[str]:
    """All but disks and memory, which hold the files that have rules."""
    entries = [entry for entry in os.scandir(DEV) if not entry.is_symlink() and entry.name not in MEMORY]
    return [entry.path for entry in entries if not Path(entry).is_block_device()]


def _there(paths: Sequence[str]) -> list[Path]:
    """Those that exist: what does not takes nothing from the folder that it would lie in."""
    return [Path(path) for path in paths if os.path.lexists(path)]


def _enforce(libc: ctypes.CDLL, ruleset: int, limits: Limits, handled: int) -> None:
    for path in limits["readable"]:
        _allow(libc, ruleset, path, READ, follow=True)
    for path in limits["writable"]:
        _allow(libc, ruleset, path, handled & ~MAKE_DEVICE, follow=True)
    _call(libc, RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    os.close(ruleset)


def _make_room(limits: Limits) -> None:
    """Where a guarded command will make new things, folders for these are there.

    Raises:
        Refused: the one for temporary files belongs to somebody else.
    """
    apart = _there([*limits["hidden"], *limits["protected"]])
    temporary, home = (Path(os.path.realpath(os.environ.get(*of))) for of in (("TMPDIR", "/tmp"), ("HOME", "/")))
    if any(tree.is_relative_to(temporary) or temporary.is_relative_to(tree) for tree in apart):
        own = temporary / f"sotad-guarded-{os.getuid()}"
        own.mkdir(mode=0o700, exist_ok=True)
        if own.is_symlink() or own.stat().st_uid != os.getuid():
            raise Refused(f"{own} belongs to somebody else: remove it, or set TMPDIR")
        os.environ["TMPDIR"] = str(own)
        limits["writable"].append(str(own))
    if home != Path("/") and any(tree.is_relative_to(home) for tree in apart):
        for name in CACHES:
            with suppress(OSError):  # then nothing of the kind could be made there without us either
                (home / name).mkdir(parents=True, exist_ok=True)


# --- system calls -----------------------------------------------------------------------------------------------


def _program() -> bytes:
    """The filter in classic BPF; what it refuses fails with EACCES."""
    arch, socket, prlimit = CALLS[os.uname().machine]
    allow, refuse = 12, 13
    steps = [  # code, value, and the step to go on with when a comparison holds, and when not
        (LOAD, 4, 0, 0),  # the calling convention
        (EQUAL, arch, 2, refuse),
        (LOAD, 0, 0, 0),  # the number of the call
        (AT_LEAST, X32, refuse, 4),
        (EQUAL, IO_URING_SETUP, refuse, 5),
        (EQUAL, socket, 8, 6),
        (EQUAL, prlimit, 10, 7),
        (RETURN, ALLOW, 0, 0),
        (LOAD, 16, 0, 0),  # its first argument: the family
        (EQUAL, AF_UNIX, refuse, allow),
        (LOAD, 16, 0, 0),  # whose limits, 0 for its own
        (EQUAL, 0, allow, refuse),
        (RETURN, ALLOW, 0, 0),
        (RETURN, ERRNO | errno.EACCES, 0, 0),
    ]
    packed = []
    for here, (code, value, true, false) in enumerate(steps):
        jumps = (true - here - 1, false - here - 1) if code in (EQUAL, AT_LEAST) else (0, 0)
        packed.append(struct.pack("=HBBI", code, *jumps, value))
    return b"".join(packed)


def _restrict_calls(libc: ctypes.CDLL) -> None:
    program = _program()
    filters = ctypes.create_string_buffer(program, len(program))
    whole = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(filters))
    _prctl(libc, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, whole)


def _call(libc: ctypes.CDLL, number: int, *arguments: Any) -> int:
    """Raises: OSError as errno says."""
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _prctl(libc: ctypes.CDLL, option: int, value: int, more: Any = 0) -> None:
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), more, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


# --- the command ---------------------------------------------------------------------------------------------------


def restrict(limits: Limits) -> None:
    """This process and all that it will start are confined, or guarded, for good.

    Raises:
        Refused: the kernel does not do it, or a folder is not there.
    """
    why = available()
    if why:
        raise Refused(why)
    missing = [path for path in (*limits["writable"], *limits["readable"]) if not Path(path).exists()]
    if missing:
        raise Refused(f"no such folder: {', '.join(missing)}")
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
        if "protected" in limits:
            _make_room(limits)
            _guard_files(libc, limits)
            return
        if os.geteuid() == 0 and _capabilities("CapBnd"):
            _prctl(libc, PR_SET_SECUREBITS, NOROOT | NOROOT_LOCKED)
        _confine_files(libc, limits)
        _restrict_calls(libc)
    except OSError as error:
        raise Refused(f"the kernel refused: {error}") from None


def main(arguments: Sequence[str]) -> int:
    """``LIMITS -- COMMAND ...``: become the command, confined; returns only when that fails."""
    if len(arguments) < 3 or arguments[1] != "--":
        print(USAGE, file=sys.stderr)
        return 2
    argv = list(arguments[2:])
    try:
        restrict(json.loads(arguments[0]))
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.execvp(argv[0], argv)
    except Refused as refused:
        print(f"sandbox: {refused}", file=sys.stderr)
        return 126
    except OSError as error:
        print(f"sandbox: cannot execute {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
