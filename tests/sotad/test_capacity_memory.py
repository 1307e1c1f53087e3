"""Memory accounts: known cases with their arithmetic, conflicts with their sign, failures by phase, notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sotad.capacity.concurrency import Length, parse_lengths, rows
from sotad.capacity.errors import CapacityError
from sotad.capacity.report import Asked, analyse
from sotad.capacity.smi import read_smi
from sotad.capacity.tokens import Count, Pool

AT = "[2027-01-04 11:02:43 TP0]"
ARGS = "[2027-01-04 11:02:07] server_args=ServerArgs(model_path='/m/acme', tp_size=1, mem_fraction_static={fraction})\n"
OLD = f"""\
{AT} Load weight begin. avail mem=93.61 GB
{AT} DSv4 memory calculation: bytes_per_full_token=15955.85, available_bytes=45.78 GB, full_token=3080960
{AT} Memory pool end. avail mem=10.18 GB
{AT} Capture cuda graph end. Time elapsed: 54.61 s. mem usage=1.93 GB. avail mem=8.25 GB.
{AT} max_total_num_tokens=3080960, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=256, \
context_len=131072, available_gpu_mem=8.25 GB
"""
NEW = f"""\
{AT} Load weight begin. avail mem=93.61 GB
{AT} Memory profiling: available_gpu_memory=57.01 GB, total_gpu_memory=93.58 GB, \
mem_fraction_static=0.60, rest_memory=19.58 GB
{AT} Memory pool end. avail mem=36.31 GB
"""
WORKED = (
    ARGS.format(fraction=0.84)
    + f"""\
{AT} Load weight begin. avail mem=138.72 GB
{AT} Memory profiling: available_gpu_memory=120.00 GB, total_gpu_memory=138.70 GB, \
mem_fraction_static=0.84, rest_memory=97.81 GB
{AT} SW KV memory calculation: bytes_per_full_token=9216.50, available_bytes=97.81 GB, full_token=11394816
{AT} Memory pool end. avail mem=21.90 GB
{AT} Capture cuda graph end. Time elapsed: 36.02 s. mem usage=1.20 GB. avail mem=20.61 GB.
{AT} max_total_num_tokens=11394816, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=512, \
context_len=131072, available_gpu_mem=20.61 GB
"""
)
LLM = """\
(EngineCore pid=9) INFO 01-04 11:10:02 [gpu_model_runner.py:2600] Model loading took 17.90 GiB and 6.1 seconds
"""


@pytest.fixture
def report(tmp_path: Path) -> Any:
    """Analyses a log given as text; ``smi`` is nvidia-smi's file as text."""

    def run(text: str, smi: str | None = None, lengths: str = "4096,6144,8192", **asked: Any) -> dict[str, Any]:
        (tmp_path / "server.log").write_text(text)
        if smi is not None:
            (tmp_path / "smi.csv").write_text(smi)
            asked["nvidia_smi"] = tmp_path / "smi.csv"
        return analyse(tmp_path / "server.log", Asked(parse_lengths(lengths), **asked))

    return run


def test_log_without_profiling_line(report: Any) -> None:
    """Weights follow from what the pool phase took; with nvidia-smi the shares of the use add up to 100."""
    found = report(OLD, smi="0, 89846 MiB, 8028 MiB\n")
    memory = found["memory_breakdown"]
    assert memory["device_total_gib"] == 95.58
    assert memory["framework_overhead_gib"] == 1.97
    assert memory["model_weights_gib"] == 37.65
    assert memory["cuda_graph_gib"] == 1.93
    assert memory["total_used_gib"] == 87.74
    parts = [
        memory[f"{name}_gib"] for name in ("framework_overhead", "model_weights", "kv_pool", "cuda_graph", "other")
    ]
    assert sum(parts) == pytest.approx(87.74, abs=0.03)
    assert memory["provenance"]["weights"]["source"] == "derived"


def test_both_ways_to_the_weights_and_their_spread(report: Any) -> None:
    """`total - available` is the weights, not `before - total`; the pool method differs, and that is said."""
    memory = report(NEW)["memory_breakdown"]
    assert memory["model_weights_gib"] == 36.57
    assert memory["provenance"]["weights_by_pool"]["gib"] == 37.72
    spread = next(each for each in memory["conflicts"] if each["name"] == "weights_spread")
    assert spread["gib"] == 1.15


def test_weights_from_the_profiling_line_alone(report: Any) -> None:
    """The line alone is enough: 93.58 - 57.01."""
    assert report(NEW.splitlines()[1] + "\n")["memory_breakdown"]["model_weights_gib"] == 36.57


def test_worked_example_closes(report: Any) -> None:
    """Overhead, weights, pool, graphs, what is in no line, and what is free are the device."""
    found = report(WORKED, smi="0, 0 MiB, 143165 MiB\n")  # 139.81 GiB
    memory = found["memory_breakdown"]
    assert (memory["model_weights_gib"], memory["framework_overhead_gib"]) == (18.7, 1.09)
    assert (memory["unattributed_pool_gib"], memory["unattributed_graph_gib"]) == (0.31, 0.09)
    parts = (
        "framework_overhead",
        "model_weights",
        "kv_pool",
        "cuda_graph",
        "unattributed_pool",
        "unattributed_graph",
        "free",
    )
    assert sum(memory[f"{name}_gib"] for name in parts) == pytest.approx(139.81, abs=0.05)
    assert found["kv_bytes_per_token"] == 9216.5


def test_conflicting_accounts_keep_their_sign(report: Any) -> None:
    """Less in use than the log accounts for is shown as a negative rest, not as 0."""
    memory = report(OLD, smi="0, 80000 MiB, 17874 MiB\n")["memory_breakdown"]
    assert memory["other_gib"] == pytest.approx(80000 / 1024 - 87.33, abs=0.02)
    assert [each["name"] for each in memory["conflicts"]] == ["other"]


@pytest.mark.parametrize(
    ("tokens", "limit", "expected"),
    [
        (3080960, 256, {6144: (501, 256)}),
        (1317632, 256, {6144: (214, 214)}),
        (3080960, 512, {4096: (752, 512), 6144: (501, 501), 8192: (376, 376)}),
    ],
)
def test_requests_at_once(tokens: int, limit: int, expected: dict[int, tuple[int, int]]) -> None:
    """Tokens over length, and the request limit where it is smaller."""
    pool = Pool(0, Count(tokens), Count(None), Count(None), Count(limit))
    found = rows([Length(length) for length in expected], [pool], 1, None, None)
    assert {row["request_tokens"]: (row["token_limit"], row["max_concurrent"]) for row in found} == expected
    assert {row["binding"] for row in found if row["token_limit"] > limit} <= {"requests"}


def test_pages_windows_and_context() -> None:
    """A request takes whole pages; the sliding pool holds only its window; beyond the context nothing fits."""
    pool = Pool(0, Count(1000), Count(300), Count(None), Count(None))
    row = rows([Length(65)], [pool], 64, None, 30)[0]
    assert (row["rounded_tokens"], row["token_limit"], row["max_concurrent"]) == (128, 7, 4)
    assert row["binding"] == "sliding window pool"
    assert rows([Length(65)], [pool], 64, 64, None)[0]["max_concurrent"] == 0


def test_input_and_output_apart() -> None:
    """With the split, the mean length tells how many requests fit while they are of all ages."""
    pool = Pool(0, Count(30_000), Count(None), Count(None), Count(None))
    row = rows(parse_lengths("1000+1000"), [pool], 1, None, None)[0]
    assert (row["token_limit"], row["token_limit_at_mean_length"]) == (15, 20)


@pytest.mark.parametrize("text", ["", "0", "-1", "a", "10+", "1,,2", "1.5"])
def test_lengths_that_are_none(text: str) -> None:
    """A length is a positive whole number."""
    with pytest.raises(ValueError, match="tokens"):
        parse_lengths(text)


def test_own_concurrency_that_disagrees_is_flagged(report: Any) -> None:
    """Two percent apart and more is a warning, with the sign of the difference."""
    text = LLM + (
        "(EngineCore pid=9) INFO 01-04 [kv_cache_utils.py:870] GPU KV cache size: 81,920 tokens\n"
        "(EngineCore pid=9) INFO 01-04 [utils.py:874] Maximum concurrency for 8,192 tokens per request: 12.50x\n"
    )
    found = report(text)
    row = found["reported_concurrency"][0]
    assert (row["computed"], row["difference_pct"], row["agrees"]) == (10.0, -20.0, False)
    assert any("-20.0 % off" in warning for warning in found["warnings"])


OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB "
    "of which 1.20 GiB is free.\n"
)
BEGIN = f"{AT} Load weight begin. avail mem=78.00 GB\n"
END = f"{AT} Load weight end. type=A, avail mem=60.00 GB, mem usage=18.00 GB.\n"
POOL = (
    f"{AT} KV Cache is allocated. #tokens: 1000, K size: 20.00 GB, V size: 20.00 GB\n"
    f"{AT} Memory pool end. avail mem=20.00 GB\n"
)
GRAPH = f"{AT} Capture cuda graph begin. This can take up to several minutes. avail mem=20.00 GB\n"
DONE = (
    f"{AT} Capture cuda graph end. Time elapsed: 1.0 s. mem usage=1.00 GB. avail mem=19.00 GB.\n"
    f"{AT} max_total_num_tokens=1000, context_len=99\n"
)
TRAFFIC = f"{AT} {{}} batch, #running-req: 3, #token: 90, token usage: 0.90, #queue-req: 0\n"


@pytest.mark.parametrize(
    ("log", "phase", "flag"),
    [
        (BEGIN, "weights", "--tp-size"),
        (BEGIN + END, "pool", "--mem-fraction-static"),
        (BEGIN + END + POOL + GRAPH, "graph", "--cuda-graph-max-bs"),
        (BEGIN + END + POOL + GRAPH + DONE + TRAFFIC.format("Prefill"), "prefill", "--chunked-prefill-size"),
        (BEGIN + END + POOL + GRAPH + DONE + TRAFFIC.format("Decode"), "decode", "expandable_segments"),
        (BEGIN + END + POOL + GRAPH + DONE, "serving", "--mem-fraction-static"),
    ],
)
def test_sglang_out_of_memory_by_phase(report: Any, log: str, phase: str, flag: str) -> None:
    """The last milestone before the error tells the phase, the phase the remedy."""
    oom = report(log + OOM)["oom"]
    assert oom["phase"] == phase
    assert any(flag in remedy for remedy in oom["remedies"])
    assert (oom["tried_gib"], oom["capacity_gib"], oom["free_gib"]) == (2.0, 79.15, 1.2)


def test_smallest_fraction(report: Any) -> None:
    """The rest is positive from 1 - available / total on."""
    text = NEW.splitlines()[1].replace("57.01", "11.66").replace("93.58", "77.80") + "\n"
    text += "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.\n"
    oom = report(text)["oom"]
    assert (oom["phase"], oom["smallest_fraction"]["value"]) == ("pool", 0.85)
    assert oom["remedies"][0] == "raise --mem-fraction-static"


KV = "(EngineCore pid=9) INFO 01-04 [gpu_worker.py:300] Available KV cache memory: {} GiB\n"
START = "(EngineCore pid=9) INFO 01-04 [gpu_model_runner.py:1] Starting to load model acme...\n"


@pytest.mark.parametrize(
    ("log", "phase", "flag"),
    [
        (START + OOM, "weights", "--tensor-parallel-size"),
        (START + LLM + OOM, "profiling", "--max-num-batched-tokens"),
        (
            START
            + LLM
            + KV.format("-2.81")
            + "ValueError: No available memory for the cache blocks. Try increasing `x`\n",
            "pool",
            "--gpu-memory-utilization",
        ),
        (START + LLM + KV.format("9.00") + OOM, "graph", "--enforce-eager"),
        (
            "INFO 01-04 vllm\nValueError: Free memory on device cuda:0 (3.25/23.43 GiB) on startup is less than "
            "desired GPU memory utilization (0.96, 22.49 GiB). Decrease GPU memory utilization\n",
            "start",
            "--gpu-memory-utilization",
        ),
    ],
)
def test_vllm_out_of_memory_by_phase(report: Any, log: str, phase: str, flag: str) -> None:
    """vLLM's phases, and its flags."""
    oom = report(log)["oom"]
    assert oom["phase"] == phase
    assert any(flag in remedy for remedy in oom["remedies"])


def test_context_that_would_fit(report: Any) -> None:
    """What the server itself says would fit is passed on."""
    text = START + LLM + KV.format("5.17") + (
        "ValueError: To serve at least one request with the model's max seq len (700160), (6.11 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (5.17 GiB). Based on the available memory, the "
        "estimated maximum model length is 566784.\n"
    )  # fmt: skip
    oom = report(text)["oom"]
    assert (oom["longest_model_length"], oom["needed_gib"], oom["available_gib"]) == (566784, 6.11, 5.17)


def test_negative_pool_is_a_conflict(report: Any) -> None:
    """vLLM prints a negative pool before it gives up: the reading stays, and is no size to build on."""
    text = START + LLM + KV.format("-14.28") + "ValueError: No available memory for the cache blocks.\n"
    found = report(text)
    memory = found["memory_breakdown"]
    assert (memory["kv_pool_gib"], memory["known_sum_gib"]) == (-14.28, None)
    assert [each["gib"] for each in memory["conflicts"]] == [-14.28]
    assert (found["kv_cache_tokens"], found["kv_bytes_per_token"]) == (None, None)


def test_planned_tokens_are_called_so(report: Any) -> None:
    """A start that ended after the sizing has a plan, no pool; its element type is what the server says it uses."""
    text = f"{AT} Using KV cache dtype: torch.float8_e4m3fnuz\n" + "".join(OLD.splitlines(keepends=True)[:2])
    found = report(text)
    assert (found["kv_cache_tokens"], found["kv_cache_dtype"]) == (3080960, "float8_e4m3fnuz")
    assert any("line 3 planned" in warning for warning in found["warnings"])


def test_hints_and_echoes_are_no_failure(report: Any) -> None:
    """Advice about running out of memory and echoed settings are none."""
    text = "INFO capturing. If out-of-memory error occurs during cudagraph capture, consider decreasing it\n" + LLM
    assert report(text)["oom"] is None


def test_more_pool_is_offered_with_a_reserve(report: Any) -> None:
    """The gain is what is free less the reserve, the fraction's base is the free memory before the weights."""
    found = report(WORKED)
    note = next(note for note in found["tuning"] if note["flag"] == "--mem-fraction-static")
    gain = min(20.61 - max(2, 0.02 * 138.72), (0.95 - 0.84) * 138.72)
    assert note["gain_gib"] == pytest.approx(gain, abs=0.01)
    assert note["to"] == pytest.approx(0.84 + gain / 138.72, abs=0.002)
    assert note["expected_tokens"] == pytest.approx((97.81 + gain) * 2**30 / 9216.5, rel=1e-3)


def test_no_8_bit_advice_for_an_unknown_type(report: Any) -> None:
    """A type that the log does not name may be 8-bit already."""
    assert not any(note["flag"] == "--kv-cache-dtype" for note in report(WORKED)["tuning"])


def test_request_limit_that_binds_is_said(report: Any) -> None:
    """More tokens than requests allowed: the note names the flag and both numbers."""
    note = next(note for note in report(OLD)["tuning"] if note["flag"] == "--max-running-requests")
    assert (note["from"], note["to"]) == (256, 752)


def test_ranks_that_differ_are_said(report: Any) -> None:
    """Uneven weights, another process, a missing rank."""
    other = OLD.replace("TP0", "TP1").replace("93.61", "92.61").replace("10.18", "8.18")
    warnings = "\n".join(report(ARGS.format(fraction=0.6).replace("tp_size=1", "tp_size=4") + OLD + other)["warnings"])
    assert "2 of 4 ranks" in warnings
    assert "before_weights differs by 1.0 GiB" in warnings
    assert "after_pool differs by 2.0 GiB" in warnings
    assert "weights differ by 1.0 GiB" in warnings


def test_load_lines(report: Any) -> None:
    """Peaks under load, retractions, and which limit was met."""
    lines = "".join(TRAFFIC.format("Decode").replace("0.90", f"0.{usage}") for usage in (10, 50, 96))
    seen = report(OLD + lines + f"{AT} KV cache pool is full. Retract requests. #retracted_reqs: 1\n")["observed"]
    assert (seen["pool_usage"]["max"], seen["running"]["max"], seen["retractions"]) == (0.96, 3, 1)
    assert (seen["met_first"], seen["tokens_per_request_at_peak"]) == ("token pool", 30.0)
    assert report(OLD)["evidence"] == "start-up only"


@pytest.mark.parametrize(
    ("text", "used", "total"),
    [
        ("0, 89846 MiB, 8028 MiB\nbroken\n1, x, y\n", 89846, 97874),
        ("index, memory.used [MiB], memory.free [MiB], memory.total [MiB]\n0, 10 MiB, 80 MiB, 97 MiB\n", 10, 90),
        ("index, memory.total [MiB], memory.used [MiB]\n0, 97 MiB, 10 MiB\n", 10, 97),
        ("| N/A   40C    P0   114W /  700W |     692MiB / 143771MiB |      0%   Default |\n", 692, 143771),
        (
            "    FB Memory Usage\n        Total     : 100 MiB\n        Reserved  : 9 MiB\n        Used      : 1 MiB\n",
            1,
            91,
        ),
    ],
)
def test_nvidia_smi_in_each_form(tmp_path: Path, text: str, used: int, total: int) -> None:
    """The query's CSV with and without header, the table, and -q; what the driver keeps is no memory to use."""
    path = tmp_path / "smi"
    path.write_text(text)
    gpu = read_smi(path)[0]
    assert (gpu.used, gpu.total) == (used << 20, total << 20)


def test_nvidia_smi_file_that_is_none(tmp_path: Path) -> None:
    """A missing file or one without figures is an error, not silence."""
    with pytest.raises(CapacityError, match="nvidia-smi"):
        read_smi(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("")
    with pytest.raises(CapacityError, match="--query-gpu"):
        read_smi(tmp_path / "empty")
