"""Sends a plan, by this process or by several, and gathers what they saw."""

import asyncio
import contextlib
import os
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns, time_ns
from typing import Any

import orjson

from sotad.loadgen.exchange import CANCELLED, Exchange
from sotad.loadgen.plan import Plan, make_plan
from sotad.loadgen.record import Record, request_record
from sotad.loadgen.sender import Sender
from sotad.loadgen.spec import Target
from sotad.loadgen.wire import Patience
from sotad.loadgen.worker import share_result

STREAMS_EACH = 128  # concurrent streams that deserve a process of their own
MOST_PROCESSES = 16
HEAD_START_NS = 50_000_000  # between the word to begin and the beginning


class WorkerDied(RuntimeError):
    """A process of the load generator ended without a result; its stderr has the reason."""


@dataclass
class Sent:
    """What one batch of requests brought. Records have their times from the beginning on, in ns.

    `began_at_ns` is that moment in UTC, `begin_ns` as `time.perf_counter_ns` of this machine.
    """

    began_at_ns: int
    begin_ns: int
    records: list[Record]
    efforts: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False


def slots_of(at_once: int | None, count: int, processes: int | None = None) -> list[int]:
    """How many requests each process may have under way; as many processes as cores and streams call for."""
    streams = min(at_once or count, count)
    most = max(1, min(len(os.sched_getaffinity(0)) // 2, MOST_PROCESSES))
    number = min(processes or min(-(-streams // STREAMS_EACH), most), max(1, streams))
    return [streams // number + (share < streams % number) for share in range(number)]


def plan_for(
    target: Target,
    requests: Sequence[bytes],
    wanted: Sequence[int | None],
    slots: Sequence[int],
    due_s: Sequence[float] | None = None,
    tokenizer: str | None = None,
) -> Plan:
    """The plan of sending these; without `due_s` all are due at once."""
    due_ns = [round(moment * 1e9) for moment in due_s] if due_s is not None else [0] * len(requests)
    patience = Patience(target.timeout_s, target.stall_s)
    return make_plan(target.base_url, patience, requests, due_ns, wanted, slots, tokenizer)


async def send_plan(plan: Plan) -> Sent:
    """Every request was sent; or the calling task was cancelled, and the rest count as cancelled.

    Raises:
        WorkerDied: a process of a run with several did.
    """
    raise_file_limit()
    crew = _Alone(plan) if len(plan.slots) == 1 else _Crew(plan)
    work = asyncio.create_task(crew.work())
    try:
        sent = await asyncio.shield(work)
    except asyncio.CancelledError:
        crew.stop()
        sent = await work
        sent.interrupted = True
    return _completed(sent, plan)


def not_sent(plan: Plan) -> Sent:
    """What a plan brings that was given up before it began."""
    return _completed(Sent(time_ns(), perf_counter_ns(), [], interrupted=True), plan)


def _completed(sent: Sent, plan: Plan) -> Sent:
    """With a record for every request, in order: nobody took those that are missing."""
    known = {record["index"] for record in sent.records}
    unsent = (Exchange(index, due, failure=CANCELLED) for index, due in enumerate(plan.due_ns) if index not in known)
    sent.records += [request_record(exchange, 0) for exchange in unsent]
    sent.records.sort(key=lambda record: int(record["index"]))
    return sent


def raise_file_limit() -> None:
    """Allow this process and its children as many open files as the system lets them have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Alone:
    """This process sends everything."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._sender = plan, Sender(plan, 0)

    async def work(self) -> Sent:
        await self._sender.prepare()
        began_at, begin = time_ns(), perf_counter_ns()
        effort = await self._sender.run(begin)
        result = share_result(self._plan, self._sender.sent, effort, begin)
        return Sent(began_at, begin, result["records"], [result["effort"]])

    def stop(self) -> None:
        self._sender.stop()


class _Crew:
    """Several processes send, all from the same moment on; their clock is the system's monotonic one."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._stopped = plan, False
        self._workers: list[Process] = []

    async def work(self) -> Sent:
        try:
            for share in range(len(self._plan.slots)):
                self._workers.append(await _start_worker(self._plan, share))
            for worker in self._workers:
                await _stdout(worker).readline()  # ready; or nothing, when it died: then its answer shows
            began_at, begin = time_ns() + HEAD_START_NS, perf_counter_ns() + HEAD_START_NS
            for worker in self._workers:
                _tell(worker, b"%d\n" % begin)
            results = await asyncio.gather(*(self._result(worker) for worker in self._workers))
        finally:
            await self._end()
        records = [record for result in results for record in result["records"]]
        return Sent(began_at, begin, records, [result["effort"] for result in results if result["effort"]])

    def stop(self) -> None:
        self._stopped = True
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.terminate()

    async def _result(self, worker: Process) -> dict[str, Any]:
        answer = await _stdout(worker).read()
        if answer:
            result: dict[str, Any] = orjson.loads(answer)
            return result
        if self._stopped:
            return {"records": [], "effort": None}
        raise WorkerDied(f"a process of the load generator ended with {await worker.wait()}; see its messages above")

    async def _end(self) -> None:
        """No worker outlives the run."""
        for worker in self._workers:
            if worker.stdin is not None:
                worker.stdin.close()
        await asyncio.gather(*(worker.wait() for worker in self._workers))


async def _start_worker(plan: Plan, share: int) -> Process:
    argv = (sys.executable, "-m", "sotad.loadgen.worker")
    worker = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, pass_fds=plan.descriptors)
    _tell(worker, orjson.dumps({"plan": plan.as_json(), "share": share}) + b"\n")
    return worker


def _tell(worker: Process, line: bytes) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line)


def _stdout(worker: Process) -> asyncio.StreamReader:
    assert worker.stdout is not None
    return worker.stdout
