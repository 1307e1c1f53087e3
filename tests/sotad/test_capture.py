"""Live capture: what is sent when the profiler is armed, what counts as a trace, what is refused."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sotad.capture.check import problems
from sotad.capture.plan import DECODE_TOKENS, Call, CaptureSpec, Expected, Stage, stages_of
from sotad.capture.session import CaptureFailed, capture, whole
from sotad.frameworks import FRAMEWORKS

PREFILL = Stage(stage="prefill", input_len=8, output_len=1, streams=1, warmup=3, active=2)
DECODE = Stage(stage="decode", input_len=8, output_len=400, streams=3, warmup=4, active=5)


@dataclass
class Engine:
    """An HTTP server that streams tokens at once and writes a trace of what it served while its profiler was on."""

    folder: Path
    profiling: bool = False
    running: int = 0
    traced: list[str] = field(default_factory=list)
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    refuse: str = ""
    writes: bool = True
    slow_start_s: float = 0.0
    place: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(100))

    async def complete(self, http: web.Request) -> web.StreamResponse:
        body = await http.json()
        self.prompts.append(tuple(body["prompt"]))
        if self.refuse == "completions":
            return web.json_response({"error": "too long"}, status=400)
        answer = web.StreamResponse()
        await answer.prepare(http)
        await self.place.acquire()
        self.running += 1
        try:
            self._trace(f"step[EXTEND bs=1 toks={len(body['prompt'])}]")
            for _ in range(body["max_tokens"]):
                self._trace(f"step[DECODE bs={self.running}]")
                await answer.write(b'data: {"choices":[{"text":"a"}]}\n\n')
                await asyncio.sleep(0.001)
            await answer.write(b'data: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n')
        finally:
            self.running -= 1
            self.place.release()
        return answer

    def _trace(self, step: str) -> None:
        if self.profiling:
            self.traced.append(step)

    async def start(self, _: web.Request) -> web.Response:
        if self.refuse == "start":
            return web.Response(status=500, text="the profiler is not configured")
        await asyncio.sleep(self.slow_start_s)
        self.profiling, self.traced = True, []
        return web.Response()

    async def stop(self, _: web.Request) -> web.Response:
        self.profiling = False
        if self.writes:
            trace = write_trace(self.folder / f"{len(list(self.folder.iterdir()))}.trace.json.gz", self.traced)
            assert whole(trace)
        return web.Response()


def write_trace(path: Path, steps: list[str], kernels: bool = False, launch: str = "cudaLaunchKernel") -> Path:
    """A trace with one operator, and on request one kernel, in each step."""
    events: list[dict[str, Any]] = []
    for number, step in enumerate(steps):
        at: dict[str, Any] = {"ph": "X", "pid": 1, "tid": 1, "ts": 100.0 * number, "dur": 90.0}
        events += [
            {**at, "cat": "user_annotation", "name": step},
            {**at, "cat": "cpu_op", "name": "aten::mm", "dur": 80},
        ]
        if kernels:
            ids = {"correlation": number + 1, "stream": 7, "device": 0}
            events.append({**at, "cat": "cuda_runtime", "name": launch, "dur": 5.0, "args": ids})
            events.append({**at, "pid": 0, "tid": 7, "cat": "kernel", "name": "gemm", "dur": 50.0, "args": ids})
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    return path


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[str]:
    """The engine's base URL."""
    app = web.Application()
    app.router.add_post("/v1/completions", engine.complete)
    app.router.add_post("/start_profile", engine.start)
    app.router.add_post("/stop_profile", engine.stop)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def spec(url: str, folder: Path, *stages: Stage, **more: Any) -> CaptureSpec:
    calls = {"start": Call(path="/start_profile"), "stop": Call(path="/stop_profile")}
    given = {"settle_s": 2.0, "timeout_s": 10.0, **calls, **more}
    return CaptureSpec(base_url=url, model="m", folder=str(folder), stages=list(stages), **given)


async def test_each_stage_has_a_trace_of_its_own_steps(tmp_path: Path) -> None:
    """Prefill is traced after its warm-up, request by request; decode when all streams run; no prompt comes twice."""
    engine = Engine(tmp_path)
    async with serving(engine) as url:
        found = await capture(spec(url, tmp_path, PREFILL, DECODE))
    prefill, decode = found["stages"]
    assert [stage["stage"] for stage in found["stages"]] == ["prefill", "decode"]
    assert prefill["files"] != decode["files"] and len(prefill["files"]) == len(decode["files"]) == 1
    assert len(engine.prompts) == len(set(engine.prompts)) == 3 + 2 + 3
    assert engine.traced and set(engine.traced) == {"step[DECODE bs=3]"}
    assert problems([Path(prefill["files"][0])], PREFILL, Expected(gpu=False)) == []
    assert problems([Path(decode["files"][0])], DECODE, Expected(gpu=False)) == []


async def test_a_server_that_runs_fewer_streams_is_captured_as_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest waits in its queue; nobody waits for them."""
    monkeypatch.setattr("sotad.capture.probes.QUIET_S", 0.05)
    engine = Engine(tmp_path, place=asyncio.Semaphore(2))
    async with serving(engine) as url:
        found = await capture(spec(url, tmp_path, DECODE))
    assert set(engine.traced) == {"step[DECODE bs=2]"}
    assert problems([Path(file) for file in found["stages"][0]["files"]], DECODE, Expected(gpu=False)) == []


async def test_streams_that_end_before_the_profiler_is_armed_are_sent_again(tmp_path: Path) -> None:
    """Then the profiler is armed first, and the trace holds their prefill too."""
    engine = Engine(tmp_path, slow_start_s=0.5)
    short = DECODE.model_copy(update={"output_len": 20})
    async with serving(engine) as url:
        found = await capture(spec(url, tmp_path, short))
    assert "step[EXTEND bs=1 toks=8]" in engine.traced and len(engine.prompts) == len(set(engine.prompts)) == 6
    assert problems([Path(file) for file in found["stages"][0]["files"]], short, Expected(gpu=False)) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"refuse": "start"}, "/start_profile was answered 500: the profiler is not configured"),
        ({"refuse": "completions"}, "prefill: a request was answered 400"),
        ({"writes": False}, "no trace appeared"),
    ],
)
async def test_a_capture_that_fails_says_why(tmp_path: Path, broken: dict[str, Any], words: str) -> None:
    """One line with the stage or the call; the profiler is not left running."""
    engine = Engine(tmp_path, **broken)
    async with serving(engine) as url:
        with pytest.raises(CaptureFailed, match=words):
            await capture(spec(url, tmp_path, PREFILL, settle_s=0.3))
    assert not engine.profiling


def test_stages_take_the_scenario_s_own_shape() -> None:
    """Prompt length and concurrency are the scenario's; decode is long enough to arm the profiler in."""
    shape = {"input_len": 1000, "output_len": 100, "num_prompts": 80, "max_concurrency": 16}
    prefill, decode = stages_of(shape, 4096)
    assert (prefill.input_len, prefill.output_len, prefill.warmup, prefill.active) == (1000, 1, 10, 5)
    assert (decode.input_len, decode.streams, decode.output_len) == (1000, 16, DECODE_TOKENS)
    assert stages_of(shape, 1100)[1].output_len == 100
    assert stages_of({**shape, "max_concurrency": None}, None)[1].streams == 80


@pytest.mark.parametrize(
    ("steps", "kernels", "launch", "words"),
    [
        (["step[EXTEND bs=1 toks=8]"], True, "", "0 decode steps in the trace"),
        (["step[DECODE bs=3]"] * 6, False, "", "no GPU kernel"),
        (["step[DECODE bs=3]"] * 6, True, "cudaLaunchKernel", "without CUDA graphs"),
        (["step[DECODE bs=3]"] * 6, True, "cudaGraphLaunch", ""),
    ],
)
def test_a_trace_of_something_else_is_refused(
    tmp_path: Path, steps: list[str], kernels: bool, launch: str, words: str
) -> None:
    """A server that silently did something else explains nothing."""
    found = problems([write_trace(tmp_path / "x.trace.json.gz", steps, kernels, launch)], DECODE, Expected())
    assert any(words in problem for problem in found) if words else found == []


def test_half_a_file_is_not_a_trace(tmp_path: Path) -> None:
    """What is still being written is waited for."""
    good = write_trace(tmp_path / "x.trace.json.gz", ["step[DECODE bs=1]"])
    assert whole(good)
    good.write_bytes(good.read_bytes()[:-9])
    plain = tmp_path / "y.trace.json"
    plain.write_text('{"traceEvents": [{"ph": "X"')
    assert not whole(good) and not whole(plain)


@pytest.mark.parametrize(
    ("kind", "line", "flags", "words"),
    [
        ("sglang", "Cuda graph is disabled because of using torch native attention backend", {}, "Cuda graph is"),
        ("sglang", "Cuda graph is disabled because of it", {"disable_cuda_graph": True}, ""),
        ("vllm", "FlashInfer failed to load. Falling back to the FLASH_ATTN backend.", {}, "Falling back"),
        ("vllm", "No autotune cache entries found. Falling back to default tactics.", {}, ""),
        ("vllm", "Using AttentionBackendEnum.FLASH_ATTN backend.", {"attention_backend": "FLASHINFER"}, "FLASHINFER"),
        ("vllm", "Using AttentionBackendEnum.FLASH_ATTN backend.", {"attention-backend": "flash_attn"}, ""),
        ("sglang", "ServerArgs(model_path='m', attention_backend='fa3')", {"attention_backend": "triton"}, "fa3"),
        ("sglang", "Using fallback token IDs for yes/no (9693/2152)", {}, ""),
    ],
)
def test_a_server_that_fell_back_is_told_by_its_log(kind: str, line: str, flags: dict[str, Any], words: str) -> None:
    """Only what concerns how the model is run, and only when the flags did not ask for it."""
    found = FRAMEWORKS[kind].fell_back(f"INFO fine\n{line}\n", flags)
    assert any(words in reason for reason in found) if words else found == []
