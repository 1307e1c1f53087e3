"""The daemon's API from the command line: HTTP over the Unix socket, with nothing but the standard library.

Requests are HTTP/1.0, so that a response ends where the connection does: no chunks, no kept connections.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from sotad.errors import Bug, Forbidden, SotadError, Unreachable

HEARTBEAT_S = 15.0
"""Seconds after which a silent event stream shows a sign of life."""


class Client:
    """Talks to the daemon behind one socket. Each request has a connection of its own.

    ``timeout`` is in seconds, for each wait on the socket.
    """

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self.path = path
        self.timeout = timeout

    def get(self, target: str) -> Any:
        """Return the decoded JSON of a GET.

        Raises:
            Unreachable: nobody answers, or not to the end.
            SotadError: what the daemon answered instead, with its code and exit status.
        """
        return self._ask("GET", target, b"")

    def post(self, target: str, body: dict[str, Any] | None = None) -> Any:
        """Return the decoded JSON of a POST; raises as :meth:`get`."""
        return self._ask("POST", target, json.dumps(body or {}).encode())

    def campaign(self, name: str) -> dict[str, Any] | None:
        """One campaign as GET /v1/status tells of it; None when there is none of that name. Raises as :meth:`get`."""
        return next((c for c in self.get("/v1/status")["campaigns"] if c["campaign"] == name), None)

    def stream(self, target: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a server-sent stream until the daemon ends it; raises as :meth:`get`."""
        with self._connect(3 * HEARTBEAT_S) as connection, connection.makefile("rb") as reader:
            try:
                status, length = _send(connection, reader, "GET", target, b"", "text/event-stream")
                if status != 200:
                    raise _refusal(status, _body(reader, length))
                yield from _events(reader)
            except (OSError, ValueError) as error:
                raise Unreachable(f"the daemon at {self.path} broke off: {error}") from None

    def _ask(self, method: str, target: str, body: bytes) -> Any:
        with self._connect(self.timeout) as connection, connection.makefile("rb") as reader:
            try:
                status, length = _send(connection, reader, method, target, body, "application/json")
                data = _body(reader, length)
            except (OSError, ValueError) as error:
                raise Unreachable(f"the daemon at {self.path} broke off: {error}") from None
        if status >= 400:
            raise _refusal(status, data)
        return json.loads(data)

    def _connect(self, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(os.fspath(self.path))
            _check_peer(connection, self.path)
        except OSError as error:
            connection.close()
            raise Unreachable(f"no daemon answers at {self.path}: {error.strerror or error}") from None
        except BaseException:
            connection.close()
            raise
        return connection


def peer_uid(connection: socket.socket) -> int:
    """The user behind the other end of a Unix socket, as the kernel knows it."""
    return _peer(connection)[1]


def peer_pid(connection: socket.socket) -> int:
    """The process that connected a Unix socket, as the kernel knows it."""
    return _peer(connection)[0]


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of the other end."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def _check_peer(connection: socket.socket, path: Path) -> None:
    """A socket in /tmp could be anybody's: believe ourselves and root only."""
    uid = peer_uid(connection)
    if os.getuid() not in (0, uid) and uid != 0:
        raise Forbidden(f"{path} belongs to uid {uid}, not to you", "remove it or name another --dir")


def _send(
    connection: socket.socket, reader: BufferedReader, method: str, target: str, body: bytes, accept: str
) -> tuple[int, int]:
    """Send one request; return the status and the length of what follows, -1 when it is not said."""
    head = f"{method} {target} HTTP/1.0\r\nHost: sotad\r\nAccept: {accept}\r\nConnection: close\r\n"
    if method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"\r\n" + body)
    line = reader.readline(4096).split(None, 2)
    if len(line) < 2 or not line[0].startswith(b"HTTP/"):
        raise ValueError("this is not HTTP")
    length = -1
    while (header := reader.readline(65536).strip()) != b"":
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return int(line[1]), length


def _body(reader: BufferedReader, length: int) -> bytes:
    data = reader.read(length)
    if len(data) < length:
        raise ValueError(f"{len(data)} of {length} bytes")
    return data


def _refusal(status: int, data: bytes) -> SotadError:
    """The daemon's error as if it had been raised here."""
    try:
        said = json.loads(data)["error"]
        error = SotadError(said["message"], said["next"], said["code"])
        error.exit_status = said["exit_status"]
    except (ValueError, KeyError, TypeError):
        return Bug(f"the daemon answered {status}: {data[:200]!r}")
    return error


def _events(reader: BufferedReader) -> Iterator[dict[str, Any]]:
    """The ``data`` of each server-sent event; a stream cut in the middle of one ends before it."""
    data = b""
    for line in reader:
        if line.startswith(b"data: "):
            data = line[6:]
        elif line == b"\n" and data:
            yield json.loads(data)
            data = b""
