"""Live profiles of real vLLM and SGLang on the CPU: `sotactl analyze capture`, and what the traces say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.help import Help, parse_help
from sotad.frameworks.render import Value
from sotad.hosts.local import free_port

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
ENV = {
    "vllm": {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"},
    "sglang": {},
}
FLAGS: dict[str, dict[str, Value]] = {
    "vllm": {"load_format": "dummy", "enforce_eager": True, "max_num_seqs": 16},
    "sglang": {
        "load_format": "dummy",
        "device": "cpu",
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "max_total_tokens": 16384,
        "disable_cuda_graph": True,
        "disable_overlap_schedule": True,
    },
}
STREAMS = 6
READY_S = 300


@contextmanager
def serving(kind: str, python: Path, model: Path, folder: Path) -> Iterator[str]:
    """The engine's base URL, with its profiler set up as the driver says; ended with all that it started."""
    driver = FRAMEWORKS[kind]
    how = driver.profiler(str(folder / "traces"), Help({}))
    assert how
    shape = {"id": str(model), "served_name": "tiny", "max_context": 1024}
    options = subprocess.run(
        [python, "-m", *driver.module[1:], driver.help_flag], capture_output=True, env=environment(kind), timeout=120
    )
    help = parse_help(options.stdout.decode(errors="replace"))
    made = driver.launch([str(python), *driver.module], shape, {**FLAGS[kind], **how.flags}, help)
    port = free_port()
    argv = [part.replace("{port}", str(port)) for part in made.argv]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, env={**environment(kind), **how.env}, start_new_session=True
        )
        try:
            until_ready(f"http://127.0.0.1:{port}{driver.ready_path}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(30)
            finally:
                subprocess.run(["pkill", "-9", "-g", str(process.pid)], check=False)


def environment(kind: str) -> dict[str, str]:
    return {**os.environ, **OFFLINE, **ENV[kind]}


def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the engine ended; see server.log"
        try:
            if urlopen(url, timeout=2).status == 200:
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"not ready after {READY_S} s")


def sotactl(*argv: str) -> Any:
    """The JSON that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "sotad.cli.control", *argv, "--json"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_stages_are_captured_apart(
    kind: str, tmp_path: Path, model: Path, engine: Callable[[str], Path], adopting_orphans: None
) -> None:
    """Five prefills of the asked length and five decode steps of the asked batch, each in a file of its own."""
    traces = tmp_path / "traces"
    with serving(kind, engine(kind), model, tmp_path) as url:
        shape = ("--input-len", "32", "--output-len", "900", "--concurrency", str(STREAMS), "--tokens", "300,4096")
        found = sotactl("analyze", "capture", url, "--framework", kind, "--folder", str(traces), "--cpu", *shape)
    assert [(stage["stage"], stage["problems"]) for stage in found["stages"]] == [("prefill", []), ("decode", [])]
    for stage in found["stages"]:
        told = sotactl("analyze", "trace", *stage["files"])
        steps = told["stages"][stage["stage"]]["steps"]
        assert steps["count"] >= 5 and told["kernels"] == 0
        assert steps["sequences"]["median"] == (1 if stage["stage"] == "prefill" else STREAMS)
