"""The daemon as a service: put together, started, answering operators, and taken down in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from ledger.artifacts import Artifacts
from ledger.events import Event
from ledger.reader import Reader
from ledger.schema import sqlite_build
from ledger.store import Ledger
from ledger.writer import Writer
from sotad.api.access import load_token
from sotad.api.address import parse_address
from sotad.api.app import make_app
from sotad.api.past import why_at
from sotad.api.server import serving
from sotad.api.summary import summaries
from sotad.config import DaemonConfig, load_daemon, parse_campaign
from sotad.daemon.anchoring import anchor, anchoring
from sotad.daemon.clock import Clock
from sotad.daemon.driver import Driver, blocked_by, is_away
from sotad.daemon.hosts import Hosts
from sotad.daemon.inbox import Inbox
from sotad.daemon.journal import Journal, is_fatal
from sotad.daemon.lock import Lock
from sotad.daemon.logs import configure, set_level
from sotad.daemon.notify import Notifier
from sotad.daemon.resume import Check, ledger_check, moved, resume_checks
from sotad.daemon.returning import answering, returns
from sotad.daemon.start import load_world, machine_digest
from sotad.daemon.words import Words
from sotad.errors import BadConfig, NotFound
from sotad.hosts.base import Host, HostError, HostUnreachable
from sotad.hosts.local import LocalHost
from sotad.paths import StateDir
from sotad.plan.draft import BadDraft, read_draft
from sotad.redact import redactor, scrubber
from statemachine.evidence import digest
from statemachine.state import Campaign, World
from statemachine.table import HALTED, LIVE

log = structlog.get_logger()
STALLED_S = 30.0  # without a turn of the loop for this long the daemon counts as stuck
MIRROR_PAUSE_S = 60.0  # after the mirror failed


class Daemon:
    """One running daemon; implements :class:`sotad.api.service.Service`."""

    def __init__(self, paths: StateDir, journal: Journal, driver: Driver, epoch: int, config: DaemonConfig) -> None:
        self.paths = paths
        self.stopping = asyncio.Event()
        self.config = config
        self._journal = journal
        self._driver = driver
        self._epoch = epoch
        self._started_ns = time.time_ns()
        self._redact = redactor(os.environ)
        self._naming = asyncio.Lock()
        self._words = Words(journal, driver.artifacts, self.resume)

    @property
    def world(self) -> World:
        return self._journal.world

    @property
    def ledger_path(self) -> Path:
        return self.paths.ledger

    @property
    def progress_age_s(self) -> float:
        """Seconds since the loop last came round."""
        return time.monotonic() - self._driver.progress

    def now(self) -> int:
        """UTC nanoseconds by the daemon's clock."""
        return self._journal.clock()

    def status(self) -> dict[str, Any]:
        build = sqlite_build()
        daemon = {
            "version": version("sotad"),
            "pid": os.getpid(),
            "epoch": self._epoch,
            "started_ns": self._started_ns,
            "state_dir": str(self.paths.root),
            "seq": self.world.seq,
            "machine_digest": machine_digest(),
            "sqlite": f"{build.version} ({'affected by the WAL-reset bug; ' if build.affected else ''}"
            f"{build.arrangement})",
            "ready": not self.stopping.is_set(),
            "progress_age_s": round(self.progress_age_s, 3),
        }
        return {"daemon": daemon, "campaigns": summaries(self.world)}

    async def submit(self, text: str, source: str, operator: str, key: str | None = None) -> str:
        """Check a campaign's YAML and record it as created; return its id.

        ``key`` makes it happen once: the same key again answers with the same campaign.
        """
        if key is not None and (known := self._journal.find(key)) is not None:
            return known.campaign
        spec = self._redact(parse_campaign(text, source, Path(source).parent))
        self._driver.hosts.require(spec["hardware"]["host"], source)
        await _readable_draft(spec, source)
        created = {"spec": spec, "spec_digest": digest(spec), "source": source}
        async with self._naming:
            campaign = self._free_id(spec["campaign"])
            await self._journal.record(campaign, "campaign.created", created, actor=operator, key=key)
        return campaign

    def _free_id(self, wanted: str) -> str:
        taken, number, name = self.world.campaigns, 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted}-{number}"
        return name

    async def pause(self, campaign: str, reason: str, operator: str) -> None:
        await self._operator(campaign, "campaign.paused", {"reason": reason}, operator)

    async def resume(self, campaign: str, operator: str) -> None:
        """Verify the world against the ledger, record what does not match, and go on."""
        c = self._known(campaign)
        halted = c.phase in HALTED
        checks = await resume_checks(c, self._host(c), self._driver.artifacts) if halted else []
        checks += [await asyncio.to_thread(ledger_check, self.paths)] if halted else []
        for check in checks:
            if not check["ok"]:
                found = {key: check[key] for key in ("what", "expected", "found")}
                await self._operator(campaign, "resume.mismatch", found, operator)
        await self._operator(campaign, "campaign.resumed", {"checks": checks}, operator)

    async def cancel(self, campaign: str, confirmed: bool, operator: str) -> None:
        payload = {"by": operator, "confirmed": confirmed}
        await self._operator(campaign, "campaign.cancel_requested", payload, operator)

    async def approve(self, campaign: str, subject: str, approved: bool, reason: str, operator: str) -> dict[str, Any]:
        return await self._words.approve(campaign, subject, approved, reason, operator)

    async def answer(self, campaign: str, subject: str, text: str, operator: str) -> dict[str, Any]:
        return await self._words.answer(campaign, subject, text, operator)

    async def amend(self, campaign: str, plan: Any, reason: str, operator: str) -> dict[str, Any]:
        return await self._words.amend(campaign, plan, reason, operator)

    async def humanize(self, report: dict[str, Any], operator: str) -> dict[str, Any]:
        return await self._words.humanize(report, operator)

    async def catch_up(self) -> None:
        """Halt what must not go on in the world that is found, let go on what has its last word.

        Called once, before the loop runs.
        """
        live = [c for c in self.world.campaigns.values() if c.phase in LIVE]
        ledger = [await asyncio.to_thread(ledger_check, self.paths)] if live else []
        for c in live:
            blocked = await self._obstacle(c, ledger)
            if blocked and c.phase in LIVE:  # still: nobody has paused or cancelled it meanwhile
                await self._journal.record(c.id, "campaign.blocked", blocked)
        await self._words.catch_up()

    async def _obstacle(self, c: Campaign, ledger: list[Check]) -> dict[str, Any] | None:
        """The ``campaign.blocked`` of a campaign that must not go on: the world is another, or its host is gone."""
        if c.phase == "intake":  # which looks at everything itself
            return moved(ledger, c.id)
        try:
            await answering(self._host(c))
            return moved([*ledger, *await self._checks(c)], c.id)
        except HostError as gone:
            return moved(ledger, c.id) or blocked_by(c, gone, self._journal.clock())

    async def reappeared(self, campaign: str) -> bool:
        """Whether a campaign that waits for its host goes on: it answers, and is the one that was measured on.

        What is another world is noted, for a person to look at and to resume.

        Raises:
            HostUnreachable: it still does not answer.
        """
        c = self._known(campaign)
        await answering(self._host(c))
        checks = await resume_checks(c, self._host(c), self._driver.artifacts)
        checks.append(await asyncio.to_thread(ledger_check, self.paths))
        if not is_away(c):
            return False
        if other := moved(checks, campaign):
            said = f"{c.blocked['host']} answers again, but: {other['reason']}; {other['next']}"
            key = f"{campaign}/back/{c.blocked['deadline_ns']}"
            await self._journal.record(campaign, "note.recorded", {"text": said}, key=key)
            return False
        await self._journal.record(campaign, "campaign.resumed", {"checks": checks})
        return True

    def _host(self, c: Campaign) -> Host:
        return self._driver.hosts.named(str(c.spec["hardware"]["host"]))

    async def _checks(self, c: Campaign) -> list[Check]:
        """What a resume verifies; that it cannot be done is a finding, too."""
        try:
            return await resume_checks(c, self._host(c), self._driver.artifacts)
        except HostUnreachable:
            raise
        except Exception as error:  # one campaign's world must not keep the daemon from the others
            if is_fatal(error):
                raise
            log.exception("checks.failed", campaign=c.id)
            return [{"what": "the checks", "expected": "possible", "found": str(error), "ok": False}]

    async def _operator(self, campaign: str, type_: str, payload: dict[str, Any], operator: str) -> None:
        self._known(campaign)
        await self._journal.record(campaign, type_, payload, actor=operator)

    def _known(self, campaign: str) -> Any:
        if campaign not in self.world.campaigns:
            raise NotFound(f"there is no campaign {campaign!r}")
        return self.world.campaigns[campaign]

    async def shutdown(self) -> None:
        self.stopping.set()

    def events(self, after: int, campaign: str | None, limit: int) -> list[Event]:
        with Reader(self.paths.ledger) as reader:
            return list(reader.events(after=after, campaign=campaign, limit=limit))

    async def changed(self, after: int, timeout: float) -> int:
        return await self._journal.changed(after, timeout)

    def why(self, seq: int) -> dict[str, Any]:
        return why_at(self.paths.ledger, seq)

    def apply(self, config: DaemonConfig) -> list[str]:
        """Take over a changed configuration; return the keys that changed."""
        before, self.config = self.config.model_dump(), config
        set_level(config.log_level)
        self._driver.hosts.define(config.hosts)
        return [key for key, value in config.model_dump().items() if before[key] != value]


async def _readable_draft(spec: dict[str, Any], source: str) -> None:
    """The draft is needed hours later, when the plan is made: it is looked at now.

    Raises:
        BadConfig: it cannot be read.
    """
    if path := spec["plan"]["draft"]:
        try:
            await asyncio.to_thread(read_draft, Path(path))
        except BadDraft as error:
            raise BadConfig([f"{source}: plan.draft: {error}"]) from None


def run(state_dir: Path, tcp: str | None = None) -> int:
    """Run the daemon on a state directory until it is told to stop; return the exit status.

    Raises:
        SotadError, LedgerError: it cannot start, or cannot go on; nothing that was acknowledged is lost.
    """
    paths = StateDir(Path(state_dir).absolute())
    with contextlib.suppress(FileExistsError):
        paths.root.mkdir(parents=True, mode=0o700)
    lock = Lock(paths.lock)
    lock.take()
    try:
        return asyncio.run(_main(paths, tcp))
    finally:
        lock.release()


async def _main(paths: StateDir, tcp: str | None) -> int:
    config = load_daemon(paths.config)
    configure(paths.log, config.log_level, redactor(os.environ))
    notifier = Notifier()
    async with _assembled(paths, config) as (daemon, driver, writer, inbox):
        token = load_token(paths.token) if tcp else None
        async with serving(make_app(daemon, token), paths.socket, parse_address(tcp) if tcp else None):
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, daemon.stopping.set)
            notifier.send(READY=1, STATUS=f"{len(daemon.world.campaigns)} campaigns, ledger at {daemon.world.seq}")
            log.info("daemon.ready", seq=daemon.world.seq, pid=os.getpid(), state_dir=str(paths.root))
            await _serve(daemon, driver, writer, inbox, notifier)
            notifier.send(STOPPING=1)
    return 0


async def _serve(daemon: Daemon, driver: Driver, writer: Writer, inbox: Inbox, notifier: Notifier) -> None:
    """Run the parts until one fails or the daemon is told to stop."""
    await daemon.catch_up()
    parts = {
        asyncio.create_task(driver.run(), name="driver"),
        asyncio.create_task(
            anchoring(daemon._journal, writer, daemon.paths, lambda: daemon.config.checkpoint_interval_s),
            name="checkpoints",
        ),
        asyncio.create_task(_feed(daemon, notifier), name="watchdog"),
        asyncio.create_task(inbox.run(), name="inbox"),
        asyncio.create_task(_mirror(daemon._journal, daemon.paths, driver.artifacts), name="mirror"),
        asyncio.create_task(returns(daemon), name="returns"),
        asyncio.create_task(daemon.stopping.wait(), name="stop"),
    }
    done, rest = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    for part in rest:
        part.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for part in done:
        part.result()


async def _mirror(journal: Journal, paths: StateDir, artifacts: Artifacts) -> None:
    """Keep the mirror for Humanize true. It is a copy: when it fails, the daemon goes on and tries again."""
    from sotad.humanize.following import mirror

    while True:
        try:
            await mirror(journal, paths, artifacts)
        except Exception as error:  # a folder of the user's may do anything; only a broken ledger is more than that
            if is_fatal(error):
                raise
            log.exception("mirror.failed")
        await asyncio.sleep(MIRROR_PAUSE_S)


@asynccontextmanager
async def _assembled(paths: StateDir, config: DaemonConfig) -> AsyncIterator[tuple[Daemon, Driver, Writer, Inbox]]:
    """Open everything, take over the ledger, record the start; at the end record the stop and close."""
    for folder in (paths.artifacts, paths.runs, paths.inbox):
        folder.mkdir(parents=True, exist_ok=True)
    paths.keys.mkdir(mode=0o700, exist_ok=True)
    copies = [config.checkpoint_copy] if config.checkpoint_copy else []
    redact = redactor(os.environ)
    clock = Clock()
    ledger = Ledger.open(paths.ledger, redact=redact, copies=copies, clock=clock)
    epoch = ledger.claim_epoch()
    started = load_world(ledger)
    clock.not_before(max((c.updated_ns for c in started.world.campaigns.values()), default=0))
    host = LocalHost(paths.runs)
    writer = Writer(ledger)
    journal = Journal(ledger, writer, started.world, clock)
    hosts = Hosts(host, config.hosts)
    driver = Driver(journal, hosts, Artifacts(paths.artifacts, scrubber(os.environ)), paths.root)
    daemon = Daemon(paths, journal, driver, epoch, config)
    inbox = Inbox(paths.inbox, paths.config, journal, daemon.submit, daemon.apply, lambda: daemon.config.inbox)
    try:
        facts = await host.probe()
        log.info("daemon.starting", folded=started.folded, seq=started.world.seq, epoch=epoch)
        await journal.record("", "daemon.started", _started(facts))
        yield daemon, driver, writer, inbox
        await driver.close()
        await journal.record("", "daemon.stopped", {"reason": "asked to stop"})
        await anchor(journal, writer, paths)
    finally:
        await driver.close()
        await hosts.close()
        journal.close()
        await writer.close()


def _started(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": version("sotad"),
        "machine_digest": machine_digest(),
        "pid": os.getpid(),
        "boot_id": str(facts["boot_id"]),
        "host": os.uname().nodename,
        "sqlite": sqlite_build().version,
    }


async def _feed(daemon: Daemon, notifier: Notifier) -> None:
    """Feed systemd's watchdog, but only while the loop makes progress."""
    while True:
        await asyncio.sleep(min(notifier.watchdog_s / 3, 10.0) if notifier.watchdog_s else 10.0)
        if daemon.progress_age_s < STALLED_S:
            live = sum(1 for c in daemon.world.campaigns.values() if c.phase != "closed")
            notifier.send(WATCHDOG=1, STATUS=f"{live} live campaigns, ledger at {daemon.world.seq}")
        else:
            log.error("daemon.stuck", progress_age_s=daemon.progress_age_s)
