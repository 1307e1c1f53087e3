"""What ``--tcp`` says."""

from __future__ import annotations

from typing import NamedTuple

from sotad.errors import BadInput


class Address(NamedTuple):
    """Where to listen on TCP."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT``, ``[V6]:PORT``, ``:PORT`` or ``PORT``; without a host it is loopback.

    Raises:
        BadInput: it is none of these.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"--tcp {text!r}: no port in it", "give HOST:PORT, or a port for loopback")
    return Address(host.strip("[]") or "127.0.0.1", int(port))
