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
from sotad.daemon.journal import Journal, is_fatal
from sotad.git import GitError
from sotad.hosts.base import Host, HostError
from statemachine.decide import Abort, Do, Record, decide
from statemachine.machine import IllegalEvent
from statemachine.state import Campaign, Job
from statemachine.table import HALTED, LIVE

log = structlog.get_logger()
TICK_S = 1.0
LONGEST = 2000  # characters of a reason that go into the ledger
EXPECTED = (ActivityFailed, HostError, GitError, IllegalEvent, LedgerError, OSError)
JobKey = tuple[str, str]


class Driver:
    """Runs every campaign of the journal. ``progress`` is when the loop last came round (``time.monotonic``)."""

    def __init__(self, journal: Journal, host: Host, artifacts: Artifacts, state_dir: Path) -> None:
        self.journal = journal
        self.progress = time.monotonic()
        self.host = host
        self.artifacts = artifacts
        self._state_dir = state_dir
        self._tasks: dict[JobKey, asyncio.Task[None]] = {}
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
        await asyncio.gather(*(_ended(task) for task in list(self._tasks.values())))

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
                    await self._abort(c, command)
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
        for job in [job for job in _running(c) if job.deadline_ns < now and not self._holds(c, job)]:
            await self._end_task(c, job.job)
            await self._give_up(c, job.job, job.attempt, "the job ran out of time")
            await self._outcome(c, "job.timed_out", job.job, job.attempt, deadline_ns=job.deadline_ns)

    async def _let_go(self, c: Campaign) -> None:
        """A halted campaign whose jobs all wait to write a step needs the host no more."""
        running = _running(c)
        if c.phase in HALTED and c.lease and running and all(self._holds(c, job) for job in running):
            await self._record(c, Record("lease.released", {"host": c.lease["host"], "reason": c.phase}))

    def _holds(self, c: Campaign, job: Job) -> bool:
        """Whether a job waits for its campaign to be resumed; its time stands still."""
        context = self._contexts.get((c.id, job.job))
        return context is not None and context.holding

    def _dispatch(self, c: Campaign, do: Do) -> None:
        key = (c.id, do.job)
        if key not in self._tasks:
            self._tasks[key] = task = asyncio.create_task(self._perform(c, do), name=f"{c.id}/{do.job}")
            task.add_done_callback(lambda done: self._done(key, done))

    def _done(self, key: JobKey, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
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
        self._contexts[c.id, do.job] = context = Context(
            *(c.id, do.job, do.attempt, job.params, job.deadline_ns),
            *(self.journal, self.host, self.artifacts, self._state_dir),
        )
        await self._finish(c, do, ACTIVITIES[do.activity](context))
        bound.info("job.ended", status=c.jobs[do.job].status, detail=c.jobs[do.job].detail)

    async def _finish(self, c: Campaign, do: Do, work: Awaitable[str]) -> None:
        """Record how the work ended: what it says, what went wrong, or that it vanished."""
        try:
            detail = await work
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

    async def _outcome(self, c: Campaign, type_: str, job: str, attempt: int, **more: object) -> None:
        """Record the end of a job, unless it has one already."""
        with contextlib.suppress(IllegalEvent):
            await self.journal.record(c.id, type_, {"job": job, "attempt": attempt, **more}, cause=c.jobs[job].seq)

    async def _abort(self, c: Campaign, abort: Abort) -> None:
        reason = "aborted: the campaign is stopping"
        await self._end_task(c, abort.job)
        await self._give_up(c, abort.job, abort.attempt, reason)
        await self._outcome(c, "job.lost", abort.job, abort.attempt, reason=reason)

    async def _end_task(self, c: Campaign, job: str) -> None:
        task = self._tasks.get((c.id, job))
        if task is not None:
            await _ended(task)

    async def _give_up(self, c: Campaign, job: str, attempt: int, reason: str) -> None:
        """End every run of an attempt, all at once: each may take its whole grace; what it launched is void."""
        runs = await self.host.list_runs(f"{c.id}/{job}/{attempt}/")
        await asyncio.gather(*(self.host.stop(run) for run in runs))
        await finish_all(self.journal, self.host, self.artifacts, f"{c.id}/{job}/{attempt}")
        await abandon(self.journal, c, job, attempt, reason)

    def _limit_s(self, c: Campaign, do: Do) -> float:
        budget = c.spec["budget"]
        return float(budget["resource_wait_s"] + 60 if do.activity == "lease" else budget["job_s"])


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
