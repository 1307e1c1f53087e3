"""What systemd is told: ready, status, stopping, and the watchdog's food.

The protocol is one datagram of ``NAME=value`` lines to ``$NOTIFY_SOCKET`` (sd_notify(3)).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends to the service manager; does nothing where there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6

    def send(self, **fields: str | int) -> None:
        """Send the fields as one message; a manager that is gone is not our trouble."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            try:
                door.sendto(text.encode(), self._address)
            except OSError:
                pass
