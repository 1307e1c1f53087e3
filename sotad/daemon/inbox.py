"""Files that the daemon follows: its own configuration, and a folder in which campaigns are dropped.

watchdog's notices are a hint to look sooner; what is true is what a look finds, by digest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from sotad.config import DaemonConfig, load_daemon
from sotad.daemon.journal import Journal
from sotad.errors import SotadError

log = structlog.get_logger()
POLL_S = 5.0
SETTLE_S = 0.3

Submit = Callable[[str, str, str, str], Awaitable[str]]


class _Hint(FileSystemEventHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        self._loop, self._event = loop, event

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)


class Inbox:
    """Submits every file of ``folder`` once, and reloads ``config`` when it changes."""

    def __init__(
        self, folder: Path, config: Path, journal: Journal, submit: Submit, apply: Callable[[DaemonConfig], list[str]]
    ) -> None:
        self._folder, self._config = folder, config
        self._journal, self._submit, self._apply = journal, submit, apply
        self._config_digest = _digest(config)
        self._seen: dict[Path, tuple[int, int]] = {}

    async def run(self) -> None:
        """Follow the files until cancelled."""
        hint = asyncio.Event()
        observer = Observer()
        observer.schedule(_Hint(asyncio.get_running_loop(), hint), str(self._folder))
        observer.schedule(_Hint(asyncio.get_running_loop(), hint), str(self._config.parent))
        observer.start()
        try:
            while True:
                unsettled = await self.look()
                await self._wait(hint, SETTLE_S if unsettled else POLL_S)
        finally:
            observer.stop()
            await asyncio.to_thread(observer.join)

    async def _wait(self, hint: asyncio.Event, seconds: float) -> None:
        hint.clear()
        try:
            await asyncio.wait_for(hint.wait(), seconds)
            await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            pass

    async def look(self) -> bool:
        """Take in what is there; True when a file was still changing."""
        await self._look_at_config()
        unsettled = False
        for path in sorted(self._folder.glob("*.y*ml")):
            stat = path.stat()
            now = (stat.st_mtime_ns, stat.st_size)
            if self._seen.get(path) != now:
                self._seen[path] = now
                unsettled = True
            else:
                await self._take(path)
        return unsettled

    async def _take(self, path: Path) -> None:
        digest = _digest(path)
        name = f"{path.name}@{digest}"
        if name in self._journal.world.inbox:
            return
        known = {"name": path.name, "digest": digest}
        try:
            campaign = await self._submit(path.read_text(), str(path), f"operator:inbox/{path.name}", f"inbox/{name}")
            await self._journal.record("", "inbox.accepted", {**known, "campaign": campaign})
            log.info("inbox.accepted", file=path.name, campaign=campaign)
        except (SotadError, OSError, UnicodeDecodeError) as error:
            await self._journal.record("", "inbox.rejected", {**known, "error": str(error)})
            log.warning("inbox.rejected", file=path.name, error=str(error))

    async def _look_at_config(self) -> None:
        digest = _digest(self._config)
        if digest == self._config_digest:
            return
        self._config_digest = digest
        try:
            changed = self._apply(load_daemon(self._config))
            await self._journal.record("", "config.reloaded", {"digest": digest, "changed": changed})
            log.info("config.reloaded", changed=changed)
        except SotadError as error:
            await self._journal.record("", "config.rejected", {"digest": digest, "error": str(error)})
            log.warning("config.rejected", error=str(error))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return hashlib.sha256(b"").hexdigest()
