"""``sotactl simulate``: what it prints, what it refuses, and its numbers beside real traces."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from sotad.cli import simulate
from sotad.cli.entry import Parser, main

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOTAD_DATA", ROOT.parent / "shared" / "data")) / "h200"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no captured traces here")
MODELS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("simulate_models.yaml").read_text())


class Outcome:
    """What one call came to."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        """What was printed, read as JSON."""
        return json.loads(self.out)


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command on the config of a model."""

    def run(name: str, *options: str) -> Outcome:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(MODELS[name]["config"]))
        top = Parser(prog="sotactl")
        simulate.add(top.add_subparsers(required=True))
        try:
            status = main(top, ["simulate", str(folder), *options])
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return run


def traced(path: Path, steps: int, step_us: int, text: str) -> Path:
    """A trace of steps of a GEMM and an attention kernel, 3 and 1 quarters of the busy part; a tenth is idle."""
    events: list[dict[str, Any]] = []
    for number in range(steps):
        begin = 1000 + number * step_us
        lengths = (0.675 * step_us, 0.225 * step_us)
        window = {"cat": "gpu_user_annotation", "name": text, "pid": 0, "tid": 7, "ts": begin, "dur": sum(lengths)}
        events.append({"ph": "X", **window, "args": {"External id": 100 + number}})
        for name, at, length in (
            ("nvjet_sm90_tst_64x8_TNT", begin, lengths[0]),
            ("flash_fwd_splitkv_kernel", begin + lengths[0], lengths[1]),
        ):
            args = {"stream": 7, "device": 0, "correlation": len(events), "External id": 100 + number}
            kernel = {"cat": "kernel", "name": name, "pid": 0, "tid": 7, "ts": at, "dur": length, "args": args}
            events.append({"ph": "X", **kernel})
    path.write_text(json.dumps({"traceEvents": events}))
    return path


def test_both_stages_by_default(call: Any) -> None:
    """Prefill and decode come as tables, the largest operators first."""
    found = call("Qwen3-8B", "--batch", "8", "--top", "3")
    assert found.status == 0, found.err
    assert "## Prefill" in found.out and "## Decode" in found.out
    assert found.out.index("gate_up_proj") < found.out.index("down_proj")
    assert "12 more" in found.out


def test_totals_are_the_sum_of_operators(call: Any) -> None:
    """In the JSON the totals of each stage add up from its layers and operators."""
    for stage in call("DeepSeek-V3", "--json", "--tp", "8", "--batch", "16").json["stages"].values():
        for total, key in (("flops", "flops"), ("comm_bytes", "comm_bytes"), ("roofline_ms", "roofline_us")):
            whole = sum(part["count"] * op[key] for part in stage["layers"] for op in part["ops"])
            whole /= 1e3 if total == "roofline_ms" else 1
            assert stage["totals"][total] == pytest.approx(whole)
        parts = [len(part["layers"]) for part in stage["layers"]]
        assert sum(parts) == 61


def test_a_measured_time_by_hand(call: Any) -> None:
    """--measured-ms gives MFU, MBU and the fraction of the limit; faster than possible is said aloud."""
    load = ("--stage", "decode", "--batch", "8", "--kv-len", "1000", "--measured-ms")
    assert "not near the limit" in call("Qwen3-8B", *load, "5.25").out
    assert "IMPOSSIBLE" in call("Qwen3-8B", *load, "1.0").out
    found = call("Qwen3-8B", *load, "3.5", "--json").json["headroom"]["decode"]
    assert found["near_limit"] and found["fraction_of_limit"] == pytest.approx(0.971, abs=0.002)
    assert found["inputs"]["config_sha256"]


def test_a_context_that_nobody_gave_is_assumed(call: Any) -> None:
    """Without --kv-len there is a number but no verdict."""
    found = call("Qwen3-8B", "--stage", "decode", "--batch", "8", "--measured-ms", "3.5", "--json").json
    assert found["headroom"]["decode"]["status"] == "assumed"
    assert found["headroom"]["decode"]["inputs"]["assumed"] == ["a context of 1024 tokens (--kv-len)"]


def test_a_trace_says_the_shape_and_the_times(call: Any, tmp_path: Path) -> None:
    """Batch and stage come from the trace's steps; times are medians per step and category."""
    path = traced(tmp_path / "a.trace.json", 5, 6000, "step[DECODE bs=8]")
    found = call("Qwen3-8B", "--trace", str(path), "--kv-len", "1000", "--json").json
    assert found["stages"]["decode"]["groups"] == [{"count": 8, "q_len": 1, "kv_len": 1000}]
    measured = found["measured"]["decode"]
    assert (measured["steps"], measured["kernel_ms"], measured["busy_ms"]) == (5, 5.4, 5.4)
    assert (measured["span_ms"], measured["period_ms"], measured["step_ms"]) == (5.4, 6.0, 6.0)
    assert measured["categories"] == {"gemm": 4.05, "attention": 1.35}
    headroom = found["headroom"]["decode"]
    assert headroom["measured_ms"] == 6.0
    assert headroom["fraction_of_limit_busy"] == pytest.approx(headroom["limit_ms"] / 5.4)
    gemm = next(row for row in found["categories"]["decode"] if row["category"] == "gemm")
    assert gemm["gap_ms"] == pytest.approx(4.05 - gemm["roofline_ms"])


def test_prompts_of_a_trace(call: Any, tmp_path: Path) -> None:
    """The tokens of a prefill step are divided among its requests."""
    path = traced(tmp_path / "a.trace.json", 3, 60000, "step[EXTEND bs=2 toks=4096]")
    found = call("Qwen3-8B", "--trace", str(path), "--json").json
    assert found["stages"]["prefill"]["groups"] == [{"count": 2, "q_len": 2048, "kv_len": 2048}]
    headroom = found["headroom"]["prefill"]  # 60 ms of products in 54 ms
    assert (headroom["status"], headroom["measured_ms"]) == ("impossible", 54.0)


def test_ranks_that_the_layout_does_not_know(call: Any, tmp_path: Path) -> None:
    """Traces of two ranks are no evidence for a model of one GPU; with --tp 2 they are."""
    for rank in (0, 1):
        traced(tmp_path / f"1700000000.5-TP-{rank}.trace.json", 4, 6000, "step[DECODE bs=8]")
    options = ("--trace", str(tmp_path), "--kv-len", "1000", "--stage", "decode", "--json")
    alone = call("Qwen3-8B", *options).json["headroom"]["decode"]
    assert alone["status"] == "assumed" and "the trace has 2" in alone["inputs"]["assumed"][0]
    both = call("Qwen3-8B", *options, "--tp", "2").json
    assert both["headroom"]["decode"]["status"] == "ok"
    assert both["measured"]["decode"]["steps"] == 8


def test_what_if_is_a_table(call: Any) -> None:
    """--gpus adds every layout of that many GPUs, with the reason where one is impossible."""
    found = call("Qwen3-30B-A3B", "--stage", "decode", "--batch", "64", "--gpus", "8", "--top", "1")
    assert "tokens/s/GPU" in found.out
    rows = call("Qwen2.5-7B", "--stage", "decode", "--gpus", "8", "--json").json["what_if"]["decode"]
    refused = next(row for row in rows if row["tp"] == 8)
    assert not refused["feasible"] and "28 attention heads" in refused["reason"]


def test_html_is_a_page(call: Any, tmp_path: Path) -> None:
    """--format html writes a page that parses."""
    out = tmp_path / "page.html"
    assert call("Qwen3-8B", "--format", "html", "--out", str(out)).status == 0
    text = out.read_text()
    ElementTree.fromstring(text[text.index("<html") :])
    assert "gate_up_proj" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpu", "h999"), "GPU 'h999' is not in the table"),
        (("--dtype", "int3"), "dtype 'int3' is not known"),
        (("--kv-dtype", "x"), "dtype 'x' is not known"),
        (("--tp", "7"), "cannot be divided among 7 GPUs"),
        (("--batch", "0"), "batch is 0"),
        (("--input-len", "0"), "input_len is 0"),
        (("--kv-len", "-1"), "kv_len is -1"),
        (("--cached", "5000"), "cached prefix 5000"),
        (("--efficiency", "0"), "efficiency 0"),
        (("--measured-ms", "5"), "--measured-ms is of one stage"),
        (("--stage", "decode", "--measured-ms", "nan"), "not a positive number"),
        (("--stage", "decode", "--measured-ms", "0"), "not a positive number"),
        (("--trace", "/nowhere"), "/nowhere"),
        (("--calibrate", "/nowhere.json"), "/nowhere.json"),
        (("--gpus", "-4"), "gpus is -4"),
        (("--experts-touched", "nan"), "experts touched is nan"),
        (("--json", "--format", "html"), "exclude each other"),
    ],
)
def test_bad_input_is_one_line(call: Any, options: tuple[str, ...], said: str) -> None:
    """What cannot be computed ends with status 2 and one line that says what."""
    found = call("Qwen3-8B", *options)
    assert (found.status, found.err.count("\n")) == (2, 1), found.err
    assert said in found.err
    assert "Traceback" not in found.err


def test_a_trace_without_steps(call: Any, tmp_path: Path) -> None:
    """A trace with no step that can be compared is bad input, in one line."""
    path = tmp_path / "a.trace.json"
    path.write_text('{"traceEvents": []}')
    found = call("Qwen3-8B", "--trace", str(path))
    assert found.status == 2 and found.err.count("\n") == 1


def test_the_command_loads_little() -> None:
    """Its parser is built without the model, YAML, or numpy."""
    code = "import sys, sotad.cli.simulate; print([m for m in ('yaml', 'numpy', 'sotad.simulate') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@needs_data
@pytest.mark.parametrize("engine", ["vllm", "sgl"])
def test_decode_on_a_real_h200(call: Any, engine: str) -> None:
    """Qwen3-8B, 8 requests: about 5.3 ms of kernels a step against a roofline of 3.3 ms, GEMMs at 70 to 80 %."""
    found = call("Qwen3-8B", "--trace", str(DATA / engine / "traces/graph/decode"), "--kv-len", "750", "--json").json
    assert found["measured"]["decode"]["kernel_ms"] == pytest.approx(5.27, abs=0.05)
    headroom = found["headroom"]["decode"]
    assert headroom["limit_ms"] == pytest.approx(3.338, abs=0.01)
    assert 0.55 < headroom["fraction_of_limit"] < 0.65 and headroom["status"] == "ok"
    gemm = next(row for row in found["categories"]["decode"] if row["category"] == "gemm")
    assert 0.70 < gemm["fraction"] < 0.80


@needs_data
@pytest.mark.parametrize("engine", ["vllm", "sgl"])
def test_prefill_on_a_real_h200(call: Any, engine: str) -> None:
    """One prompt of 2048 tokens: about 44 ms of kernels against 30 ms at the stated peak, and nothing impossible."""
    path = DATA / engine / "traces/graph/prefill"
    found = call("Qwen3-8B", "--stage", "prefill", "--trace", str(path), "--json").json
    assert found["stages"]["prefill"]["groups"] == [{"count": 1, "q_len": 2048, "kv_len": 2048}]
    headroom = found["headroom"]["prefill"]
    assert 0.60 < headroom["mfu"] < 0.70 and 0.66 < headroom["fraction_of_limit_busy"] < 0.72
    assert headroom["status"] == "ok" and not headroom["near_limit"]


@needs_data
def test_bytes_agree_with_hardware_counters(call: Any) -> None:
    """Each GEMM's bytes over its duration are the DRAM throughput that Nsight Compute counted, within 6 %."""
    part = call("Qwen3-8B", "--stage", "decode", "--batch", "8", "--json").json["stages"]["decode"]["layers"][0]
    needed = {op["name"]: op["roofline_us"] for op in part["ops"]}
    lines = list(csv.DictReader((DATA / "ncu" / "vllm-eager-decode-raw.csv").read_text().splitlines()))
    counted = [line for line in lines if line["Kernel Name"].startswith("nvjet")][:4]
    for name, line in zip(("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), counted, strict=True):
        share = needed[name] / float(line["gpu__time_duration.sum"])
        seen = float(line["gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"]) / 100
        assert share == pytest.approx(seen, rel=0.06), name
