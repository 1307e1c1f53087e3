"""One process of a run: `python -m sotad.loadgen.worker`, started by `sotad.loadgen.run` and nobody else.

stdin has two lines: the job, and the moment to begin. stdout has one line, `ready`, then the share's result as
JSON. When stdin ends before the work does, whoever asked is gone, and so is this process.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import orjson

from sotad.benchmark.tokens import load_tokenizer
from sotad.loadgen.exchange import CANCELLED, Exchange
from sotad.loadgen.meter import MeteredLoop
from sotad.loadgen.plan import Plan
from sotad.loadgen.record import Record, request_record
from sotad.loadgen.sender import Effort, Sender

READ_LIMIT = 2**30  # bytes of the line with the job


def share_result(plan: Plan, sent: Sequence[Exchange], effort: Effort, begin_ns: int) -> dict[str, Any]:
    """What one process has to say: its records and its effort."""
    tokenizer = load_tokenizer(Path(plan.tokenizer)) if plan.tokenizer else None
    for exchange in sent:
        if not exchange.sent_ns:
            exchange.failure = CANCELLED
    records: list[Record] = [request_record(each, begin_ns, plan.wanted[each.index], tokenizer) for each in sent]
    return {"records": records, "effort": asdict(effort)}


async def _work() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=READ_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    job = orjson.loads(await orders.readline())
    plan = Plan.from_json(job["plan"])
    sender = Sender(plan, job["share"])
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sender.stop)
    await sender.prepare()
    print("ready", flush=True)
    begin_ns = int(await orders.readline() or perf_counter_ns())
    orphaned = asyncio.create_task(orders.read())
    orphaned.add_done_callback(lambda _: sender.stop())
    effort = await sender.run(begin_ns)
    sys.stdout.buffer.write(orjson.dumps(share_result(plan, sender.sent, effort, begin_ns)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=MeteredLoop) as runner:
        runner.run(_work())
