"""One attempt at an ssh connection, through jump hosts where there are any; what went wrong, in words.

Host keys are always checked: `StrictHostKeyChecking no` and `UserKnownHostsFile none` do not change that.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh

from sotad.hosts.base import HostError
from sotad.hosts.ssh_target import SshTarget

CONNECT_TIMEOUT_S = 15.0
UNANSWERED = 3  # signs of life that may be missing in a row
_DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
_DEFAULT_CONFIG = Path("~/.ssh/config")
_DEFAULT_PORT = 22

Chain = tuple[asyncssh.SSHClientConnection, ...]


class Lost(Exception):
    """The connection broke or could not be made; the same may work a moment later."""


class Stale(Lost):
    """What was known of the other side does not hold any more: begin with a new connection."""


async def connect(target: SshTarget) -> Chain:
    """The connection to the target last, before it those to the jump hosts that it goes through, in order.

    Raises:
        HostError: trying again would not help: keys, user, configuration.
        Lost: it might.
    """
    return await _reach(target.host, target.user, target.port, target.jump, None, target, ())


def hang_up(chain: Chain) -> None:
    """Nothing of it is waited for: the other side may be gone."""
    for connection in reversed(chain):
        connection.abort()


async def _reach(
    host: str,
    user: str | None,
    port: int | None,
    jump: str | None,
    via: Chain | None,
    target: SshTarget,
    seen: tuple[str, ...],
) -> Chain:
    """The chain to `host`: after `via`, or when that is None through the jump hosts that are configured for it."""
    if host in seen:
        raise HostError(f"the jump hosts of {target.host} go round in a circle ({' -> '.join((*seen, host))}); mend it")
    settings = _settings(host, user, port, target)
    options = await _options(host, settings)
    chain = via or ()
    if via is None:
        for hop in _hops(jump or options.tunnel):
            chain = await _reach(*hop, None, chain or None, target, (*seen, host))
    try:
        return (*chain, await _open(host, settings, options, chain[-1] if chain else None))
    except BaseException:
        hang_up(chain)
        raise


def _settings(host: str, user: str | None, port: int | None, target: SshTarget) -> dict[str, Any]:
    """What asyncssh is told; what is absent it takes from the configuration files."""
    given = {
        "host": host,
        "username": user,
        "port": port,
        "client_keys": None if target.identity_file is None else [str(target.identity_file)],
        "known_hosts": None if target.known_hosts is None else [str(target.known_hosts)],
    }
    config = (_DEFAULT_CONFIG,) if target.config is None else target.config
    return {
        **{name: value for name, value in given.items() if value is not None},
        "config": [str(path) for path in map(Path.expanduser, config) if target.config or path.exists()],
        "preferred_auth": "publickey",
        "agent_forwarding": False,
        "request_pty": False,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "login_timeout": CONNECT_TIMEOUT_S,
        "keepalive_interval": target.keepalive_s,
        "keepalive_count_max": UNANSWERED,
    }


async def _options(host: str, settings: dict[str, Any]) -> asyncssh.SSHClientConnectionOptions:
    try:
        options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(**settings)
    except (OSError, ValueError, asyncssh.Error) as error:  # a key or a configuration file that cannot be read
        then = "load that key into the ssh agent" if "assphrase" in str(error) else "correct that file"
        raise HostError(f"cannot use the ssh settings for {host}: {error}; {then}") from error
    return options


def _hops(jump: Any) -> Iterator[tuple[str, str | None, int | None]]:
    """Host, user and port of `[user@]host[:port],...`, as in ProxyJump."""
    for hop in jump.split(",") if isinstance(jump, str) else ():
        user, _, place = hop.strip().rpartition("@")
        name, colon, port = place.rpartition(":") if place.count(":") == 1 else (place, "", "")
        if not name or (colon and not port.isdecimal()):
            raise HostError(f"jump host {hop!r} cannot be understood; write [user@]host[:port]")
        yield name, user or None, int(port) if colon else None


async def _open(
    host: str,
    settings: dict[str, Any],
    options: asyncssh.SSHClientConnectionOptions,
    tunnel: asyncssh.SSHClientConnection | None,
) -> asyncssh.SSHClientConnection:
    known, files = _known_hosts(host, options)
    offered: list[asyncssh.SSHKey] = []
    change = {"known_hosts": known, "client_factory": lambda: _Witness(offered), "tunnel": tunnel}
    with _translated(host, options, known, files, offered):
        return await asyncssh.connect(**{**settings, **change})


class _Witness(asyncssh.SSHClient):
    """Remembers the host key that was not among the trusted ones, to be able to show it."""

    def __init__(self, offered: list[asyncssh.SSHKey]) -> None:
        self._offered = offered

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self._offered.append(key)
        return False


def _known_hosts(host: str, options: asyncssh.SSHClientConnectionOptions) -> tuple[asyncssh.SSHKnownHosts, list[str]]:
    """The trusted host keys, and the files that they were read from."""
    if not isinstance(options.known_hosts, list | tuple):
        raise HostError(f"the ssh settings for {host} name no known_hosts file; host keys are always checked: name one")
    named = [str(name) for name in options.known_hosts] or list(_DEFAULT_KNOWN_HOSTS)
    files = [Path(name).expanduser() for name in named]
    try:
        return asyncssh.read_known_hosts([str(file) for file in files if file.exists()]), [str(file) for file in files]
    except (OSError, ValueError) as error:
        raise HostError(f"cannot read the known host keys for {host}: {error}; correct that file") from error


@contextlib.contextmanager
def _translated(
    host: str,
    options: asyncssh.SSHClientConnectionOptions,
    known: asyncssh.SSHKnownHosts,
    files: list[str],
    offered: list[asyncssh.SSHKey],
) -> Iterator[None]:
    """Errors of one attempt: HostError for what a person has to mend, Lost for the rest."""
    where = f"{host} ({options.host}:{options.port})"
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise HostError(_untrusted(where, options, known, files, offered, error)) from error
    except asyncssh.PermissionDenied as error:
        raise HostError(_refused(where, options)) from error
    except asyncssh.KeyExchangeFailed as error:
        raise HostError(
            f"{where} and this machine have no algorithm in common ({error.reason}); "
            f"compare the host key types in {files[0]} with what `ssh-keyscan` shows"
        ) from error
    except asyncssh.ProtocolError as error:
        if "authentication failures" not in error.reason:
            raise Lost(f"{where}: {error.reason}") from error
        raise HostError(f"{where}: {error.reason}; set IdentitiesOnly and one IdentityFile for it") from error
    except (asyncssh.Error, OSError) as error:  # TimeoutError among them
        raise Lost(f"{where}: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)  # below 0: of getaddrinfo
    return str(error) or "no answer in time"


def _untrusted(
    where: str,
    options: asyncssh.SSHClientConnectionOptions,
    known: asyncssh.SSHKnownHosts,
    files: list[str],
    offered: list[asyncssh.SSHKey],
    error: asyncssh.Error,
) -> str:
    name = options.host_key_alias or options.host
    trusted = known.match(name, "", options.port if options.port != _DEFAULT_PORT else None)[0]
    shown = f"{offered[0].get_algorithm()} {offered[0].get_fingerprint()}" if offered else error.reason
    if trusted:
        expected = ", ".join(f"{key.get_algorithm()} {key.get_fingerprint()}" for key in trusted)
        return (
            f"wrong host key: {where} shows {shown}, but {files[0]} has {expected}; nothing was sent. If the host was "
            f"set up anew, verify the key there and run `ssh-keygen -R '{_entry(name, options.port)}'`; "
            "else somebody may stand in between"
        )
    return (
        f"unknown host key: {where} shows {shown}, and {files[0]} has none for it; nothing was sent. Verify the key "
        f"there (`ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub`), then add it: `ssh-keyscan -p {options.port} {name}`"
    )


def _entry(name: str, port: int) -> str:
    return name if port == _DEFAULT_PORT else f"[{name}]:{port}"


def _refused(where: str, options: asyncssh.SSHClientConnectionOptions) -> str:
    """A server does not say whether it was the user or the key."""
    keys, agent = len(options.client_keys or ()), bool(options.agent_path)
    offers = [*([f"{keys} key file{'s'[: keys > 1]}"] if keys else []), *(["the ssh agent"] if agent else [])]
    with_what = " and ".join(offers) or "no key at all: load one into the ssh agent or name an IdentityFile"
    return (
        f"{where} refuses user {options.username} (offered: {with_what}); check that this user exists there and that "
        "its authorized_keys holds the key; else correct User or IdentityFile for it"
    )
