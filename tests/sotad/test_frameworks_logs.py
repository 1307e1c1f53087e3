"""Why a server ended: real logs, and lines that real servers print."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.logs import LONGEST_LINE, classify

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[3] / "shared/data"))
HEALTHY = sorted(path for path in DATA.glob("*/*/*.log") if path.name not in ("serve2.log", "serve_mrr8.log"))
REAL = {
    "cpu/sglang/serve2.log": ("unsupported", "ModuleNotFoundError: No module named 'vllm'"),
    "cpu/help/vllm_bench_sweep_serve___help.txt.err": (
        "crash",
        "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm",
    ),
}


@pytest.mark.skipif(not HEALTHY, reason="no folder with real logs")
@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: str(path.relative_to(DATA)))
def test_servers_that_were_stopped_have_no_failure(path: Path) -> None:
    """Advice, echoed settings, requests that failed and what was printed at the stop are no reasons."""
    found = classify(path.read_text(errors="replace"))
    assert (found.status, found.kind, found.line) == ("failed", "ended", "")


@pytest.mark.skipif(not HEALTHY, reason="no folder with real logs")
@pytest.mark.parametrize("name", REAL)
def test_servers_that_failed(name: str) -> None:
    """The line that a person would point at."""
    found = classify((DATA / name).read_text(errors="replace"))
    assert (found.kind, found.line) == REAL[name]


VALIDATION = """\
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig
(APIServer pid=7)   Value error, max_num_batched_tokens (8) must be at least max_num_seqs (16). [type=value_error]
(APIServer pid=7)     For further information visit https://errors.pydantic.dev/2/v/value_error
"""


def test_a_refused_configuration_is_told_with_its_cause() -> None:
    """pydantic names only the class in the exception's own line."""
    found = classify(VALIDATION)
    assert found.kind == "crash" and "max_num_batched_tokens (8) must be at least max_num_seqs (16)." in found.line
    assert "pid=" not in found.line and "further" not in found.line


VLLM_OOM = """\
(EngineCore pid=412) INFO 11-21 21:05:22 [gpu_worker.py:560] Available KV cache memory: -3.10 GiB
(EngineCore pid=412) ERROR 11-21 21:05:22 [core.py:900] EngineCore failed to start.
(EngineCore pid=412) ERROR 11-21 21:05:22 [core.py:900] Traceback (most recent call last):
(EngineCore pid=412) ERROR 11-21 21:05:22 [core.py:900]   File "kv_cache_utils.py", line 1, in check
(EngineCore pid=412) ERROR 11-21 21:05:22 [core.py:900] ValueError: No available memory for the cache blocks. Try
(APIServer pid=400) Traceback (most recent call last):
(APIServer pid=400) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
VLLM_CRASH = """\
(EngineCore pid=412) ERROR 11-21 21:05:22 [core.py:900] Traceback (most recent call last):
(EngineCore pid=412) ERROR 11-21 21:05:22 [core.py:900]   File "x.py", line 1, in load
(EngineCore pid=412) ERROR 11-21 21:05:22 [core.py:900] KeyError: 'layers.0.weight'
(APIServer pid=400) Traceback (most recent call last):
(APIServer pid=400) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
LINES = [
    ("oom", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
    ("oom", "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."),
    ("oom", "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory"),
    ("oom", "[TensorRT-LLM][ERROR] cudaErrorMemoryAllocation in allocate()"),
    ("bad_flag", "vllm: error: unrecognized arguments: --max-foo 3"),
    ("bad_flag", "launch_server.py: error: argument --dtype: invalid choice: 'f8' (choose from auto, half)"),
    ("bad_flag", "launch_server.py: error: argument --tp-size: expected one argument"),
    ("bad_flag", "Error: No such option: --max-num-seqs"),
    ("bad_flag", "Error: Invalid value for '--backend': 'x' is not one of 'pytorch'."),
    ("unsupported", "ValueError: Model architectures ['FooForCausalLM'] are not supported for now."),
    ("unsupported", "RuntimeError: FlashAttention 3 is not supported on this device, requires sm_90"),
    ("unsupported", "NotImplementedError: speculative decoding with pipeline parallelism"),
    ("unsupported", "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    ("port", "OSError: [Errno 98] Address already in use"),
    (
        "port",
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 80): address already in use",
    ),
    ("port", "RuntimeError: Failed to bind socket to localhost:8000: [Errno 98]"),
    ("timeout", "[2026-11-21 21:09:03] Scheduler watchdog timeout (self.watchdog_timeout=300, self.soft=False)"),
    ("timeout", "TimeoutError: Timed out waiting for engine core processes to start."),
    ("crash", "Fatal Python error: Segmentation fault"),
    ("crash", "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace"),
    ("crash", "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"),
]


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_lines(kind: str, line: str) -> None:
    """Each kind is told by its line, wherever in the log it stands; its status is that of a row."""
    found = classify(f"INFO starting\n  {line}  \nINFO done\n")
    assert (found.kind, found.line) == (kind, line)
    assert found.status == {"oom": "oom", "timeout": "timeout"}.get(kind, "failed")


def test_the_root_cause_counts() -> None:
    """What a second process says about the first is not the reason, and memory explains more than a traceback."""
    assert classify(VLLM_OOM).kind == "oom" and "No available memory" in classify(VLLM_OOM).line
    assert (classify(VLLM_CRASH).kind, classify(VLLM_CRASH).line) == ("crash", "KeyError: 'layers.0.weight'")


def test_chained_exceptions_end_with_the_last() -> None:
    """Of one process's chain the last exception is what ended it."""
    begin = "Traceback (most recent call last):\n"
    log = f"{begin}KeyError: 1\n\nDuring handling of it:\n\n{begin}OSError: b\n"
    assert classify(log).line == "OSError: b"


def test_an_exception_that_the_server_outlived_is_no_crash() -> None:
    """A request's traceback before an orderly end says nothing."""
    log = "Traceback (most recent call last):\nValueError: bad request\nINFO:  Application shutdown complete.\n"
    assert classify(log).kind == "ended"
    assert classify("").line == "" and classify("").kind == "ended"


def test_lines_are_bounded() -> None:
    """A line of megabytes is cut."""
    assert len(classify("CUDA out of memory " + "x" * 10**6).line) == LONGEST_LINE


def test_words_of_one_framework() -> None:
    """A driver's own patterns come first."""
    log = "refengine: error: KV cache of 128 tokens cannot hold one sequence of max_model_len 256; raise --kv-tokens"
    assert FRAMEWORKS["reference"].failure(log).status == "oom" and classify(log).kind == "ended"
    assert FRAMEWORKS["tensorrt_llm"].failure("Error: x is not a known backend, check help").kind == "unsupported"
