"""The command line's HTTP client against servers that misbehave, and the places it looks for sockets in."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import sotad.client
from sotad.client import Client
from sotad.errors import Bug, Forbidden, Unreachable
from sotad.paths import LONGEST_SOCKET, StateDir, state_dir


@contextmanager
def answering(path: Path, data: bytes) -> Iterator[Client]:
    """A server that says this to whatever it is asked, and hangs up."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Client(path, timeout=5)
        thread.join(10)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
    ],
)
def test_half_an_answer_is_no_answer(tmp_path: Path, data: bytes) -> None:
    """A daemon that dies while it answers counts as not reached."""
    with answering(tmp_path / "s", data) as client, pytest.raises(Unreachable):
        client.get("/v1/status")


def test_an_error_that_is_not_ours_is_a_bug(tmp_path: Path) -> None:
    """Whatever a 500 says, it ends in one line."""
    data = b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nboom"
    with answering(tmp_path / "s", data) as client, pytest.raises(Bug, match="500"):
        client.get("/v1/status")


def test_an_answer_without_a_length_goes_on_to_its_end(tmp_path: Path) -> None:
    """HTTP/1.0: the body is what comes before the connection closes."""
    with answering(tmp_path / "s", b'HTTP/1.0 200 OK\r\n\r\n{"a": 1}') as client:
        assert client.get("/v1/status") == {"a": 1}


def test_a_socket_of_somebody_else_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's socket in /tmp gets no request."""
    monkeypatch.setattr(sotad.client, "peer_uid", lambda connection: 4242)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with pytest.raises(Forbidden, match="uid 4242"):
            Client(tmp_path / "s").get("/v1/status")


def test_nobody_there_says_where_and_what_to_do(tmp_path: Path) -> None:
    """One line with the socket's path, and how to start a daemon."""
    with pytest.raises(Unreachable, match=str(tmp_path)) as caught:
        Client(tmp_path / "s").get("/v1/status")
    assert "sotad start" in caught.value.next


def test_a_path_too_long_for_a_socket_is_replaced_by_a_short_one(tmp_path: Path) -> None:
    """Daemon and client agree on it, and two directories never share it."""
    room = LONGEST_SOCKET - len("/run/sotad.sock")
    fits = StateDir(Path("/" + "x" * (room - 1)))
    longer = StateDir(Path("/" + "x" * room))
    assert fits.socket == fits.root / "run" / "sotad.sock"
    assert len(os.fsencode(fits.socket)) == LONGEST_SOCKET
    assert longer.socket.parent.parent == Path("/tmp")
    assert longer.socket == StateDir(longer.root).socket
    assert longer.socket != StateDir(Path("/" + "y" * room)).socket
    assert len(os.fsencode(longer.socket)) <= LONGEST_SOCKET


def test_which_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dir, then $SOTAD_DIR, then the system's for root if it is there, then the user's own."""
    monkeypatch.chdir(tmp_path)
    assert state_dir("here", {"SOTAD_DIR": "/there"}).root == tmp_path / "here"
    assert state_dir(None, {"SOTAD_DIR": "/there"}).root == Path("/there")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert state_dir(None, {}).root == tmp_path / ".local" / "state" / "sotad"
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr("sotad.paths.SYSTEM_DIR", tmp_path)
    assert state_dir(None, {}).root == tmp_path
