"""The hosts of the daemon's configuration, each opened when a campaign first needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from sotad.activities.registry import runs_on_host
from sotad.activities.toolbox import Settings
from sotad.config.hosts import HERE, HostConfig
from sotad.errors import BadConfig
from sotad.hosts.base import Host, HostError, HostUnreachable
from sotad.hosts.local import LocalHost
from statemachine.state import JSON


class Hosts:
    """``home`` is the daemon's own machine. Definitions may change while the daemon runs; see :meth:`define`."""

    def __init__(self, home: Host, defined: Mapping[str, HostConfig] | None = None) -> None:
        self.home = home
        self._defined = dict(defined or {})
        self._open: dict[str, tuple[HostConfig, Host]] = {}
        self._left: list[Host] = []

    def define(self, defined: Mapping[str, HostConfig]) -> None:
        """Take over changed definitions: the next job finds the host as it is defined now."""
        self._defined = dict(defined)

    def require(self, name: str, source: str) -> None:
        """Raises: BadConfig when a campaign file names a host that nobody defined."""
        if name != HERE and name not in self._defined:
            known = ", ".join((HERE, *sorted(self._defined)))
            raise BadConfig([f"{source}: hardware.host: the daemon's sotad.yaml defines no host {name!r}, but {known}"])

    def named(self, name: str) -> Host:
        """Raises: HostUnreachable when it is defined no more, HostError when it cannot be what its definition says."""
        if name == HERE:
            return self.home
        if name not in self._defined:
            raise HostUnreachable(f"the daemon's sotad.yaml defines no host {name!r} any more: define it under hosts")
        defined = self._defined[name]
        if name in self._open and self._open[name][0] != defined:
            self._left.append(self._open.pop(name)[1])
        if name not in self._open:
            self._open[name] = (defined, opened(name, defined))
        return self._open[name][1]

    def of(self, spec: JSON, activity: str) -> Host:
        """Where an activity's processes run."""
        return self.named(str(spec["hardware"]["host"])) if runs_on_host(spec, activity) else self.home

    def settings(self, name: str) -> Settings:
        """How our programs run there."""
        found = self._defined.get(name)
        return Settings(found.tools, found.env, found.max_clock_offset_s, found.container) if found else Settings()

    async def close(self) -> None:
        """Let go of every connection; what runs on the hosts goes on."""
        hosts = [*self._left, *(host for _, host in self._open.values())]
        await asyncio.gather(*(host.close() for host in hosts), return_exceptions=True)


def opened(name: str, defined: HostConfig) -> Host:
    """The host of a definition; nothing is connected yet.

    Raises:
        HostError: the definition cannot be meant, or the package for ssh is missing.
    """
    if defined.kind == "local":
        return LocalHost(Path(defined.root), name)
    try:
        from sotad.hosts.ssh import SshHost, SshTarget
    except ImportError as missing:
        raise HostError(f"host {name}: {missing}: install sotad with its extra ssh") from None
    try:
        target = SshTarget(
            host=defined.address,
            root=defined.root,
            python=defined.python,
            user=defined.user,
            port=defined.port,
            identity_file=_file(defined.key),
            known_hosts=_file(defined.known_hosts),
            jump=defined.jump,
            config=(defined.config.expanduser(),) if defined.config else None,
            keepalive_s=defined.keepalive_s,
            patience_s=defined.patience_s,
        )
    except ValueError as error:
        raise HostError(f"host {name}: {error}") from None
    return SshHost(target, name)


def _file(path: Path | None) -> Path | None:
    return path.expanduser() if path else None
