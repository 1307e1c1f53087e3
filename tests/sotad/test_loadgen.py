"""The load generator as a process, against servers that behave and servers that do not."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import given
from hypothesis import strategies as st

from sotad.benchmark.arrivals import arrivals
from sotad.benchmark.workload import Scenario, digest, prompts
from sotad.loadgen.plan import make_plan
from sotad.loadgen.stream import read_reply
from sotad.loadgen.wire import Patience

SCENARIO: dict[str, Any] = {"name": "chat", "num_prompts": 6, "input_len": 12, "output_len": 5, "seed": 3}


class Engine:
    """A server that streams one token every `pause_s`, and counts what it sees."""

    def __init__(self, pause_s: float = 0.005) -> None:
        self.pause_s = pause_s
        self.bodies: list[dict[str, Any]] = []
        self.running = self.most_running = 0

    def app(self) -> web.Application:
        app = web.Application()
        for name in (
            "good",
            "no_usage",
            "short",
            "cut",
            "garbage",
            "error",
            "hang",
            "busy",
            "html",
            "unfinished",
            "empty_deltas",
            "negative_usage",
            "nan_usage",
            "endless",
        ):
            app.router.add_post(f"/{name}/v1/completions", getattr(self, name))
        return app

    async def stream(self, request: web.Request, *, stop_after: int = 10**6, usage: bool = True) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        response = web.StreamResponse()
        await response.prepare(request)
        count = min(body["max_tokens"], stop_after)
        for index in range(count):
            await asyncio.sleep(self.pause_s)
            await self.event(response, {"choices": [{"text": f"t{index} ", "finish_reason": None}]})
        if usage:
            tokens = {"prompt_tokens": len(body["prompt"]), "completion_tokens": count}
            await self.event(response, {"choices": [], "usage": tokens})
        self.running -= 1
        return response

    async def event(self, response: web.StreamResponse, content: Any) -> None:
        await response.write(b"data: " + json.dumps(content).encode() + b"\n\n")

    async def good(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def no_usage(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, usage=False)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def short(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, stop_after=3)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def unfinished(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request)

    async def cut(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, stop_after=2, usage=False)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def garbage(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, stop_after=1, usage=False)
        await response.write(b'data: {"choices": [{"te\n\n')
        return response

    async def error(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, stop_after=1, usage=False)
        await self.event(response, {"error": {"message": "out of memory"}})
        return response

    async def hang(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, stop_after=1, usage=False)
        await asyncio.sleep(30)
        return response

    async def empty_deltas(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await self.event(response, {"choices": [{"text": "", "finish_reason": None}]})
        await self.event(response, {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 5}})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def negative_usage(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, usage=False)
        await self.event(response, {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": -5}})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def nan_usage(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, usage=False)
        await response.write(b'data: {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": NaN}}\n\n')
        await response.write(b"data: [DONE]\n\n")
        return response

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b": nothing to say\n" * 100_000)

    async def busy(self, request: web.Request) -> web.Response:
        return web.Response(status=503, text="no room")

    async def html(self, request: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>\n", content_type="text/html")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def server(engine: Engine) -> AsyncIterator[str]:
    server = TestServer(engine.app(), shutdown_timeout=0.1)
    await server.start_server()
    yield str(server.make_url("")).rstrip("/")
    await server.close()


async def launch(folder: Path, spec: dict[str, Any]) -> asyncio.subprocess.Process:
    (folder / "spec.json").write_text(json.dumps(spec))
    argv = [sys.executable, "-m", "sotad.loadgen", str(folder / "spec.json"), str(folder / "out.json")]
    return await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)


async def load(folder: Path, base_url: str, **options: Any) -> dict[str, Any]:
    spec = {"base_url": base_url, "model": "m", "scenario": SCENARIO, "max_concurrency": 2, **options}
    process = await launch(folder, spec)
    _, said = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0, said.decode()
    out: dict[str, Any] = json.loads((folder / "out.json").read_bytes())
    return out


async def test_every_request_is_sent_once_and_timed(tmp_path: Path, server: str, engine: Engine) -> None:
    """The server saw exactly the workload, and the times are those that it caused."""
    out = await load(tmp_path, f"{server}/good", warmup_requests=2)
    wanted = prompts(Scenario(**SCENARIO))
    assert sorted(body["prompt"] for body in engine.bodies[2:]) == sorted(wanted)
    assert all(body["ignore_eos"] and body["temperature"] == 0 for body in engine.bodies)
    assert engine.bodies[0]["prompt"] not in wanted, "a warm-up prompt would fill the prefix cache"
    assert out["warmup"] == {"requests": 2, "failed": 0}
    assert out["workload_digest"] == digest(Scenario(**SCENARIO))
    for request in out["requests"]:
        assert request["error"] is None
        assert (request["prompt_tokens"], request["output_tokens"], request["tokens_source"]) == (
            12,
            5,
            "usage",
        )
        assert request["text"] == "t0 t1 t2 t3 t4 "
        assert request["planned_ns"] <= request["sent_ns"] < request["first_token_ns"]
        assert request["first_token_ns"] - request["sent_ns"] >= 5e6
        assert request["last_token_ns"] - request["first_token_ns"] >= 4 * 4e6
        assert request["chunk_ns"] == sorted(request["chunk_ns"]) and len(request["chunk_ns"]) == 5
    assert out["duration_s"] >= 3 * 5 * 0.005
    assert out["client"]["late_ms_max"] < 1000 and out["client"]["cpu_share"] > 0


@pytest.mark.parametrize("at_once", [1, 3])
async def test_concurrency_is_reached_and_never_exceeded(
    tmp_path: Path, server: str, engine: Engine, at_once: int
) -> None:
    """A closed loop keeps exactly max_concurrency requests under way."""
    await load(tmp_path, f"{server}/good", max_concurrency=at_once)
    assert engine.most_running == at_once


async def test_rate_spreads_the_requests(tmp_path: Path, server: str) -> None:
    """With a rate, requests are sent at their Poisson times and not before."""
    out = await load(tmp_path, f"{server}/good", request_rate=20.0, max_concurrency=100)
    due = arrivals(6, 20.0, SCENARIO["seed"])
    assert due[-1] > 0.05, "the test needs a spread"
    for request, moment in zip(out["requests"], due, strict=True):
        assert request["due_ns"] == pytest.approx(moment * 1e9, abs=2)
        assert request["sent_ns"] >= request["due_ns"]


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("no_usage", "no_usage"),
        ("short", "short_output"),
        ("cut", "closed_early"),
        ("unfinished", "closed_early"),
        ("garbage", "garbage"),
        ("html", "garbage"),
        ("error", "server_error"),
        ("busy", "http_status"),
        ("empty_deltas", "garbage"),
        ("negative_usage", "garbage"),
        ("nan_usage", "garbage"),
    ],
)
async def test_misbehaviour_has_a_name(tmp_path: Path, server: str, behaviour: str, kind: str) -> None:
    """A reply that is not complete and counted is an error of a known kind, and the run goes on."""
    out = await load(tmp_path, f"{server}/{behaviour}")
    assert [request["error"]["kind"] for request in out["requests"]] == [kind] * 6


@pytest.mark.parametrize(("limit", "kind"), [("stall_s", "stalled"), ("timeout_s", "timeout")])
async def test_hanging_server_does_not_hang_the_run(tmp_path: Path, server: str, limit: str, kind: str) -> None:
    """A silent server fails the request after stall_s, a slow one after timeout_s, keeping what came."""
    out = await load(tmp_path, f"{server}/hang", max_concurrency=6, **{limit: 0.5})
    assert {request["error"]["kind"] for request in out["requests"]} == {kind}
    assert {request["text"] for request in out["requests"]} == {"t0 "}


async def test_reply_without_end_is_cut_off(tmp_path: Path, server: str) -> None:
    """A server that never stops fails its request at a bound of memory, whatever the patience."""
    out = await load(tmp_path, f"{server}/endless", scenario={**SCENARIO, "num_prompts": 1})
    assert out["requests"][0]["error"]["kind"] == "garbage"
    assert "larger than" in out["requests"][0]["error"]["detail"]


async def test_several_processes_share_one_run(tmp_path: Path, server: str, engine: Engine) -> None:
    """Two processes send each request once, keep the concurrency together, and report on one clock."""
    out = await load(
        tmp_path, f"{server}/good", scenario={**SCENARIO, "num_prompts": 20}, max_concurrency=4, processes=2
    )
    wanted = prompts(Scenario(**{**SCENARIO, "num_prompts": 20}))
    assert sorted(body["prompt"] for body in engine.bodies) == sorted(wanted)
    assert [each["index"] for each in out["requests"]] == list(range(20))
    assert {each["error"] for each in out["requests"]} == {None} and engine.most_running <= 4
    assert len(out["client"]["processes"]) == 2
    assert all(0 <= each["sent_ns"] < each["first_token_ns"] <= out["duration_s"] * 1e9 for each in out["requests"])


TAKE = """
import sys
from types import SimpleNamespace
from sotad.loadgen.plan import Shared
shared = object.__new__(Shared)
shared._plan = SimpleNamespace(tickets_fd=int(sys.argv[1]))
sys.stdin.readline()
while (index := shared.next()) is not None:
    print(index)
"""


def test_no_ticket_is_taken_twice() -> None:
    """Three processes that take as fast as they can: every request has exactly one sender."""
    plan = make_plan("http://x", Patience(1, 1), [b"x"] * 60_000, [0] * 60_000, [None] * 60_000, [1, 1, 1])
    argv = [sys.executable, "-c", TAKE, str(plan.tickets_fd)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "pass_fds": [plan.tickets_fd]}
    takers = [subprocess.Popen(argv, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    with ThreadPoolExecutor(3) as pool:
        taken = [int(line) for out, _ in pool.map(lambda t: t.communicate(b"go\n", 60), takers) for line in out.split()]
    plan.close()
    assert sorted(taken) == list(range(60_000))


async def test_unlimited_concurrency_sends_all_at_once(tmp_path: Path, server: str, engine: Engine) -> None:
    """null is no limit: every request is under way before the first has ended."""
    engine.pause_s = 0.05
    await load(tmp_path, f"{server}/good", max_concurrency=None)
    assert engine.most_running == 6


async def test_missing_api_key_is_said_and_nothing_is_sent(tmp_path: Path, server: str, engine: Engine) -> None:
    """A key that is not in the environment is one line and exit status 2."""
    spec = {"base_url": server, "model": "m", "scenario": SCENARIO, "max_concurrency": 2}
    process = await launch(tmp_path, {**spec, "api_key_env": "SOTAD_TEST_NO_SUCH_KEY"})
    _, said = await process.communicate()
    assert process.returncode == 2 and b"SOTAD_TEST_NO_SUCH_KEY" in said and said.count(b"\n") == 1
    assert not engine.bodies


async def test_nobody_listening_is_a_connect_error(tmp_path: Path) -> None:
    """A server that is not there fails every request and not the program."""
    out = await load(tmp_path, f"http://127.0.0.1:{unused_port()}")
    assert {request["error"]["kind"] for request in out["requests"]} == {"connect"}


async def test_sigterm_keeps_what_was_measured(tmp_path: Path, server: str, engine: Engine) -> None:
    """Told to stop, the program writes what it has and says that it is not whole."""
    engine.pause_s = 0.1
    spec = {"base_url": f"{server}/good", "model": "m", "max_concurrency": 1}
    process = await launch(tmp_path, {**spec, "scenario": {**SCENARIO, "num_prompts": 50}})
    async with asyncio.timeout(30):
        while len(engine.bodies) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 143
    out = json.loads((tmp_path / "out.json").read_bytes())
    kinds = [request["error"] and request["error"]["kind"] for request in out["requests"]]
    assert out["interrupted"] and kinds == [None, *["cancelled"] * 49]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{", "not JSON"),
        ('{"base_url": "http://x", "model": "m", "max_concurrency": 1}', "scenario: Field required"),
        ('{"base_url": "x", "model": "m"}', "base_url: "),
    ],
)
async def test_bad_spec_is_one_line_and_exit_2(tmp_path: Path, spec: str, said: str) -> None:
    """A wrong specification names file and field, and nothing is written."""
    (tmp_path / "spec.json").write_text(spec)
    argv = [sys.executable, "-m", "sotad.loadgen", str(tmp_path / "spec.json"), str(tmp_path / "out.json")]
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    assert process.returncode == 2
    assert error.decode().startswith(f"{tmp_path}/spec.json: {said}") and error.count(b"\n") == 1
    assert not (tmp_path / "out.json").exists()


STREAM = (
    b'data: {"choices": [{"text": "h\xc3\xa9", "token_ids": [1, 2]}]}\r\n\r\n: ping\n\n'
    b'data: {"choices": [{"text": "llo", "token_ids": [3], "finish_reason": "length"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'
)


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_chunk_boundaries_do_not_matter(cuts: list[int]) -> None:
    """However the network cuts the stream, the reply is the same, and so is which chunk completed a token."""
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(edges)]
    reply = read_reply(list(enumerate(chunks)))
    assert reply.failure is None
    assert (reply.text, reply.streamed_tokens, reply.output_tokens) == ("héllo", 3, 3)
    assert (reply.prompt_tokens, reply.finish_reason) == (4, "length")
    ends = [STREAM.index(b"]}]}\r\n") + 6, STREAM.index(b'"length"}]}\n') + 12]
    assert reply.token_ns == [next(i for i, edge in enumerate(edges[1:]) if edge >= end) for end in ends]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_a_crash(data: bytes) -> None:
    """Whatever a server sends is a reply with a failure, never an exception."""
    assert read_reply([(1, data)] if data else []).failure is not None
