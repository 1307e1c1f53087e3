"""Keeps the mirror of every campaign true while the daemon runs.

Nobody waits for it and nothing is read back from it: a mirror that cannot be written is a line in the log.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from ledger.artifacts import Artifacts
from ledger.events import Event
from ledger.reader import Reader
from sotad.daemon.journal import Journal, to_the_end
from sotad.humanize.mirror import OWNER, SHOWS, is_owned, tree
from sotad.humanize.placing import claim, place_files
from sotad.paths import StateDir
from sotad.report.facts import file_name
from statemachine.state import Campaign

log = structlog.get_logger()
POLL_S = 5.0
SETTLE_S = 0.3
"""Seconds for which what happens next is waited for, so that a burst of events is written once."""


@dataclass(slots=True)
class _Mirror:
    """One campaign's mirror. ``events`` are those that show, up to ``seq``; ``due`` when files are looked at again.

    ``mine``: the folder was found to be this campaign's; ``over``: the files say all that they ever will.
    """

    root: Path
    events: list[Event] = field(default_factory=list)
    seq: int = 0
    stale: bool = False
    files: dict[str, str] = field(default_factory=dict)
    due: float = 0.0
    mine: bool = False
    over: bool = False
    failure: str = ""


async def mirror(journal: Journal, paths: StateDir, artifacts: Artifacts) -> None:
    """Mirror every campaign that wants it, until cancelled; campaigns that are closed already once."""
    mirrors = Mirrors(journal, paths, artifacts)
    try:
        while True:
            seen = journal.world.seq
            await mirrors.look()
            await journal.changed(seen, POLL_S)
            await asyncio.sleep(SETTLE_S)
    finally:
        await mirrors.look()  # what happened last is in it, too: nobody may look again for a while


class Mirrors:
    """The mirrors of one daemon's campaigns; files and ledger are read and written in threads."""

    def __init__(self, journal: Journal, paths: StateDir, artifacts: Artifacts) -> None:
        self._journal, self._paths, self._artifacts = journal, paths, artifacts
        self._mirrors: dict[str, _Mirror] = {}
        self._closed: set[str] = set()

    async def look(self) -> None:
        """Bring every mirror up to date. Live campaigns first; never raises but when cancelled."""
        campaigns = [c for c in self._journal.world.campaigns.values() if c.id not in self._closed and _wanted(c)]
        for c in sorted(campaigns, key=lambda c: c.phase == "closed"):
            await self._keep(c)

    async def _keep(self, c: Campaign) -> None:
        m = self._mirrors.setdefault(c.id, _Mirror(_root(c, self._paths)))
        try:
            await self._update(m, c)
        except Exception as error:  # whatever it is: the daemon has more important things to do
            _report(m, c.id, f"{type(error).__name__}: {error}")
            return
        _report(m, c.id, "")
        if m.over:
            self._closed.add(c.id)
            del self._mirrors[c.id]

    async def _update(self, m: _Mirror, c: Campaign) -> None:
        if c.seq > m.seq:
            await _in_thread(self._read, m, c.id, c.seq)
        if m.stale:
            await _in_thread(self._project, m, _copy(c))
        elif time.monotonic() < m.due:
            return
        await _in_thread(_place, m)
        m.due = time.monotonic() + POLL_S

    def _read(self, m: _Mirror, campaign: str, until: int) -> None:
        with Reader(self._paths.ledger) as reader:
            shown = [e for e in reader.events(m.seq, until, campaign) if e.type in SHOWS]
        m.events += shown
        m.seq, m.stale = until, m.stale or bool(shown)

    def _project(self, m: _Mirror, state: Campaign) -> None:
        self._read(m, state.id, state.seq)  # what came while the thread began
        m.files = tree(state, m.events, self._artifacts.read)
        m.stale, m.over = False, state.phase == "closed"


async def _in_thread(work: Callable[..., None], *args: object) -> None:
    """To its end, even when cancelled: two threads must not work on one mirror."""
    await to_the_end(asyncio.to_thread(work, *args))


def _place(m: _Mirror) -> None:
    if not m.mine:
        claim(m.root, m.files, OWNER, is_owned)
        m.mine = bool(m.files)
    place_files(m.root, m.files, is_owned)


def _wanted(c: Campaign) -> bool:
    return bool(c.spec) and bool(c.spec.get("humanize", {}).get("mirror", True))


def _root(c: Campaign, paths: StateDir) -> Path:
    folder = c.spec.get("humanize", {}).get("folder")
    return Path(folder) if folder else paths.root / "humanize" / file_name(c.id)


def _copy(c: Campaign) -> Campaign:
    """The state as it is now, for a thread; what a mirror does not tell, and what never changes, is not copied."""
    slim = copy.deepcopy(replace(c, spec={}, launches={}, jobs={}, profiles={}, tables={}, gaps=[]))
    return replace(slim, spec=c.spec)


def _report(m: _Mirror, campaign: str, failure: str) -> None:
    """Say a failure once, and when it is over."""
    if failure == m.failure:
        return
    m.failure = failure
    if failure:
        log.warning("mirror.failed", campaign=campaign, folder=str(m.root), error=failure)
    else:
        log.info("mirror.restored", campaign=campaign, folder=str(m.root))
