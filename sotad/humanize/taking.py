"""Takes a Humanize loop into the ledger: each content of each file once, as something that was reported.

The daemon keeps what it was given under (loop, file, SHA-256), so that telling it again changes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sotad.errors import BadInput, Bug, NotFound, SotadError, Unreachable
from sotad.humanize.layout import LOOPS, is_loop_name
from sotad.humanize.looking import Stamp, Unusable, Version, load, names, stamp
from sotad.humanize.overview import overview
from sotad.humanize.reading import JSON

ENDPOINT = "/v1/humanize"
POLL_S = 1.0
SETTLE_S = 0.3
AWAY_S = 60.0
"""Seconds for which a daemon may be away, as in a restart, before following ends."""

Told = Callable[[JSON], None]


class Door(Protocol):
    """The daemon's API."""

    def post(self, target: str, body: dict[str, Any] | None = None) -> Any:
        """Raises SotadError."""


def loop_folder(path: Path) -> Path:
    """The folder of one loop, by its real path.

    Raises:
        NotFound: it is not there.
        BadInput: it is no loop; the message names those below it.
    """
    if not path.is_dir():
        raise NotFound(f"{path}: no such folder", "name a loop's folder: .humanize/rlcr/<time>")
    folder = path.resolve()
    if is_loop_name(folder.name) or names(folder):
        return folder
    below = sorted(each for where in (folder / LOOPS, folder / "rlcr", folder) for each in _loops(where))
    advice = f"name one of {', '.join(map(str, below[-5:]))}" if below else "name a folder .humanize/rlcr/<time>"
    raise BadInput(f"{path}: holds no loop", advice)


def _loops(folder: Path) -> list[Path]:
    return [each for each in folder.glob("*") if is_loop_name(each.name)] if folder.is_dir() else []


class Taker:
    """Tells the daemon of a loop's files; ``files`` holds the fields of what was taken, by name.

    ``told`` is called with what became of each file, ``trouble`` with one line about each that cannot be taken.
    """

    def __init__(self, door: Door, folder: Path, told: Told, trouble: Callable[[str], None]) -> None:
        self.folder = folder
        self.loop = os.fsencode(folder).decode(errors="replace")  # paths are bytes, and may be no UTF-8
        self.files: dict[str, JSON] = {}
        self.troubles: list[JSON] = []
        self.posted = 0
        self._door, self._told, self._trouble = door, told, trouble
        self._seen: dict[str, Stamp] = {}
        self._taken: dict[str, str] = {}
        self._complained: dict[str, str] = {}

    def take_all(self) -> None:
        """Take every file that is there now, in the order in which the loop went.

        Raises:
            OSError: the folder cannot be listed.
            SotadError: the daemon cannot be told of anything.
        """
        for name in names(self.folder):
            self._take(name)

    def take_settled(self) -> bool:
        """Take the files that did not change since the last look; True while some still do.

        Raises as :meth:`take_all`.
        """
        unsettled = False
        present = names(self.folder)
        for gone in self.files.keys() - set(present):
            del self.files[gone]
            self._seen.pop(gone, None)
            self._taken.pop(gone, None)
        for name in present:
            now = stamp(self.folder / name)
            if now is not None and self._seen.get(name) == now:
                self._take(name)
            elif now is not None:
                self._seen[name] = now
                unsettled = True
        return unsettled

    def overview(self) -> JSON:
        """The loop so far."""
        return {"loop": self.loop, **overview(self.files), "troubles": self.troubles, "events": self.posted}

    def _take(self, name: str) -> None:
        try:
            version = load(self.folder / name)
            if self._taken.get(name) != version.sha256:
                self._post(version)
        except Unusable as error:
            self._complain(name, str(error))
        else:
            self._complained.pop(name, None)

    def _post(self, version: Version) -> None:
        fields = version.fields
        body = {"loop": self.loop, "file": version.file, "kind": version.place.kind}
        try:
            answer = self._door.post(ENDPOINT, {**body, "fields": fields, "text": version.text})
        except SotadError as error:
            if isinstance(error, Unreachable | Bug) or error.code in ("http_404", "forbidden"):
                raise
            raise Unusable(f"is refused by the daemon: {error}") from None
        self._taken[version.file], self.files[version.file] = version.sha256, fields
        self.posted += 1
        seq = answer.get("seq") if isinstance(answer, dict) else None
        self._told({"seq": seq, **body, "sha256": version.sha256, "fields": fields})

    def _complain(self, name: str, reason: str) -> None:
        """Once for each reason."""
        if self._complained.get(name) != reason:
            self._complained[name] = reason
            self.troubles.append({"file": name, "reason": reason})
            self._trouble(f"{self.folder / name}: {reason}; left out")


def follow(taker: Taker, wait: Callable[[float], None], say: Callable[[str], None]) -> None:
    """Take every new version of every file until the loop has ended; ``wait`` returns early on a hint.

    Raises:
        NotFound: the folder is gone.
        SotadError: the daemon refuses, or stayed away for a minute.
    """
    away_since: float | None = None
    while True:
        unsettled = True
        try:
            unsettled = taker.take_settled()
            away_since = None
        except Unreachable as error:
            if away_since is None:
                away_since = time.monotonic()
                say(f"{error}; waiting for it")
            elif time.monotonic() - away_since > AWAY_S:
                raise
        except OSError as error:
            raise NotFound(f"{taker.folder}: {error.strerror}: the loop's folder is gone", "") from None
        if not unsettled and taker.overview()["terminal"]:
            return
        wait(SETTLE_S if unsettled else POLL_S)
