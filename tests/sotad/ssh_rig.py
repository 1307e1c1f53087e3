"""A real OpenSSH server with its own port and keys, and a link to it that can be cut."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh

from sotad.hosts.ssh import SshTarget

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
IP = shutil.which("ip", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
NFT = shutil.which("nft", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
NO_SSHD = "needs sshd (Debian: openssh-server)"
USER = os.environ.get("USER") or subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()


def new_key(path: Path) -> asyncssh.SSHKey:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    path.chmod(0o600)
    return key


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """One sshd, run as the current user; `prefix` is what it is started through, such as a namespace."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", prefix: tuple[str, ...] = (), **options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.address, self.port = folder, address, free_port()
        self.host_key, self.user_key = new_key(folder / "host_key"), new_key(folder / "user_key")
        (folder / "authorized_keys").write_text(public(self.user_key) + "\n")
        self.known_hosts = folder / "known_hosts"
        self.know(self.host_key)
        settings = {
            "Port": str(self.port),
            "ListenAddress": address,
            "HostKey": str(folder / "host_key"),
            "AuthorizedKeysFile": str(folder / "authorized_keys"),
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            **options,
        }
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None

    def know(self, key: asyncssh.SSHKey) -> None:
        """This is the host key that the client expects."""
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {public(key)}\n")

    def start(self) -> None:
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it separates its privileges
        log = (self.folder / "sshd.log").open("ab")
        command = [*self._prefix, SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        self._await_listening()

    def _await_listening(self) -> None:
        deadline = time.monotonic() + 20
        while b"Server listening" not in (self.folder / "sshd.log").read_bytes():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "sshd.log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """No new connections; those that there are go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            (self.folder / "sshd.log").unlink()
            self._process = None

    def end_sessions(self, wire: Wire) -> None:
        """Every connection breaks: the processes that serve them are killed."""
        listening = self._process.pid if self._process else None
        for pid, command in wire.processes().items():
            if command.startswith("sshd: ") and pid != listening:
                os.kill(pid, signal.SIGKILL)

    def target(self, root: Path, **options: Any) -> SshTarget:
        fields: dict[str, Any] = {
            "host": self.address,
            "port": self.port,
            "user": USER,
            "root": str(root),
            "identity_file": self.folder / "user_key",
            "known_hosts": self.known_hosts,
            "config": (),
            "python": sys.executable,
            "patience_s": 60.0,
        }
        return SshTarget(**{**fields, **options})


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Wire:
    """A network namespace, and the pair of interfaces by which this one reaches it; packets can be dropped on it."""

    def __init__(self) -> None:
        number = os.getpid() % 250  # another process may lay one at the same time
        self.name = f"sotad{os.getpid()}n{number}"
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"
        self._ends = f"sa{os.getpid()}n{number}"[:15], f"sb{os.getpid()}n{number}"[:15]

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command is prefixed with to be executed behind the wire."""
        return str(IP), "netns", "exec", self.name

    def lay(self) -> None:
        near, far = self._ends
        _call(IP, "netns", "add", self.name)
        _call(IP, "link", "add", near, "type", "veth", "peer", "name", far)
        _call(IP, "link", "set", far, "netns", self.name)
        _call(IP, "addr", "add", f"{self.here}/30", "dev", near)
        _call(IP, "link", "set", near, "up")
        _call(*self.inside, IP, "addr", "add", f"{self.there}/30", "dev", far)
        _call(*self.inside, IP, "link", "set", far, "up")
        _call(*self.inside, IP, "link", "set", "lo", "up")
        _call(*self.inside, NFT, "add table inet cut")
        for hook in ("input", "output"):
            chain = f"add chain inet cut {hook} {{ type filter hook {hook} priority 0; policy accept; }}"
            _call(*self.inside, NFT, chain)

    def cut(self) -> None:
        """What is sent from either side is lost without a word, as on a line that was dug up somewhere."""
        self._rule("add rule inet cut {hook} meta iifname != lo meta oifname != lo drop")

    def mend(self) -> None:
        self._rule("flush chain inet cut {hook}")

    def processes(self) -> dict[int, str]:
        """What is executed behind the wire."""
        listed = subprocess.run([str(IP), "netns", "pids", self.name], capture_output=True, text=True, timeout=20)
        return {pid: _command_line(pid) for pid in map(int, listed.stdout.split())}

    def _rule(self, text: str) -> None:
        _call(*self.inside, NFT, "; ".join(text.format(hook=hook) for hook in ("input", "output")))

    def remove(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        subprocess.run([str(IP), "netns", "del", self.name], capture_output=True, timeout=20)
        subprocess.run([str(IP), "link", "del", self._ends[0]], capture_output=True, timeout=20)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:  # it just ended
        return ""


def _call(*command: str | None) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=20)


def why_no_wire() -> str:
    """Why namespaces cannot be had here; empty when they can."""
    if IP is None or NFT is None:
        return "needs ip and nft (Debian: iproute2, nftables)"
    if os.geteuid() != 0:
        return "needs root, to make a network namespace"
    wire = Wire()
    try:
        wire.lay()
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.decode().strip()}"
    finally:
        wire.remove()
    return ""
