"""Who is asking: the kernel's word on a Unix socket, a token on TCP."""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from pathlib import Path

import psutil
from aiohttp import web

from sotad import shim
from sotad.client import peer_pid, peer_uid
from sotad.errors import Forbidden


def load_token(path: Path) -> str:
    """Return the bearer token in the file (mode 0600), creating both if there is none.

    Raises:
        OSError: it can be neither read nor made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return path.read_text("ascii").strip()
    with os.fdopen(file, "w", encoding="ascii") as target:
        token = secrets.token_urlsafe(32)
        target.write(token + "\n")
    return token


def operator(request: web.Request, token: str | None) -> str:
    """The actor under which a request is recorded.

    Raises:
        Forbidden: another user than ourselves or root, on TCP not the token, or a process that runs at the daemon's
            behest: it has our uid, and must neither speak for a person nor read what no agent is shown.
    """
    connection = request.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_UNIX:
        uid = peer_uid(connection)
        if uid not in (0, os.getuid()):
            raise Forbidden(f"uid {uid} may not use this daemon")
        if runs_for_us(peer_pid(connection)):
            raise Forbidden("a process of a run neither looks nor gives orders: ask a person to")
        return f"operator:uid={uid}"
    _check_bearer(request.headers.get("Authorization", ""), token)
    return f"operator:tcp={request.remote}"


def runs_for_us(pid: int) -> bool:
    """Whether a process is below a shim: whatever a run starts stays there, since a shim takes in its orphans."""
    try:
        return any(shim.__file__ in parent.cmdline() for parent in psutil.Process(pid).parents())
    except psutil.Error:  # it is gone already, and waits for no answer
        return True


def _check_bearer(said: str, token: str | None) -> None:
    """Compared in a time that does not tell how much of it was right."""
    right = f"Bearer {token}"
    if not token or not hmac.compare_digest(said.encode("utf-8", "surrogateescape"), right.encode()):
        raise Forbidden("TCP requests need the header `Authorization: Bearer TOKEN`")
