"""Start-up logs of other versions, ranks and terminals: what each line gives, and what stays unknown."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotad.capacity.concurrency import Length
from sotad.capacity.errors import CapacityError
from sotad.capacity.report import Asked, analyse
from sotad.capacity.session import parse_text
from sotad.capacity.shown import markdown

STAMP = "2027-01-04 11:02"


def sgl(rank: str = "", *, extra: str = "") -> str:
    """A whole start of one SGLang rank with invented, consistent numbers."""
    at = f"[{STAMP}:15{' ' + rank if rank else ''}]"
    return f"""\
{at} Load weight begin. avail mem=138.72 GB
{at} Load weight end. elapsed=9.80 s, type=AcmeForCausalLM, dtype=torch.bfloat16, avail mem=120.10 GB, \
mem usage=18.62 GB.
{extra}{at} KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1400320, K size: 48.90 GB, V size: 48.90 GB
{at} Memory pool end. avail mem=21.90 GB
{at} Capture cuda graph begin. This can take up to several minutes. avail mem=21.81 GB
{at} Capture cuda graph end. Time elapsed: 36.02 s. mem usage=1.20 GB. avail mem=20.61 GB.
{at} max_total_num_tokens=1400320, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=512, \
context_len=131072, available_gpu_mem=20.61 GB
"""


def server_args(**more: Any) -> str:
    given = {"model_path": "/m/acme-9b", "tp_size": 1, "mem_fraction_static": 0.84, "page_size": 1, **more}
    return f"[{STAMP}:07] server_args=ServerArgs({', '.join(f'{key}={value!r}' for key, value in given.items())})\n"


VLLM = """\
(APIServer pid=7) INFO 01-04 11:10:00 [utils.py:1] non-default args: {'model': 'acme/Acme-9B', 'max_num_seqs': 64}
(EngineCore_DP0 pid=9) INFO 01-04 11:10:01 [core.py:2] Initializing a V1 LLM engine (v0.11.0) with config: \
model='acme/Acme-9B', dtype=torch.bfloat16, max_seq_len=32768, tensor_parallel_size=2, pipeline_parallel_size=1, \
data_parallel_size=1, quantization=None, kv_cache_dtype=auto, device_config=cuda
(Worker_TP0 pid=10) INFO 01-04 11:10:02 [gpu_model_runner.py:2600] Model loading took 17.9000 GiB and 6.1 seconds
(Worker_TP1 pid=11) INFO 01-04 11:10:02 [gpu_model_runner.py:2600] Model loading took 17.9000 GiB and 6.2 seconds
(Worker_TP0 pid=10) INFO 01-04 11:10:09 [gpu_worker.py:300] Available KV cache memory: 96.40 GiB
(Worker_TP1 pid=11) INFO 01-04 11:10:09 [gpu_worker.py:300] Available KV cache memory: 96.31 GiB
(EngineCore_DP0 pid=9) INFO 01-04 11:10:09 [kv_cache_utils.py:870] GPU KV cache size: 1,404,416 tokens
(EngineCore_DP0 pid=9) INFO 01-04 11:10:09 [utils.py:874] Maximum concurrency for 32,768 tokens per request: 42.82x
(EngineCore_DP0 pid=9) INFO 01-04 11:10:09 [kv_cache_utils.py:870] GPU KV cache size: 1,403,104 tokens
(EngineCore_DP0 pid=9) INFO 01-04 11:10:09 [utils.py:874] Maximum concurrency for 32,768 tokens per request: 42.82x
(Worker_TP1 pid=11) INFO 01-04 11:10:29 [gpu_model_runner.py:3000] Graph capturing finished in 19 secs, took 0.71 GiB
(Worker_TP0 pid=10) INFO 01-04 11:10:29 [gpu_model_runner.py:3000] Graph capturing finished in 19 secs, took 0.71 GiB
"""


@pytest.fixture
def report(tmp_path: Path) -> Any:
    """Analyses a log given as text."""

    def run(text: str | bytes, **asked: Any) -> dict[str, Any]:
        path = tmp_path / "server.log"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return analyse(path, Asked([Length(4096), Length(8192)], **asked))

    return run


def gibs(report: dict[str, Any]) -> dict[str, Any]:
    memory = report["memory_breakdown"]
    names = ("model_weights", "kv_pool", "cuda_graph", "before_weights", "after_pool", "free")
    return {name: memory[f"{name}_gib"] for name in names}


@pytest.mark.parametrize("rank", ["", "TP0", "TP0 EP0", "TP0 PP0", "DP0 TP0 EP0", "EP0 DP0 PP0 ATTN_TP0"])
def test_any_rank_tag_and_none(report: Any, rank: str) -> None:
    """A rank's places come in any order, and a server on one GPU prints none."""
    found = report(server_args() + sgl(rank))
    assert gibs(found) == {
        "model_weights": 18.62,
        "kv_pool": 97.8,
        "cuda_graph": 1.2,
        "before_weights": 138.72,
        "after_pool": 21.9,
        "free": 20.61,
    }
    assert found["kv_cache_tokens"] == 1400320


def test_every_number_cites_its_line(report: Any) -> None:
    """A reading names the line in which it stands, counted as editors count."""
    text = "\n\n" + server_args() + sgl("TP0")
    found = report(text)
    provenance = found["memory_breakdown"]["provenance"]
    lines = text.split("\n")
    for name, value in {"weights": "18.62", "kv_pool": "48.90", "after_pool": "21.90", "free": "20.61"}.items():
        assert provenance[name]["source"] == "read"
        assert all(value in lines[line - 1] for line in provenance[name]["lines"]), name
    assert all(lines[int(line) - 1].strip() in shown or shown in lines[int(line) - 1]
               for line, shown in found["memory_breakdown"]["lines"].items())  # fmt: skip


def test_colours_progress_bars_and_windows_line_ends(report: Any) -> None:
    """Escape sequences, carriage returns and messages glued to a progress bar change nothing, nor the line numbers."""
    plain = report(server_args() + sgl("TP0"))
    coloured = "".join(
        f"\x1b[1;32m{line[:9]}\x1b[0m{line[9:]}\r\n" for line in (server_args() + sgl("TP0")).splitlines()
    )
    bar = "Capturing batches (bs=8 avail_mem=21.0 GB): 50%|█     | 1/2\rCapturing batches: 100%|██| 2/2 [00:01<00:00]"
    glued = coloured.replace(f"\x1b[1;32m[{STAMP[:8]}", f"{bar}\x1b[1;32m[{STAMP[:8]}", 7)
    for text in (coloured, glued):
        found = report(text)
        assert gibs(found) == gibs(plain)
        assert found["memory_breakdown"]["provenance"]["weights"]["lines"] == [3]


def test_two_ranks_in_one_line_are_told_apart(report: Any) -> None:
    """Two processes that write at once run their messages together without a line end."""
    text = sgl("TP0") + sgl("TP1").replace("18.62", "17.11")
    both = "".join(a + b + "\n" for a, b in zip(text.splitlines()[:7], text.splitlines()[7:], strict=True))
    found = report(server_args(tp_size=2) + both)
    assert [(rank["rank"], rank["weights_gib"]) for rank in found["ranks"]] == [("TP0", 18.62), ("TP1", 17.11)]


def test_compressed_and_cut_files(report: Any) -> None:
    """A gzip file is read as it is; one that ends early gives what is there, and a warning."""
    packed = gzip.compress((server_args() + sgl("TP0")).encode() * 1 + b"tail\n" * 5000)
    assert report(packed)["kv_cache_tokens"] == 1400320
    cut = report(packed[:-12])
    assert any("ends too early" in warning for warning in cut["warnings"])


def test_truncated_log_is_a_partial_report(report: Any) -> None:
    """What comes after the cut is null, never 0, and a warning says how far the log goes."""
    found = report(server_args() + "".join(sgl("TP0").splitlines(True)[:2]))
    assert found["kv_cache_tokens"] is None
    assert gibs(found) == {
        "model_weights": 18.62,
        "kv_pool": None,
        "cuda_graph": None,
        "before_weights": 138.72,
        "after_pool": None,
        "free": None,
    }
    assert "line 3" in found["warnings"][0]
    assert [row["max_concurrent"] for row in found["concurrency"]] == [None, None]


def test_restart_in_one_file(report: Any) -> None:
    """A new echo of the arguments is a new session; the last complete one counts unless one is chosen."""
    first = server_args(page_size=16) + sgl("TP0").replace("1400320", "700160")
    text = first + server_args() + sgl("TP0") + server_args() + "".join(sgl("TP0").splitlines(True)[:1])
    found = report(text)
    assert (found["session"]["number"], found["session"]["of"], found["kv_cache_tokens"]) == (2, 3, 1400320)
    assert any("session 3" in warning for warning in found["warnings"])
    chosen = report(text, session=1)
    assert (chosen["kv_cache_tokens"], chosen["page_size"]) == (700160, 16)
    assert report(text, session=3)["kv_cache_tokens"] is None
    with pytest.raises(CapacityError, match="holds 3"):
        report(text, session=4)


def test_final_line_in_any_order_and_without_limits(report: Any) -> None:
    """The last line's pairs are independent; None and -1 are no limit, never a number."""
    final = f"[{STAMP}:20 TP0] context_len=4096, max_running_requests=None, max_total_num_tokens=77\n"
    swapped = f"[{STAMP}:20 TP0] max_total_num_tokens=77, max_running_requests=None, context_len=4096\n"
    assert report(final)["kv_cache_tokens"] == 77
    found = report(swapped)
    assert (found["kv_cache_tokens"], found["max_running_requests"], found["context_length"]) == (77, None, 4096)


def test_old_sglang_wording(report: Any) -> None:
    """0.4.1 prints neither the weights' nor the graphs' size: the free memory around them tells, marked as derived."""
    found = report(
        f"[{STAMP}:01 TP0] Load weight begin. avail mem=78.70 GB\n"
        f"[{STAMP}:02 TP0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.72 GB\n"
        f"[{STAMP}:03 TP0] KV Cache is allocated. K size: 27.13 GB, V size: 27.13 GB.\n"
        f"[{STAMP}:04 TP0] Memory pool end. avail mem=8.34 GB\n"
        f"[{STAMP}:05 TP0] Capture cuda graph begin. This can take up to several minutes.\n"
        f"[{STAMP}:06 TP0] Capture cuda graph end. Time elapsed: 6.57 s\n"
        f"[{STAMP}:07 TP0] max_total_num_tokens=444500, max_prefill_tokens=16384, "
        "max_running_requests=2049, context_len=131072\n"
    )
    weights = found["memory_breakdown"]["provenance"]["weights"]
    assert (weights["gib"], weights["source"], weights["lines"]) == (14.98, "derived", [1, 2])
    assert found["memory_breakdown"]["kv_pool_gib"] == 54.26
    assert found["memory_breakdown"]["cuda_graph_gib"] is None
    assert found["kv_cache_tokens"] == 444500


def test_mla_pool_has_one_size(report: Any) -> None:
    """A compressed cache is one pool: `KV size`."""
    text = sgl("TP3").replace("K size: 48.90 GB, V size: 48.90 GB", "KV size: 97.81 GB")
    found = report(text, rank="3")
    assert (found["rank"], found["memory_breakdown"]["kv_pool_gib"]) == ("TP3", 97.81)


def test_sliding_window_pools_are_summed_once(report: Any) -> None:
    """The line of the joint pool replaces the two pools before it; the window's tokens are a limit of their own."""
    at = f"[{STAMP}:03 TP0]"
    text = (
        f"{at} Use sliding window memory pool. full_layer_tokens=1000, swa_layer_tokens=800\n"
        f"{at} KV Cache is allocated. dtype: torch.bfloat16, #tokens: 800, K size: 1.00 GB, V size: 1.00 GB\n"
        f"{at} KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1000, K size: 2.00 GB, V size: 2.00 GB\n"
        f"{at} SWAKVPool mem usage: 6.00 GB, swa size: 800, full size: 1000\n"
        f"{at} Memory pool end. avail mem=8.34 GB\n"
    )
    found = report(text)
    assert found["memory_breakdown"]["kv_pool_gib"] == 6.0
    assert found["pools"][0]["window_tokens"]["value"] == 800
    assert report(text + f"{at} max_total_num_tokens=1000, context_len=512\n")["kv_cache_tokens"] == 1000


@pytest.mark.parametrize("name", ["DSv4", "DSV4", "SW KV"])
def test_sizing_line_in_each_naming(report: Any, name: str) -> None:
    """Bytes for a token come from the log where it states them."""
    line = "memory calculation: bytes_per_full_token=9216.50, available_bytes=97.81 GB, c128_state_fixed=0.11 GB"
    found = report(f"[{STAMP}:41 TP0] {name} {line}, full_token=11394816\n")
    assert found["kv_bytes_per_token"] == 9216.5
    assert found["kv_cache_tokens"] == 11394816
    assert found["memory_breakdown"]["kv_pool_gib"] == 97.81


def test_recurrent_state_pool_limits_requests(report: Any) -> None:
    """A hybrid's state belongs to a request: its slots bind before the tokens do."""
    state = (
        f"[{STAMP}:16 TP0] Mamba Cache is allocated. max_mamba_cache_size: 48, conv_state size: 0.09GB, "
        "ssm_state size: 6.46GB intermediate_ssm_state_cache size: 1.00GB intermediate_conv_window_cache size: 0.05GB\n"
    )
    found = report(server_args() + sgl("TP0", extra=state))
    assert found["memory_breakdown"]["state_pool_gib"] == 7.6
    row = found["concurrency"][0]
    assert (row["max_concurrent"], row["binding"], row["token_limit"]) == (48, "state slots", 341)


def test_draft_model_is_apart(report: Any) -> None:
    """The second load and the second pool are the draft's; all captures are added up."""
    at = f"[{STAMP}:30 TP0]"
    draft = (
        f"{at} Load weight begin. avail mem=20.61 GB\n"
        f"{at} Load weight end. type=AcmeEagle, dtype=torch.bfloat16, avail mem=19.61 GB, mem usage=1.00 GB.\n"
        f"{at} KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1400320, K size: 1.30 GB, V size: 1.30 GB\n"
        f"{at} Memory pool end. avail mem=17.01 GB\n"
        f"{at} Capture draft cuda graph begin. This can take up to several minutes. avail mem=17.01 GB\n"
        f"{at} Capture draft cuda graph end. Time elapsed: 2.00 s. mem usage=0.30 GB. avail mem=16.71 GB.\n"
        f"{at} Capture piecewise CUDA graph end. Time elapsed: 2.00 s. mem usage=0.40 GB. avail mem=16.31 GB.\n"
    )
    memory = report(server_args() + sgl("TP0") + draft)["memory_breakdown"]
    assert (memory["model_weights_gib"], memory["draft_weights_gib"]) == (18.62, 1.0)
    assert (memory["kv_pool_gib"], memory["draft_kv_pool_gib"], memory["cuda_graph_gib"]) == (97.8, 2.6, 1.9)
    assert memory["conflicts"] == []
    assert memory["unattributed_gib"] == 0.49  # 138.72 before, less 16.31 free and all of the above


def test_each_data_parallel_rank_has_its_pool(report: Any) -> None:
    """Requests at once are summed over the pools; each pool is rounded down on its own."""
    text = server_args(tp_size=2, dp_size=2, enable_dp_attention=True) + sgl("DP0 TP0 EP0") + sgl("DP1 TP1 EP1")
    found = report(text)
    assert (found["kv_cache_tokens"], found["kv_cache_tokens_all_pools"]) == (1400320, 2800640)
    row = found["concurrency"][0]
    assert (row["token_limit"], row["request_limit"], row["max_concurrent"]) == (2 * 341, 1024, 682)
    assert not any("ranks tell" in warning for warning in found["warnings"])


def test_vllm_workers(report: Any) -> None:
    """Worker prefixes are ranks; of the engine's lines, one a worker, the smallest is the pool."""
    found = report(VLLM)
    assert gibs(found) | {} == {
        "model_weights": 17.9,
        "kv_pool": 96.4,
        "cuda_graph": 0.71,
        "before_weights": None,
        "after_pool": None,
        "free": None,
    }
    assert (found["framework"], found["framework_version"], found["model"]) == ("vllm", "0.11.0", "acme/Acme-9B")
    assert found["kv_cache_tokens"] == 1403104
    assert [rank["kv_pool_gib"] for rank in found["ranks"]] == [96.4, 96.31]
    assert found["reported_concurrency"][0]["agrees"] is True
    assert found["max_running_requests"] == 64
    assert report(VLLM, rank="1")["memory_breakdown"]["kv_pool_gib"] == 96.31


def test_vllm_v0_wording(report: Any) -> None:
    """Engine V0 says GB, prints blocks, and its concurrency tells how many tokens a block has."""
    found = report(
        "INFO 12-22 10:55:20 llm_engine.py:242] Initializing an LLM engine (v0.6.5) with config: model='acme/A', "
        "dtype=torch.bfloat16, max_seq_len=2048, tensor_parallel_size=1, kv_cache_dtype=auto\n"
        "INFO 12-22 10:55:34 model_runner.py:1097] Loading model weights took 8.5107 GB\n"
        "INFO 12-22 10:55:34 worker.py:241] Memory profiling takes 0.69 seconds\n"
        "INFO 12-22 10:55:34 worker.py:241] the current vLLM instance can use total_gpu_memory (79.25GiB) x "
        "gpu_memory_utilization (0.15) = 11.89GiB\n"
        "INFO 12-22 10:55:34 worker.py:241] model weights take 8.51GiB; non_torch_memory takes 0.26GiB; PyTorch "
        "activation peak memory takes 0.94GiB; the rest of the memory reserved for KV Cache is 2.18GiB.\n"
        "INFO 12-22 10:55:35 gpu_executor.py:76] # GPU blocks: 715, # CPU blocks: 1310\n"
        "INFO 12-22 10:55:35 gpu_executor.py:80] Maximum concurrency for 2048 tokens per request: 5.59x\n"
        "INFO 12-22 10:55:51 model_runner.py:1527] Graph capturing finished in 13 secs, took 0.27 GiB\n"
    )
    memory = found["memory_breakdown"]
    assert (memory["device_total_gib"], memory["activation_gib"], memory["non_torch_gib"]) == (79.25, 0.94, 0.26)
    assert (memory["model_weights_gib"], memory["kv_pool_gib"], memory["cuda_graph_gib"]) == (8.51, 2.18, 0.27)
    assert (found["kv_cache_tokens"], found["kv_cache_tokens_from"]["source"]) == (715 * 16, "derived")
    assert found["page_size"] == 16
    assert found["framework_version"] == "0.6.5"


def test_vllm_blocks_without_their_size_stay_unknown(report: Any) -> None:
    """A number of blocks is no number of tokens."""
    found = report("INFO 12-22 10:55:35 gpu_executor.py:76] # GPU blocks: 715, # CPU blocks: 1310\n")
    assert found["kv_cache_tokens"] is None


def test_vllm_rank_by_process(report: Any) -> None:
    """A worker that once said where it is placed is known by its process afterwards."""
    found = report(
        "(VllmWorker rank=1 pid=219) INFO 08-31 14:42:32 [parallel_state.py:1076] rank 1 in world size 2 "
        "is assigned as DP rank 0, PP rank 1, TP rank 0, EP rank 0\n"
        "(VllmWorker rank=1 pid=219) INFO 08-31 14:42:40 [runner.py:1] Model loading took 3.5 GiB and 1 seconds\n"
    )
    assert (found["ranks"][0]["pp"], found["ranks"][0]["tp"]) == (1, 0)


def test_tensorrt_llm(report: Any) -> None:
    """The pool of the profiling run is not the pool; the last allocation counts."""
    found = report(
        "[TensorRT-LLM][INFO] Number of tokens per block: 32.\n"
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).\n"
        "[TRT-LLM] [I] max_seq_len=8224, max_num_requests=64, max_num_tokens=8192, max_batch_size=64\n"
        "[TRT-LLM] [I] Memory used after loading model weights (inside torch) in memory usage profiling: "
        "63.52 GiB\n"
        "[TRT-LLM] [I] Memory dynamically allocated during inference (inside torch) in memory usage "
        "profiling: 0.85 GiB\n"
        "[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 113.65 GiB, "
        "available KV cache memory when calculating max tokens: 5.95 GiB, fraction is set 0.8999999761581421, kv "
        "size is 73728. device total memory 119.70 GiB, , tmp kv_mem 0.56 GiB\n"
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 5.95 GiB for max tokens in paged KV cache (86720).\n"
    )
    assert (found["framework"], found["kv_cache_tokens"], found["page_size"]) == ("tensorrt-llm", 86720, 32)
    memory = found["memory_breakdown"]
    assert (memory["model_weights_gib"], memory["kv_pool_gib"], memory["device_total_gib"]) == (63.52, 5.95, 119.7)
    assert (memory["activation_gib"], memory["free_gib"]) == (0.85, 0.66)
    assert (found["max_running_requests"], found["kv_bytes_per_token"]) == (64, 73728.0)


def test_tokenspeed_lines_descend_from_sglang(report: Any) -> None:
    """TokenSpeed is named as such and read with the same wording."""
    found = report(
        f"[{STAMP}:01] tokenspeed serve\n"
        f"[{STAMP}:02] Load weight end. type=A, dtype=torch.bfloat16, avail mem=63.72 GB\n"
        f"[{STAMP}:03] KV Cache is allocated. K size: 27.13 GB, V size: 27.13 GB.\n"
        f"[{STAMP}:04] TokenSpeed engine ready: max_total_num_tokens=444500 max_req_input_len=4090\n"
    )
    assert (found["framework"], found["kv_cache_tokens"]) == ("tokenspeed", 444500)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "hello\nworld\n", "\x00\x01\x02", "vllm is nice\nINFO: Application startup complete.\n"]
)
def test_unsupported_log(report: Any, text: str) -> None:
    """A log without a line about memory is refused, with what was looked for, and never a table of zeros."""
    with pytest.raises(CapacityError, match=r"KV Cache is allocated.*KV cache size"):
        report(text)


def test_a_size_without_its_unit_is_no_reading(report: Any) -> None:
    """Numbers count only with their unit."""
    found = report(sgl("TP0").replace("avail mem=138.72 GB", "avail mem=138.72"))
    assert found["memory_breakdown"]["before_weights_gib"] is None


@given(st.data())
def test_no_single_missing_line_breaks_it(data: st.DataObject) -> None:
    """Leaving out any lines never raises, and never turns an unknown into a number out of nothing."""
    lines = (server_args(tp_size=2) + sgl("TP0") + sgl("TP1") + VLLM).splitlines()
    kept = data.draw(st.lists(st.sampled_from(lines), unique=True))
    for session in parse_text("\n".join(kept)):
        assert all(
            value is None or isinstance(value, int | float | str)
            for each in session.events
            for value in each.values.values()
        )


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mangled_logs_are_refused_or_reported(data: st.DataObject, tmp_path: Path) -> None:
    """Lost and doubled characters give a report that can be shown and is JSON, or one clear refusal."""
    text = server_args(tp_size=2) + sgl("TP0") + sgl("DP1 TP1") + VLLM
    at = sorted(data.draw(st.lists(st.integers(0, len(text) - 1), min_size=2, max_size=20, unique=True)))
    parts = [text[start:end] for start, end in itertools.pairwise([0, *at, len(text)])]
    kept = "".join(
        data.draw(st.sampled_from([part, "", part[1:], part * 2, part + "9", part + "\r"])) for part in parts
    )
    path = tmp_path / "mangled.log"
    path.write_text(kept, newline="")
    try:
        found = analyse(path, Asked([Length(4096)]))
    except CapacityError as error:
        assert "Looked for" in str(error)
        return
    assert markdown(found).startswith("# Capacity")
    json.dumps(found, allow_nan=False)


@given(st.randoms(use_true_random=False))
def test_interleaving_of_ranks_changes_nothing(random: Any) -> None:
    """However the ranks' lines are shuffled together, each rank's memory is the same."""
    from sotad.capacity.breakdown import decompose, ranks_of

    left, right = sgl("TP0").splitlines(), sgl("TP1").replace("18.62", "17.00").splitlines()
    order = [0] * len(left) + [1] * len(right)
    random.shuffle(order)
    queues = [iter(left), iter(right)]
    session = parse_text(server_args(tp_size=2) + "\n".join(next(queues[which]) for which in order))[-1]
    found = {str(rank): decompose(session, rank) for rank in ranks_of(session)}
    assert {name: memory["weights"].value for name, memory in found.items()} == {
        "TP0": round(18.62 * 2**30),
        "TP1": round(17.0 * 2**30),
    }
    assert all(memory["free"].value == round(20.61 * 2**30) for memory in found.values())


@pytest.mark.parametrize(
    ("prefix", "place"),
    [
        ("(Worker_DP1_TP3_EP7 pid=9) INFO", (1, None, 3, 7)),
        ("(Worker_PP1_TP0 pid=9) INFO", (None, 1, 0, None)),
        ("(EngineCore_DP2 pid=9) INFO", (2, None, None, None)),
        ("(EngineCore_1 pid=9) INFO", (1, None, None, None)),
        ("(EngineCore pid=9) INFO", (None, None, None, None)),
        ("(VllmWorker rank=3 pid=9) INFO", (None, None, 3, None)),
        ("(VllmWorker-2 pid=9) INFO", (None, None, 2, None)),
        ("[1;36m(VllmWorker TP1 pid=9)[0;0m INFO", (None, None, 1, None)),
        ("[2027-01-04 11:02:15 DP3 TP7 EP1 PP2]", (3, 2, 7, 1)),
        ("[2027-01-04 11:02:15 TP7] 100%|█| 2/2 [00:01<00:00, 2.0it/s]", (None, None, 7, None)),
        ("[12/20/2025-04:21:10] [TRT-LLM] [RANK 5] [I]", (None, None, 5, None)),
        ("INFO 01-04 11:10:02 [core.py:2]", (None, None, None, None)),
    ],
)
def test_prefixes(prefix: str, place: tuple[int | None, ...]) -> None:
    """Where a message comes from, in each framework's way of saying so."""
    from sotad.capacity.ranks import Ranks

    rank = Ranks().before(f"{prefix} message", len(prefix))
    assert (rank.dp, rank.pp, rank.tp, rank.ep) == place


def test_ranks_are_chosen_by_place(report: Any) -> None:
    """`--rank` takes a TP rank or places in any form."""
    text = server_args(tp_size=2, dp_size=2) + sgl("DP0 TP1") + sgl("DP1 TP1").replace("18.62", "18.00")
    for wanted, weights in (("1", 18.62), ("DP1TP1", 18.0), ("dp1,tp1", 18.0), ("TP1 DP0", 18.62)):
        assert report(text, rank=wanted)["memory_breakdown"]["model_weights_gib"] == weights


def test_every_rule_is_reachable_by_its_words() -> None:
    """The cheap words that are looked for first are in lower case, else they would never be found."""
    from sotad.capacity.session import RULES

    assert all(rule.words and rule.words == rule.words.lower() for rule in RULES)


def test_failed_start_before_anything_about_memory(report: Any) -> None:
    """Out of memory with nothing but the arguments before it is still explained."""
    found = report(server_args() + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n")
    assert (found["framework"], found["oom"]["phase"], found["kv_cache_tokens"]) == ("sglang", "unknown", None)


def test_arguments_of_a_failed_start_do_not_linger(report: Any) -> None:
    """Two starts with other arguments are two sessions, also when the first said nothing about memory."""
    found = report(server_args(page_size=64) + server_args(page_size=1) + sgl("TP0"))
    assert (found["page_size"], found["session"]["of"]) == (1, 2)
    same = report(server_args() + server_args() + sgl("TP0"))
    assert same["session"]["of"] == 1


def test_a_number_at_a_cut_is_no_number(tmp_path: Path) -> None:
    """Where a log ends within a number, what is left of it is not read, wherever the cut is."""
    text = sgl()
    begin = text.index("1400320")
    for end in range(begin, begin + len("1400320") + 1):
        log = tmp_path / "cut.log"
        log.write_text(text[:end])
        assert analyse(log, Asked([Length(4096)]))["kv_cache_tokens"] is None


@pytest.mark.parametrize("number", ["1e400", "9" * 5000, "9" * 400 + ".5"])
def test_impossible_numbers_are_unknown(tmp_path: Path, number: str) -> None:
    """A number beyond all measure is not read, and does no harm."""
    log = tmp_path / "odd.log"
    log.write_text(server_args(page_size=1).replace("0.84", number) + sgl().replace("20.61", number))
    found = analyse(log, Asked([Length(4096)]))
    assert found["kv_cache_tokens"] == 1400320
    assert "Infinity" not in json.dumps(found)
