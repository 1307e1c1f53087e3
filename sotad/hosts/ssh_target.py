"""Where an ssh host is and how to get there."""

import posixpath
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SshTarget:
    """One host as `ssh` knows it; what is left out comes from `~/.ssh/config`.

    Attributes:
        host: a name of `~/.ssh/config`, a DNS name or an address.
        root: absolute path of a directory there, made when missing, for runs and files.
        python: Python 3.8 or later there, a path or a name of its login shell's PATH.
        user, port, identity_file, known_hosts, jump: instead of `User`, `Port`, `IdentityFile`,
            `UserKnownHostsFile` and `ProxyJump` (`[user@]host[:port]`, several joined by commas).
        config: ssh configuration files instead of `~/.ssh/config`.
        keepalive_s: seconds of silence after which the host is asked for a sign of life; the connection
            is given up when four in a row bring none.
        patience_s: seconds of silence over which a call that broke tries again before it raises `HostUnreachable`.

    Raises:
        ValueError: a field that cannot be meant.
    """

    host: str
    root: str
    python: str = "python3"
    user: str | None = None
    port: int | None = None
    identity_file: Path | None = None
    known_hosts: Path | None = None
    jump: str | None = None
    config: tuple[Path, ...] | None = None
    keepalive_s: float = 5.0
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.host or self.host.startswith("-") or any(letter.isspace() for letter in self.host):
            raise ValueError(f"host {self.host!r}: give a name or address as for `ssh`")
        if not posixpath.isabs(self.root) or posixpath.normpath(self.root) != self.root or self.root == "/":
            raise ValueError(f"root {self.root!r}: give the absolute path of a directory of its own on {self.host}")
        if not self.python:
            raise ValueError("python is empty: name the interpreter there")
        if self.port is not None and not 0 < self.port < 65536:
            raise ValueError(f"port {self.port}: give a number from 1 to 65535")
        if min(self.keepalive_s, self.patience_s) <= 0:
            raise ValueError("keepalive_s and patience_s are seconds above 0")
