"""Files that the daemon follows: its own configuration, and a folder in which campaigns are dropped.

watchdog's notices are a hint to look sooner; what is true is what a look finds, by digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from ledger.errors import LedgerError
from sotad.config import DaemonConfig, load_daemon
from sotad.daemon.journal import Journal, is_fatal
from sotad.errors import SotadError

log = structlog.get_logger()
POLL_S = 5.0
SETTLE_S = 0.3

Submit = Callable[[str, str, str, str], Awaitable[str]]


class _Hint(FileSystemEventHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        self._loop, self._event = loop, event

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Reading is no change: our own looks would call for the next look."""
        if event.event_type not in ("opened", "closed_no_write") and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)


class Inbox:
    """Submits every file of ``folder`` once, while ``is_open``, and reloads ``config`` when it changes."""

    def __init__(
        self,
        folder: Path,
        config: Path,
        journal: Journal,
        submit: Submit,
        apply: Callable[[DaemonConfig], list[str]],
        is_open: Callable[[], bool],
    ) -> None:
        self._folder, self._config = folder, config
        self._journal, self._submit, self._apply, self._is_open = journal, submit, apply, is_open
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
            async with asyncio.timeout(seconds):
                await hint.wait()
            await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            pass

    async def look(self) -> bool:
        """Take in what is there; True when a file was still changing."""
        await self._look_at_config()
        unsettled = False
        for path in sorted(self._folder.glob("*.y*ml")) if self._is_open() else ():
            now = _stamp(path)
            if now is None:
                continue
            if self._seen.get(path) != now:
                self._seen[path] = now
                unsettled = True
            else:
                await self._take(path)
        return unsettled

    async def _take(self, path: Path) -> None:
        digest, file = _digest(path), _text(path.name)
        if f"{file}@{digest}" in self._journal.world.inbox:
            return
        known, key = {"name": file, "digest": digest}, f"inbox/{file}@{digest}"
        try:
            campaign = await self._submit(path.read_text(), _text(str(path)), f"operator:inbox/{file}", key)
            await self._journal.record("", "inbox.accepted", {**known, "campaign": campaign})
            log.info("inbox.accepted", file=file, campaign=campaign)
        except Exception as error:  # a file may hold anything; only a broken ledger is more than a bad file
            if is_fatal(error):
                raise
            await self._journal.record("", "inbox.rejected", {**known, "error": _in_words(error)})
            log.warning("inbox.rejected", file=file, error=_in_words(error))

    async def _look_at_config(self) -> None:
        digest = _digest(self._config)
        if digest == self._config_digest:
            return
        self._config_digest = digest
        try:
            changed = self._apply(load_daemon(self._config))
            await self._journal.record("", "config.reloaded", {"digest": digest, "changed": changed})
            log.info("config.reloaded", changed=changed)
        except Exception as error:  # as above: the configuration in force stays
            if is_fatal(error):
                raise
            await self._journal.record("", "config.rejected", {"digest": digest, "error": _in_words(error)})
            log.warning("config.rejected", error=_in_words(error))


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file does; None for what is no file, or is gone by now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None


def _text(name: str) -> str:
    """A file's name as text that can be stored: names are bytes, and may be no UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, SotadError | LedgerError | OSError) else f"cannot be read: {error!r}"


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return hashlib.sha256(b"").hexdigest()
