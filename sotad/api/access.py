"""Who is asking: the kernel's word on a Unix socket, a token on TCP."""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from pathlib import Path

from aiohttp import web

from sotad.client import peer_uid
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
        Forbidden: another user than ourselves or root, or on TCP not the token.
    """
    connection = request.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_UNIX:
        uid = peer_uid(connection)
        if uid not in (0, os.getuid()):
            raise Forbidden(f"uid {uid} may not use this daemon")
        return f"operator:uid={uid}"
    _check_bearer(request.headers.get("Authorization", ""), token)
    return f"operator:tcp={request.remote}"


def _check_bearer(said: str, token: str | None) -> None:
    """Compared in a time that does not tell how much of it was right."""
    right = f"Bearer {token}"
    if not token or not hmac.compare_digest(said.encode("utf-8", "surrogateescape"), right.encode()):
        raise Forbidden("TCP requests need the header `Authorization: Bearer TOKEN`")
