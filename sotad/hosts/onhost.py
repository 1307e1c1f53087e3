"""The program that a host is sent: it answers one request about runs, files or the machine, and ends.

    python -I -S host.pyz                 answer the request on stdin (see `main`)
    python -I -S host.pyz RUN_DIR ...     the shim (see `sotad.shim`)

Standard library only, Python 3.8 or later, Linux.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, List  # noqa: UP035 (in the words of Python 3.8)

from sotad import shim
from sotad.hosts.runs import HostError, Record, Root, allowed_environment

MARK = b"\x01sotad\x01"  # begins an answer: a login shell may have printed something before
ANSWER_LIMIT_S = 120  # a request whose asker is gone ends by itself
PIECE_BYTES = 2**20
GPU_IDENTITY = ("index", "uuid", "name", "memory_total_mib")
SMI = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")

Gpus = List[Record]  # noqa: UP006 (evaluated)


# ------------------------------------------------------------------------ the machine


def probe(gpus: Gpus) -> Record:
    """What the machine is, and `gpus` by what stays the same while they work."""
    return {
        "hostname": platform.node(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "boot_id": shim.boot_id(),
        "gpus": [{key: gpu[key] for key in GPU_IDENTITY} for gpu in gpus],
    }


def _cpu_model() -> str | None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, None)


def smi_gpus() -> Gpus:
    """The GPUs that nvidia-smi names; none where it is not installed or fails."""
    try:
        done = subprocess.run(SMI, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.decode().splitlines()]
    known = [dict(zip(GPU_IDENTITY, row)) for row in rows if len(row) == len(GPU_IDENTITY)]  # noqa: B905 (3.10)
    return [{**row, "index": int(row["index"]), "memory_total_mib": _number(row["memory_total_mib"])} for row in known]


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on at this moment.

    Another process may take it before the caller does: a server that then fails to bind is started
    again on another port.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# ------------------------------------------------------------- one request, one answer


def main(argv: list[str]) -> int:
    """Answer the request on stdin: a line of JSON, then its payload.

    `{"do", "root", "with", "size", "not_after"}`: the action, the root, its arguments, the bytes of payload
    that follow, and the monotonic time of this machine after which nobody wants it done any more. The answer is
    `MARK` and a line of JSON: `{"ok"}` with the value, `{"size"}` and that many bytes after it, `{"refused"}` with a
    HostError's text, or `{"late"}`.
    """
    if argv:
        return shim.main(argv)
    signal.alarm(ANSWER_LIMIT_S)
    stream = sys.stdin.buffer
    line = stream.readline()
    if not line.endswith(b"\n"):
        return 1  # cut off on its way: whoever sent it will ask again
    request = json.loads(line)
    if time.monotonic() > request["not_after"]:
        return _say({"late": True})
    if request["do"] == "clock":
        return _tell_the_time(stream)
    payload = _received(stream, request["size"])
    if len(payload) < request["size"]:
        return 1
    try:
        value = _act(request, payload)
    except HostError as error:
        return _say({"refused": str(error)})
    return _say({"size": len(value)}, value) if isinstance(value, bytes) else _say({"ok": value})


def _received(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, or what there was before the stream ended; it may take long as long as something comes."""
    pieces: list[bytes] = []
    while size > 0:
        signal.alarm(ANSWER_LIMIT_S)
        piece = stream.read(min(size, PIECE_BYTES))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _act(request: Record, payload: bytes) -> Any:
    root = Root(Path(request["root"]), (sys.executable, "-I", "-S", sys.argv[0]))
    action, arguments = request["do"], request["with"]
    if action in SENDING:
        arguments["data"] = payload
    if action == "stop":
        signal.alarm(0)  # takes as long as the run's grace allows, and no longer
    return ACTIONS[action](root, **arguments)


SENDING = ("put", "place")
ACTIONS: dict[str, Callable[..., Any]] = {
    "put": Root.put,
    "start": Root.start,
    "status": Root.status,
    "wait": Root.wait,
    "stop": Root.stop,
    "read": Root.read,
    "processes": Root.processes,
    "list_runs": Root.list_runs,
    "place": Root.place,
    "placed": Root.place,
    "holds": Root.holds,
    "probe": lambda root: probe(smi_gpus()),
    "free_port": lambda root: free_port(),
    "environment": lambda root, names: allowed_environment(*names),
}


def _tell_the_time(stream: BinaryIO) -> int:
    """For each line that arrives, this machine's UTC nanoseconds."""
    _say({"ok": None})
    for _ in stream:
        sys.stdout.buffer.write(b"%d\n" % time.time_ns())
        sys.stdout.buffer.flush()
    return 0


def _say(answer: Record, data: bytes = b"") -> int:
    sys.stdout.buffer.write(MARK + json.dumps(answer).encode() + b"\n" + data)
    sys.stdout.buffer.flush()
    return 0
