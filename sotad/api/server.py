"""Opening and closing the doors: a private Unix socket, and TCP when asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from sotad.api.address import Address
from sotad.errors import HostFault

SHUTDOWN_S = 5.0
"""Seconds that requests under way have when the daemon stops."""


@asynccontextmanager
async def serving(app: web.Application, path: Path, tcp: Address | None = None) -> AsyncIterator[None]:
    """Answer on the socket (directory 0700, socket 0600), and on TCP if given, inside the ``with``.

    The caller holds the state directory's lock: a socket that is there already is a dead daemon's.

    Raises:
        HostFault: a door cannot be opened.
    """
    _make_private(path.parent)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await _open(runner, path, tcp)
        yield
    finally:
        await runner.cleanup()
        _remove(path)


async def _open(runner: web.AppRunner, path: Path, tcp: Address | None) -> None:
    where = str(path)
    try:
        _remove(path)
        await web.UnixSite(runner, path).start()
        _close_to_others(path)
        if tcp is not None:
            where = f"{tcp.host}:{tcp.port}"
            await web.TCPSite(runner, tcp.host, tcp.port).start()
    except OSError as error:
        raise HostFault(f"cannot listen on {where}: {error}", "free it or choose another") from None


def _close_to_others(path: Path) -> None:
    path.chmod(0o600)


def _remove(path: Path) -> None:
    """A closed socket's name."""
    path.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    """A folder that is ours alone; one that somebody else put there is refused, not taken."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise HostFault(f"{folder}: {error.strerror}", "make its parent writable") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise HostFault(f"{folder} is not a folder of ours", "remove it")
    folder.chmod(0o700)
