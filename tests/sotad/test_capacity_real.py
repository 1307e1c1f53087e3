"""Logs that real servers wrote, figures read from them by eye, and the command on top of them."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sotad.capacity.concurrency import Length
from sotad.capacity.report import Asked, analyse
from sotad.cli import analyze_capacity
from sotad.errors import BadInput

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOTAD_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no captured logs here")
LENGTHS = [Length(1024), Length(4096), Length(8192)]
QWEN3_8B = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}


def report(name: str, **asked: Any) -> dict[str, Any]:
    return analyse(DATA / name, Asked(LENGTHS, **asked))


@needs_data
def test_sglang_on_h200() -> None:
    """sglang 0.5.16: both graph captures, both unattributed rests, the scheduler's limits."""
    found = report("h200/sgl/server.log")
    memory = found["memory_breakdown"]
    assert (found["framework"], found["kv_cache_tokens"], found["kv_cache_dtype"]) == ("sglang", 749796, "bfloat16")
    figures = {
        "model_weights": 15.28,
        "kv_pool": 102.96,
        "cuda_graph": 1.65,
        "before_weights": 139.13,
        "after_pool": 20.62,
    }
    assert {name: memory[f"{name}_gib"] for name in figures} == figures
    assert memory["free_gib"] == 18.85
    assert memory["provenance"]["weights"]["lines"] == [11]
    assert memory["provenance"]["cuda_graph"]["lines"] == [16, 19]
    assert found["kv_cache_tokens_from"]["lines"] == [20]
    assert (found["max_running_requests"], found["context_length"], found["page_size"]) == (4096, 8192, 1)
    assert [row["max_concurrent"] for row in found["concurrency"]] == [732, 183, 91]
    assert found["observed"]["running"]["max"] == 64
    assert found["warnings"] == [] and found["oom"] is None


@needs_data
def test_vllm_on_h200() -> None:
    """vllm 0.26.0: the summary closes to 0.00, its own concurrency agrees, the device is measured."""
    found = report("h200/vllm/server.log")
    memory = found["memory_breakdown"]
    assert (found["framework"], found["framework_version"], found["kv_cache_tokens"]) == ("vllm", "0.26.0", 743120)
    figures = {"model_weights": 15.27, "kv_pool": 102.05, "cuda_graph": 1.0, "activation": 1.29, "non_torch": 0.22}
    assert {name: memory[f"{name}_gib"] for name in figures} == figures
    assert (memory["device_total_gib"], memory["before_weights_gib"]) == (139.8, 139.29)
    assert memory["provenance"]["requested"]["gib"] == 118.83
    assert memory["provenance"]["unbudgeted"]["gib"] == 0.0
    assert found["reported_concurrency"][0] == {
        "request_tokens": 8192,
        "reported": 90.71,
        "computed": 90.71,
        "difference_pct": 0.0,
        "agrees": True,
        "lines": [33],
    }
    assert found["max_running_requests"] is None  # 0.26.0 does not print its default
    assert found["observed"]["running"]["max"] == 16


@needs_data
@pytest.mark.parametrize("name", ["sgl", "vllm"])
def test_config_agrees_with_the_real_pools(name: str, tmp_path: Path) -> None:
    """147,456 bytes for a token of this model: pool over tokens says the same within the rounding of the log."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(QWEN3_8B | {"hidden_size": 4096, "torch_dtype": "bfloat16"}))
    check = report(f"h200/{name}/server.log", config=config)["kv_check"]
    assert check["bytes_per_token_by_config"] == 147456
    assert abs(check["difference_pct"]) < 0.02
    assert check["tokens_by_config"] == pytest.approx(check["tokens_by_log"], rel=2e-4)


@needs_data
@pytest.mark.parametrize(
    ("name", "used", "rest", "shares"), [("sgl", 121.01, -0.15, 97.7), ("vllm", 120.63, 1.58, 97.3)]
)
def test_nvidia_smi_beside_the_real_logs(name: str, used: float, rest: float, shares: float) -> None:
    """The table taken while the servers ran; its difference to the log's accounts has a sign."""
    folder = DATA / "h200" / name
    memory = report(f"h200/{name}/server.log", nvidia_smi=folder / "nvidia-smi-loaded.txt")["memory_breakdown"]
    assert (memory["total_used_gib"], memory["other_gib"]) == (used, rest)
    assert memory["weight_pct"] + memory["kv_pool_pct"] == pytest.approx(shares, abs=0.05)


@needs_data
@pytest.mark.parametrize(
    ("name", "tokens", "requests", "running"),
    [("serve4", 16384, 4096, 4), ("serve_mrr8", 16384, 8, 8), ("serve2", None, None, None)],
)
def test_sglang_on_a_cpu(name: str, tokens: int | None, requests: int | None, running: int | None) -> None:
    """`available_cpu_mem`, arguments as a dict, weights of -0.12 GB, and a server that failed while loading."""
    found = report(f"cpu/sglang/{name}.log")
    assert (found["kv_cache_tokens"], found["max_running_requests"]) == (tokens, requests)
    if running is None:
        assert found["memory_breakdown"]["before_weights_gib"] == 17.62
        assert found["memory_breakdown"]["kv_pool_gib"] is None
        assert any("the server failed" in warning for warning in found["warnings"])
        return
    assert found["memory_breakdown"]["kv_pool_gib"] == 0.04
    assert found["memory_breakdown"]["cuda_graph_gib"] is None
    assert found["observed"]["running"]["max"] == running
    if name == "serve4":
        assert found["memory_breakdown"]["model_weights_gib"] == -0.12
        assert found["memory_breakdown"]["conflicts"][0]["gib"] == -0.12


@needs_data
@pytest.mark.parametrize(
    ("name", "requests"), [("serve_eager", 4), ("serve_compile16", 16), ("serve_prof", 16), ("serve_seqs16", 16)]
)
def test_vllm_on_a_cpu(name: str, requests: int) -> None:
    """`CPU KV cache size` and the concurrency in one line, the pool as `(1.0/23.54) GiB`, weights in no line."""
    found = report(f"cpu/vllm/{name}.log")
    memory = found["memory_breakdown"]
    assert (found["framework_version"], found["kv_cache_tokens"], found["max_running_requests"]) == (
        "0.32.0",
        524288,
        requests,
    )
    assert (memory["kv_pool_gib"], memory["device_total_gib"], memory["model_weights_gib"]) == (1.0, 23.54, None)
    assert (found["reported_concurrency"][0]["reported"], found["reported_concurrency"][0]["computed"]) == (
        256.0,
        256.0,
    )
    assert found["context_length"] == 2048
    assert [row["max_concurrent"] for row in found["concurrency"]] == [requests, 0, 0]


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    analyze_capacity.add(parser.add_subparsers())
    args = parser.parse_args(["capacity", *arguments])
    status: int = args.run(args)
    return status


LOG = "[2027-01-04 11:02:43 TP0] max_total_num_tokens=77000, max_running_requests=4, context_len=9000\n"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has the tokens at the top; Markdown says unknown for what is; escape sequences do not get through."""
    path = tmp_path / "a.log"
    path.write_text(LOG.replace("TP0]", "TP0] \x1b[31m"))
    assert run(str(path), "--json", "--request-tokens", "100") == 0
    assert json.loads(capsys.readouterr().out)["kv_cache_tokens"] == 77000
    assert run(str(path)) == 0
    shown = capsys.readouterr().out
    assert "77,000 tokens (read, line 1)" in shown
    assert "| model weights | unknown | unknown |" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("hello\n", (), "Looked for"),
        (LOG, ("--rank", "7"), "the log has TP0"),
        (LOG, ("--rank", "x"), "the log has TP0"),
        (LOG, ("--session", "2"), "holds 1"),
        (LOG, ("--config", "/nowhere"), "nowhere"),
        (LOG, ("--nvidia-smi", "/nowhere"), "nowhere"),
        (LOG, ("--json", "--format", "markdown"), "exclude"),
    ],
)
def test_command_refuses(tmp_path: Path, text: str, arguments: tuple[str, ...], says: str) -> None:
    """One clear line, exit status 2."""
    path = tmp_path / "a.log"
    path.write_text(text)
    with pytest.raises(BadInput, match=says) as error:
        run(str(path), *arguments)
    assert error.value.exit_status == 2


def test_command_without_a_file(tmp_path: Path) -> None:
    """A missing log and a folder are named."""
    for path in (tmp_path / "nowhere.log", tmp_path):
        with pytest.raises(BadInput, match=str(path)):
            run(str(path))
