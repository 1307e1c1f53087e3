"""`sotactl bench run` against a real endpoint."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

PROGRAM = """
import sys
from sotad.cli import bench_run
from sotad.cli.entry import Parser, main
parser = Parser(prog="bench")
bench_run.add(parser.add_subparsers())
sys.exit(main(parser, sys.argv[1:]))
"""


VOCABULARY = range(35_000)


async def complete(request: web.Request) -> web.StreamResponse:
    """Two tokens per request, 10 ms apart."""
    body = await request.json()
    if not set(body["prompt"]) <= set(VOCABULARY):
        return web.json_response({"message": "a token id is out of vocabulary"}, status=400)
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(body["max_tokens"]):
        await asyncio.sleep(0.01)
        await response.write(b'data: {"choices": [{"text": "x "}]}\n\n')
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
    await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n")
    return response


@pytest.fixture
async def endpoint() -> AsyncIterator[str]:
    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "found-model"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/completions", complete)
    server = TestServer(app, shutdown_timeout=0.1)
    await server.start_server()
    yield str(server.make_url("")).rstrip("/")
    await server.close()


async def bench(*options: str) -> tuple[int | None, str, str]:
    argv = (sys.executable, "-c", PROGRAM, "run", *options)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
    out, said = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, out.decode(), said.decode()


SMALL = ("--num-prompts", "6", "--input-len", "5", "--output-len", "3")


async def test_one_row_for_each_concurrency(tmp_path: Path, endpoint: str) -> None:
    """The model is found, every level is measured, and its row is appended and printed."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"older": 1}\n')
    levels = ("--concurrency", "1", "--concurrency", "none", "--sla", "max_p50_ttft_ms=5000", "--out", str(rows))
    status, out, said = await bench(endpoint, *SMALL, *levels, "--json")
    assert status == 0, said
    printed = json.loads(out)["rows"]
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    assert kept == [{"older": 1}, *printed]
    one, free = printed
    assert (one["model"], one["workload"]["scenario"], one["workload"]["max_concurrency"]) == (
        "found-model",
        "cli-c1",
        1,
    )
    assert free["workload"]["max_concurrency"] is None and one["status"] == free["status"] == "ok"
    assert one["metrics"]["goodput"] == one["metrics"]["request_throughput"] < free["metrics"]["request_throughput"]
    assert one["sla"]["passed"] and one["client"]["valid"]


async def test_no_secret_of_the_command_line_is_kept(tmp_path: Path, endpoint: str) -> None:
    """The row holds the command that made it, without what looks like a token."""
    rows, token = tmp_path / "rows.jsonl", "hf_PlantedOnTheCommandLine0123456789"
    status, _, said = await bench(endpoint, *SMALL, "--concurrency", "1", "--model", token, "--out", str(rows))
    assert status == 0, said
    assert token not in rows.read_text() and "[redacted]" in rows.read_text()


async def test_missed_sla_is_told_with_status_1(endpoint: str) -> None:
    """The table shows every latency, and the limit that does not hold."""
    status, out, _ = await bench(f"{endpoint}/v1", *SMALL, "--sla", "max_p50_tpot_ms=0.1")
    assert status == 1
    assert all(word in out for word in ("TTFT", "TPOT", "ITL", "E2E", "P99", "SLA missed: max_p50_tpot_ms is"))


async def test_a_small_vocabulary(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that the model does not have are refused by its server; with its range given none is sent."""
    monkeypatch.setattr(sys.modules[__name__], "VOCABULARY", range(5, 40))
    status, out, said = await bench(endpoint, *SMALL)
    assert (status, "out of vocabulary" in out) == (1, True), said
    status, out, said = await bench(endpoint, *SMALL, "--tokens", "5,40")
    assert status == 0, (out, said)


async def test_interrupt_keeps_what_there_is(endpoint: str) -> None:
    """After Ctrl-C the partial numbers are shown, told as such, and the status is 130."""
    argv = (
        sys.executable,
        "-u",
        "-c",
        PROGRAM,
        "run",
        endpoint,
        *SMALL[2:],
        "--num-prompts",
        "1000",
        "--concurrency",
        "1",
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
    assert process.stderr is not None
    assert b"requests done" in await asyncio.wait_for(process.stderr.readline(), 30)
    process.send_signal(2)
    out, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert b"NO RESULT: the load generator was stopped" in out and b"partial" in said


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--sla", "max_p99_ttft_ms=1"), 2, "is not one of"),
        (("--concurrency", "0"), 2, "neither a number"),
        (("--arrival", "gamma"), 2, "needs a request_rate"),
        (("--dataset", "/no/such.jsonl"), 2, "/no/such.jsonl: cannot be read"),
        (("--out", "/no/such/rows.jsonl"), 2, "/no/such: no such folder"),
        (("--chat",), 2, "name tokenizer"),
        (("--tokens", "300"), 2, "two numbers, as in 300,30000"),
        (("--tokens", "40,40"), 2, "first_token must be below last_token"),
        (("--api-key-env", "SOTAD_TEST_NO_SUCH"), 2, "SOTAD_TEST_NO_SUCH"),
    ],
)
async def test_bad_input_is_one_line(endpoint: str, options: Any, status: int, said: str) -> None:
    """What cannot be done as asked is one line on stderr, and nothing on stdout."""
    found, out, error = await bench(endpoint, *options)
    assert (found, out) == (status, "") and said in error and error.count("\n") == 1


async def test_nobody_there_is_said() -> None:
    """An endpoint that does not answer ends at once with the address."""
    status, _, said = await bench(f"http://127.0.0.1:{unused_port()}")
    assert status == 1 and "Connection refused" in said and "Traceback" not in said
