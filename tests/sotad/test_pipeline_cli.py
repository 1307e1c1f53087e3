"""``sotactl analyze pipeline``: what a stranger types and gets, and what real traces of two engines give."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_rig import HEAD, LAYER, MOE, TAIL, K, Made, joined, later, passes, seen, trace, written

from sotad.cli import analyze_pipeline
from sotad.errors import BadInput
from sotad.pipeline.model import of as model_of
from sotad.pipeline.report import report as report_of
from sotad.pipeline.shown import markdown

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOTAD_DATA", ROOT.parent / "shared" / "data")) / "h200"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no captured traces here")
QWEN3_8B = {
    "model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936,
}  # fmt: skip


def run(*words: Any) -> int:
    parser = argparse.ArgumentParser()
    analyze_pipeline.add(parser.add_subparsers())
    args = parser.parse_args(["pipeline", *map(str, words)])
    return int(args.run(args))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two devices, prefill and decode, first layers without experts."""
    layers = [LAYER] * 2 + [MOE] * 10
    decode, prefill = passes(layers, 5), passes(layers, 3, "step[EXTEND bs=1 toks=512]", dur=90.0)
    made = joined(decode, later(prefill, 50_000), later(passes(layers, 5), 2.0, device=1))
    return written(tmp_path / "mixed.trace.json", made)


def report(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert run(*words, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_json_holds_every_part(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Passes, steady ones, layers, clusters, flow, ranges and a verdict for each kind; other devices and their skew."""
    found = report(capsys, mixed)
    assert found["segmentation"]["reliable"] and found["segmentation"]["layers"] == 12
    assert found["segmentation"]["method"] == "annotation"
    assert set(found["steady"]) == set(found["bottleneck"]) == {"prefill", "decode"}
    assert len(found["layers"]) == 24
    assert {(row["kind"], row["id"], len(row["layers"])) for row in found["clusters"]} >= {("decode", "A", 10)}
    assert [other["device"] for other in found["other_devices"]] == ["1"]
    for kind in ("prefill", "decode"):
        told = [row["share_of_pass"] for row in found["clusters"] if row["kind"] == kind]
        assert 80 < sum(told) <= 100
        whole = found["steady"][kind]
        parts = ("before_layers_us", "in_layers_us", "between_layers_us", "after_layers_us")
        assert sum(whole[part] for part in parts) == pytest.approx(whole["median_us"], abs=0.01)


def test_flow_shares_and_ranges_fit(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shares of a layer's kernels are 100 %, ranges are in us from the trace's begin and nested in their pass."""
    found = report(capsys, mixed, "--stage", "decode")
    assert {row["kind"] for row in found["passes"]} == {"decode"}
    rows = [row for row in found["flow"] if row["cluster"] == "A"]
    assert sum(row["share"] for row in rows) == pytest.approx(100, abs=0.1)
    assert [row["idx"] for row in rows] == list(range(len(MOE)))
    whole, *layers = found["perfetto"]
    assert len(layers) == 12
    assert all(whole["start_us"] <= row["start_us"] < row["end_us"] <= whole["end_us"] for row in layers)
    assert layers[3]["url"] == f"visStart={layers[3]['start_ns']}&visEnd={layers[3]['end_ns']}"
    assert layers[3]["end_ns"] - layers[3]["start_ns"] == round(1000 * layers[3]["dur_us"])


def test_a_layer_and_its_comparison(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One layer of one pass with its kernels by heat, and what sets another apart in us."""
    found = report(capsys, mixed, "--pass", 2, "--layer", 5, "--compare-layer", 1)
    told = found["layer"]["metadata"]
    assert (told["layer_id"], told["fwd_pass"], told["num_layers"], told["num_kernels"]) == (5, 2, 12, len(MOE))
    assert found["steady"]["decode"]["indices"] == [2]
    times = [row["dur_us"] for row in found["layer"]["kernels"]]
    assert times == sorted(times, reverse=True)
    assert found["comparison"]["delta_us"] == pytest.approx(10.0 * (len(LAYER) - len(MOE)))


def test_markdown_holds_what_a_report_must(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trace, config, architecture, passes, the chosen pass with its reason, layers, clusters, flow, verdict."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"num_hidden_layers": 12, "num_attention_heads": 4, "num_experts": 8}))
    out = tmp_path / "report.md"
    assert run(mixed, "--config", config, "--out", out, "--layer", 3, "--compare-layer", 99) == 0
    assert "no layer 99" in capsys.readouterr().err
    text = out.read_text()
    parts = [str(mixed), str(config), "experts 8", "## Passes", "nearest to the median", "## Layers of decode"]
    parts += ["Clusters of decode", "Compute flow: decode cluster A", "visStart=", "**decode**: ", "## Layer 3"]
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pass", "99"], "no pass 99 on device 0; it has passes 0 to 7"),
        (["--layer", "12"], "no layer 12 in prefill pass"),
        (["--stage", "verify"], "no verify pass on device 0; there is decode, prefill"),
        (["--profile", "nope"], "no profile 'nope'"),
        (["--compare-layer", "2"], "--compare-layer needs the layer"),
        (["--format", "markdown", "--json"], "exclude each other"),
    ],
)
def test_what_is_not_there_is_said(mixed: Path, words: list[str], message: str) -> None:
    """A pass, layer, kind or profile that does not exist ends the command with one line that says what does."""
    with pytest.raises(BadInput, match=message):
        run(mixed, *words)


@pytest.mark.parametrize("content", ['{"traceEvents": []}', '{"traceEvents": [', "[]", "", '{"traceEvents": 3}'])
def test_bad_traces_are_refused(tmp_path: Path, content: str) -> None:
    """Empty, cut or other JSON is one clear line, not a traceback."""
    path = tmp_path / "bad.trace.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"bad\.trace\.json"):
        run(path)


def test_a_cpu_only_trace_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Without kernels the command says so and what to capture."""
    event = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1.0, "dur": 2.0, "args": {}}
    path = tmp_path / "cpu.trace.json"
    path.write_text(json.dumps({"traceEvents": [event]}))
    with pytest.raises(BadInput, match=r"no GPU kernels in it \(1 CPU operators, 0 copies\); capture again"):
        run(path)


def test_a_trace_without_layers_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kernels that show no layers give passes and the advice, exit status 0 and reliable false."""
    made = Made(passes([LAYER], 1, None).kernels[:6])
    found = report(capsys, written(tmp_path / "few.trace.json", made))
    assert not found["segmentation"]["reliable"]
    assert "--anchor" in found["segmentation"]["message"] or "--num-layers" in found["segmentation"]["message"]
    assert run(tmp_path / "few.trace.json") == 0
    assert found["layers"] == [] and len(HEAD) + len(TAIL) == 5


def test_a_layer_of_a_trace_without_passes_is_refused(tmp_path: Path) -> None:
    """Asking for a layer where there is no pass at all is said to be wrong."""
    made = Made(passes([LAYER], 1, None).kernels[:1])
    with pytest.raises(BadInput, match=r"no layer 3 .* it has no passes"):
        run(written(tmp_path / "one.trace.json", made), "--layer", 3)


def test_a_wrong_number_of_layers_is_unreliable(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the caller says is held against the trace: a wrong number cuts nothing and shows both numbers."""
    found = report(capsys, mixed, "--num-layers", 7)
    assert not found["segmentation"]["reliable"]
    assert found["segmentation"]["message"] == (
        "layer segmentation unreliable in 8 of 8 passes: 12 anchors found, 7 expected"
    )


def test_ranks_are_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of ranks gives one result for each file, side by side in the Markdown; an idle rank is named."""
    for rank in (0, 1):
        written(tmp_path / f"x-TP-{rank}.trace.json", passes([LAYER] * (6 + rank), 4))
    event = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1.0, "dur": 2.0, "args": {}}
    (tmp_path / "x-TP-2.trace.json").write_text(json.dumps({"traceEvents": [event]}))
    found = report(capsys, tmp_path)
    assert [found["segmentation"]["layers"], *(each["segmentation"]["layers"] for each in found["other_devices"])] == [
        6,
        7,
    ]
    assert "TP-2" in found["not_used"][0]
    assert run(tmp_path) == 0
    assert "## All devices" in capsys.readouterr().out


def test_devices_of_one_file_have_a_skew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where two devices run the same passes, how far apart they begin is said."""
    one = passes([LAYER] * 6, 3)
    found = report(capsys, written(tmp_path / "two.trace.json", joined(one, later(one, 7.0, device=1))))
    assert [row["start_skew_us"] for row in found["rank_skew"]] == [7.0] * 3


NAMES = ["flash_fwd_kernel", "nvjet_a", "rms_norm", "mhc_post_tilelang", "ncclDevKernel_X", "", "a|b", "void (", "<>("]
KERNELS = st.builds(
    K, st.sampled_from(NAMES), st.integers(0, 400), st.integers(1, 60), st.integers(0, 1), st.integers(5, 7),
    st.integers(-1, 3),
)  # fmt: skip
STEPS = st.tuples(
    st.sampled_from(["step[DECODE bs=1]", "execute_context_1(9)_generation_0(0)"]), st.integers(0, 400),
    st.integers(401, 900), st.integers(0, 1),
)  # fmt: skip
MADE = st.builds(
    Made, st.lists(KERNELS, min_size=1, max_size=40), st.lists(STEPS, max_size=3),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400)), max_size=3, unique_by=lambda graph: graph[0]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(MADE, st.sampled_from([None, 1, 2, 5]), st.sampled_from([None, "norm", "nothing like it"]))
def test_any_kernels_give_a_report(made: Made, layers: int | None, anchor: str | None) -> None:
    """Whatever ran, on any streams and at any time, is reported and rendered, and its kernels are all accounted for."""
    found = trace(made)
    for view in seen(found, layers=layers, anchor=anchor):
        told = report_of(view, found, model_of({}))
        assert told["segmentation"]["kernels"] == sum(kernel.device == int(view.lane.device) for kernel in made.kernels)
        assert markdown(told).startswith("# Pipeline of device")
        json.dumps(told, allow_nan=False)
        for part in told["steady"].values():
            assert part["busy_us"] >= 0 and 0 <= part["idle_us"] <= part["median_us"] + 1


def test_the_command_loads_nothing_heavy_before_it_runs() -> None:
    """Importing the command's module does not import numpy."""
    code = "import sys, sotad.cli.analyze_pipeline; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


@needs_data
@pytest.mark.parametrize("told", ["nothing", "config"])
@pytest.mark.parametrize(
    "folder",
    sorted(path.parent for path in DATA.glob("*/traces/*/*/*.json.gz")),
    ids=lambda path: str(path.relative_to(DATA)),
)
def test_real_traces_have_36_layers(
    folder: Path, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """vLLM and SGLang, graphs and eager, prefill and decode: every pass of the 36-layer model has 36 layers."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(QWEN3_8B))
    found = report(capsys, folder, *(["--config", config] if told == "config" else []))
    assert found["segmentation"]["reliable"]
    assert {row["layers"] for row in found["passes"]} == {36}
    assert found["segmentation"]["confidence"] >= 0.8
    kind = folder.name
    assert found["steady"][kind]["layers"] == 36
    shares = [row["share_of_pass"] for row in found["clusters"] if row["kind"] == kind]
    assert 80 < sum(shares) <= 100 and len(shares) == 2
    first = [row for row in found["flow"] if row["kind"] == kind and row["cluster"] == "A"]
    assert first[0]["category"] == "norm" and first[-1]["category"] == "gemm"
    assert "attention" in {row["category"] for row in first}
