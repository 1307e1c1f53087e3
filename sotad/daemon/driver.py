"""The loop: fold, decide, dispatch, record what comes back. Everything else is in the parts it calls."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from pathlib import Path

import structlog

from ledger.artifacts import Artifacts
from ledger.errors import LedgerError
from sotad.activities.agents import finish_all
from sotad.activities.context import ActivityFailed, Context, RunLost
from sotad.activities.launch import abandon
from sotad.activities.registry import ACTIVITIES
from sotad.activities.toolbox import equip
from sotad.daemon.hosts import Hosts
from sotad.daemon.journal import Journal, is_fatal
from sotad.git import GitError
from sotad.hosts.base import HostError, HostUnreachable
from statemachine.decide import Abort, Do, Record, decide
from statemachine.machine import IllegalEvent
from statemachine.state import JSON, Campaign, Job
from statemachine.table import HALTED, LIVE

log = structlog.get_logger()
TICK_S = 1.0
REST_S = 30.0  # after a host did not answer, where its campaign does not wait for it already
LONGEST = 2000  # characters of a reason that go into the ledger
EXPECTED = (ActivityFailed, HostError, GitError, IllegalEvent, LedgerError, OSError)
JobKey = tuple[str, str]


class Driver:
    """Runs every campaign of the journal. ``progress`` is when the loop last came round (``time.monotonic``)."""

    def __init__(self, journal: Journal, hosts: Hosts, artifacts: Artifacts, state_dir: Path) -> None:
        self.journal = journal
        self.progress = time.monotonic()
        self.hosts = hosts
        self.artifacts = artifacts
        self._state_dir = state_dir
        self._tasks: dict[JobKey, asyncio.Task[None]] = {}
        self._endings: dict[JobKey, asyncio.Task[None]] = {}
        self._resting: dict[JobKey, float] = {}
        self._contexts: dict[JobKey, Context] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Go on until cancelled.

        Raises:
            LedgerError: the ledger cannot be written; the daemon must stop, nothing is lost.
        """
        while True:
            seen = self.journal.world.seq
            for campaign in list(self.journal.world.campaigns.values()):
                await self._advance(campaign)
            self.progress = time.monotonic()
            if self.journal.failure is not None:
                raise self.journal.failure
            if self._failure.done():
                self._failure.result()
            await self.journal.changed(seen, TICK_S)

    async def close(self) -> None:
        """Let go of every activity; their processes live on in their run directories."""
        tasks = [*self._tasks.values(), *self._endings.values()]
        await asyncio.gather(*(_ended(task) for task in tasks))

    async def _advance(self, c: Campaign) -> None:
        """Do for one campaign what its state calls for, until it has to wait."""
        await self._time_limits(c)
        await self._let_go(c)
        while True:
            commands = decide(c)
            records = [command for command in commands if isinstance(command, Record)]
            for command in commands:
                if isinstance(command, Do):
                    self._dispatch(c, command)
                elif isinstance(command, Abort):
                    self._abort(c, command)
            if not records:
                return
            await self._record(c, records[0])

    async def _record(self, c: Campaign, command: Record) -> None:
        """Write a conclusion; one that an operator overtook on the way to the ledger is dropped.

        Raises:
            IllegalEvent: nothing overtook it: decide and the machine disagree, which is a bug.
        """
        seen = c.seq
        try:
            event = await self.journal.record(c.id, command.type, command.payload, cause=seen)
        except IllegalEvent as refused:
            if c.seq == seen:
                raise
            log.info("conclusion.overtaken", campaign=c.id, type=command.type, refused=str(refused))
            return
        log.info(command.type, campaign=c.id, round=c.round, seq=event.seq, phase=c.phase)

    async def _time_limits(self, c: Campaign) -> None:
        now = self.journal.clock()
        if c.phase in LIVE:
            limit, used = c.spec["budget"]["wall_clock_s"], (now - c.created_ns) / 1e9
            if used >= limit:
                await self._record(c, Record("budget.exhausted", {"kind": "wall_clock", "limit": limit, "used": used}))
        late = [job for job in _running(c) if job.deadline_ns < now and not self._holds(c, job)]
        for job in late if not is_away(c) else ():
            self._end(c, job, "job.timed_out", "the job ran out of time", deadline_ns=job.deadline_ns)

    async def _let_go(self, c: Campaign) -> None:
        """A halted campaign whose jobs all wait to write a step needs the host no more."""
        running = _running(c)
        if c.phase in HALTED and c.lease and running and all(self._holds(c, job) for job in running) and not is_away(c):
            await self._record(c, Record("lease.released", {"host": c.lease["host"], "reason": c.phase}))

    def _holds(self, c: Campaign, job: Job) -> bool:
        """Whether a job waits for its campaign to be resumed; its time stands still."""
        context = self._contexts.get((c.id, job.job))
        return context is not None and context.holding

    def _dispatch(self, c: Campaign, do: Do) -> None:
        key = (c.id, do.job)
        rests = self._resting.get(key, 0.0) > time.monotonic()
        if key not in self._tasks and key not in self._endings and not rests and not is_away(c):
            self._tasks[key] = task = asyncio.create_task(self._perform(c, do), name=f"{c.id}/{do.job}")
            task.add_done_callback(lambda done: self._done(key, done))

    def _done(self, key: JobKey, task: asyncio.Task[None]) -> None:
        for tasks in (self._tasks, self._endings):
            if tasks.get(key) is task:
                del tasks[key]
        if key not in self._tasks:
            self._contexts.pop(key, None)
        if not task.cancelled() and (error := task.exception()) and not self._failure.done():
            self._failure.set_exception(error)
        self.journal.wake()

    async def _perform(self, c: Campaign, do: Do) -> None:
        """One attempt of one activity, from its intent to its outcome."""
        job = c.jobs.get(do.job)
        if job is None or job.status != "running":
            deadline = self.journal.clock() + int(self._limit_s(c, do) * 1e9)
            intent = {"job": do.job, "activity": do.activity, "attempt": do.attempt, "params": do.params}
            await self.journal.record(c.id, "job.dispatched", {**intent, "deadline_ns": deadline}, cause=c.seq)
            job = c.jobs[do.job]
        bound = log.bind(campaign=c.id, round=c.round, job=do.job, attempt=do.attempt)
        bound.info("job.started", activity=do.activity)
        await self._reaching(c, do.job, self._finish(c, do, job))
        bound.info("job.ended", status=c.jobs[do.job].status, detail=c.jobs[do.job].detail)

    async def _work(self, c: Campaign, do: Do, job: Job) -> str:
        """The activity, on the host where its processes run."""
        host = self.hosts.of(c.spec, do.activity)
        self._contexts[c.id, do.job] = context = Context(
            *(c.id, do.job, do.attempt, job.params, job.deadline_ns),
            *(self.journal, host, self.artifacts, self._state_dir),
            *(await equip(host, self.hosts.settings(host.name)), self.hosts.home),
        )
        return await ACTIVITIES[do.activity](context)

    async def _finish(self, c: Campaign, do: Do, job: Job) -> None:
        """Record how the work ended: what it says, what went wrong, or that it vanished."""
        try:
            detail = await self._work(c, do, job)
        except HostUnreachable:
            raise
        except RunLost as lost:
            await self._give_up(c, do.job, do.attempt, str(lost))
            await self._outcome(c, "job.lost", do.job, do.attempt, reason=str(lost))
        except Exception as failure:
            if is_fatal(failure):
                raise
            if not isinstance(failure, EXPECTED):
                log.exception("activity.bug", campaign=c.id, job=do.job)
            reason = _reason(failure)
            await self._give_up(c, do.job, do.attempt, reason)
            await self._outcome(c, "job.finished", do.job, do.attempt, ok=False, detail=reason)
        else:
            await self._outcome(c, "job.finished", do.job, do.attempt, ok=True, detail=detail[:LONGEST])

    async def _reaching(self, c: Campaign, job: str, work: Awaitable[None]) -> None:
        """Do it; when its host does not answer, or refuses even to end things, the campaign waits for that.

        What it started goes on there and is found again: neither the job nor what it measures has failed.
        """
        try:
            await work
        except HostError as gone:
            log.warning("host.away", campaign=c.id, job=job, reason=str(gone))
            if c.phase in (*LIVE, "stopping"):
                await self._record(c, Record("campaign.blocked", blocked_by(c, gone, self.journal.clock())))
            elif not is_away(c):
                self._resting[c.id, job] = time.monotonic() + REST_S

    async def _outcome(self, c: Campaign, type_: str, job: str, attempt: int, **more: object) -> None:
        """Record the end of a job, unless it has one already."""
        with contextlib.suppress(IllegalEvent):
            await self.journal.record(c.id, type_, {"job": job, "attempt": attempt, **more}, cause=c.jobs[job].seq)

    def _abort(self, c: Campaign, abort: Abort) -> None:
        reason = "aborted: the campaign is stopping"
        self._end(c, c.jobs[abort.job], "job.lost", reason, reason=reason)

    def _end(self, c: Campaign, job: Job, type_: str, why: str, **more: object) -> None:
        """End a job from outside, beside the loop: a host may take long to answer."""
        key = (c.id, job.job)
        if key not in self._endings and self._resting.get(key, 0.0) <= time.monotonic():
            work = self._reaching(c, job.job, self._ended_from_outside(c, job, type_, why, **more))
            self._endings[key] = task = asyncio.create_task(work, name=f"{c.id}/{job.job} ends")
            task.add_done_callback(lambda done: self._done(key, done))

    async def _ended_from_outside(self, c: Campaign, job: Job, type_: str, why: str, **more: object) -> None:
        task = self._tasks.get((c.id, job.job))
        if task is not None:
            await _ended(task)
        await self._give_up(c, job.job, job.attempt, why)
        await self._outcome(c, type_, job.job, job.attempt, **more)

    async def _give_up(self, c: Campaign, job: str, attempt: int, reason: str) -> None:
        """End every run of an attempt, all at once: each may take its whole grace; what it launched is void."""
        host, home = self.hosts.of(c.spec, c.jobs[job].activity), self.hosts.home
        for place in (host,) if host is home else (host, home):
            runs = await place.list_runs(f"{c.id}/{job}/{attempt}/")
            await asyncio.gather(*(place.stop(run) for run in runs))
        await finish_all(self.journal, home, self.artifacts, f"{c.id}/{job}/{attempt}")
        await abandon(self.journal, c, job, attempt, reason)

    def _limit_s(self, c: Campaign, do: Do) -> float:
        budget = c.spec["budget"]
        if do.activity == "lease":
            return float(budget["resource_wait_s"] + 60)
        waits = budget["resource_wait_s"] if c.gpus else 0.0  # for its GPUs, before its work
        return float(budget["job_s"] + waits)


def is_away(c: Campaign) -> bool:
    """Whether a campaign waits for a host that does not answer."""
    return c.phase == "blocked" and bool(c.blocked.get("host"))


def blocked_by(c: Campaign, gone: HostError, now_ns: int) -> JSON:
    """The ``campaign.blocked`` of a campaign whose host does not answer."""
    wait_s = float(c.spec["budget"]["resource_wait_s"])
    return {
        "kind": "resources",
        "reason": str(gone)[:LONGEST],
        "next": f"it goes on by itself when the host answers within {wait_s:g} s; later: sotactl resume {c.id}",
        "host": str(c.spec["hardware"]["host"]),
        "deadline_ns": now_ns + int(wait_s * 1e9),
    }


def _running(c: Campaign) -> list[Job]:
    return [job for job in c.jobs.values() if job.status == "running"]


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended: a library may swallow one cancel, and would then go on for hours."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=TICK_S)


def _reason(failure: Exception) -> str:
    """What goes on record about a failed activity; what nobody expected is called what it is."""
    text = str(failure) if isinstance(failure, EXPECTED) else f"internal error: {type(failure).__name__}: {failure}"
    return text[:LONGEST]
