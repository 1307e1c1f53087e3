"""The rival where no vLLM is installed: a client written the way serving benchmarks usually are.

``python bench_loadgen_aiohttp.py URL JOB.json OUT.json``: one process, aiohttp, one task per request behind a
semaphore, lines split and parsed as they come, clock read after the parsing. It measures what such clients
report: when a request was sent, and when each token was seen.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from time import perf_counter_ns, process_time
from typing import Any

import aiohttp

Seen = dict[str, Any]


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any], slots: asyncio.Semaphore) -> Seen:
    """One request, seen the usual way."""
    async with slots:
        times: list[int] = []
        tokens, text = 0, ""
        sent = perf_counter_ns()
        async with session.post(url, json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                line = line.strip()
                if not line:
                    continue
                data = line.decode("utf-8").removeprefix("data: ")
                if data == "[DONE]":
                    continue
                event = json.loads(data)
                if choices := event.get("choices"):
                    times.append(perf_counter_ns())
                    text += choices[0].get("text") or ""
                elif usage := event.get("usage"):
                    tokens = usage["completion_tokens"]
        return {"prompt": body["prompt"], "sent_ns": sent, "chunk_ns": times, "tokens": tokens}


async def main(url: str, job: dict[str, Any]) -> Seen:
    """Every request of the job, at most `at_once` of them at a time."""
    slots = asyncio.Semaphore(job["at_once"])
    timeout = aiohttp.ClientTimeout(total=6 * 3600)
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, force_close=False)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        begin, cpu = perf_counter_ns(), process_time()
        requests = await asyncio.gather(*(ask(session, url, body, slots) for body in job["bodies"]))
        wall_s = (perf_counter_ns() - begin) / 1e9
    return {"requests": requests, "wall_s": wall_s, "cpu_s": process_time() - cpu}


if __name__ == "__main__":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    outcome = asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_bytes())))
    Path(sys.argv[3]).write_text(json.dumps(outcome))
