"""Where everything lies: one state directory, and the places in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_DIR = Path("/var/lib/sotad")
LONGEST_SOCKET = 107
"""Bytes that the path of a Unix socket may have: ``sun_path`` holds 108 with the closing zero."""


class StateDir:
    """The places in a state directory; nothing is created or looked at here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = root / "ledger.db"
        self.artifacts = root / "artifacts"
        self.runs = root / "runs"
        self.keys = root / "keys"
        self.inbox = root / "campaigns.d"
        self.config = root / "sotad.yaml"
        self.lock = root / "lock"
        self.log = root / "log" / "sotad.log"
        self.token = root / "keys" / "api.token"

    @property
    def socket(self) -> Path:
        """``run/sotad.sock``, or a short path in /tmp when that is too long for a Unix socket.

        The short path follows from the directory and its owner alone, so that daemon and client agree on it.
        """
        path = self.root / "run" / "sotad.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET:
            return path
        from hashlib import sha256  # rare, and not free

        digest = sha256(os.fsencode(os.path.realpath(self.root))).hexdigest()[:16]
        return Path("/tmp", f"sotad-{_owner(self.root)}-{digest}", "sotad.sock")


def _owner(root: Path) -> int:
    try:
        return root.stat().st_uid
    except OSError:
        return os.getuid()


def state_dir(named: str | None, environment: Mapping[str, str] = os.environ) -> StateDir:
    """The state directory: as named, else ``$SOTAD_DIR``, else the system's for root, else the user's own."""
    chosen = named or environment.get("SOTAD_DIR")
    if chosen:
        return StateDir(Path(chosen).expanduser().absolute())
    if os.getuid() == 0 and SYSTEM_DIR.is_dir():
        return StateDir(SYSTEM_DIR)
    return StateDir(Path.home() / ".local" / "state" / "sotad")
