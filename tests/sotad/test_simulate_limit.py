"""Roofline times, GPUs, layouts, and the number behind "at the limit"."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.simulate.answer import category_rows
from sotad.simulate.checkpoint import checked
from sotad.simulate.config import parse
from sotad.simulate.errors import SimulateError
from sotad.simulate.gpus import calibrate, gpu, table
from sotad.simulate.limit import NEAR, headroom, used
from sotad.simulate.parallel import Layout, factorings
from sotad.simulate.roofline import Roofline, roofline
from sotad.simulate.shapes import Batch, decode, prefill
from sotad.simulate.step import forward, parameters, weight_bytes
from sotad.simulate.whatif import what_if

MODELS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("simulate_models.yaml").read_text())


def found(name: str, batch: Batch, layout: Layout | None = None, card: str = "h200") -> Roofline:
    return roofline(forward(parse(MODELS[name]["config"], name), batch, layout), gpu(card))


GROWING = sorted(name for name in MODELS if not name.startswith("Llama-4"))
loads = st.one_of(
    st.builds(decode, st.integers(1, 300), st.integers(1, 30000)),
    st.builds(prefill, st.integers(1, 4), st.integers(1, 9000)),
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(MODELS)), batch=loads)
def test_nothing_beats_the_limit(name: str, batch: Batch) -> None:
    """The limit is at most the operators' sum; operators, categories and shares add up to the whole."""
    each = found(name, batch)
    assert 0 < each.limit_ms <= each.ms * (1 + 1e-9)
    assert sum(each.categories().values()) == pytest.approx(each.ms)
    assert sum(each.shares().values()) == pytest.approx(100)
    assert each.least_bytes <= each.bytes
    for part, timed in each.timed():
        assert timed.us >= 0 and part.times > 0
        assert timed.op.active <= timed.op.params * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(GROWING), length=st.integers(1, 20000), more=st.integers(1, 20000))
def test_more_context_never_costs_less(name: str, length: int, more: int) -> None:
    """Bytes and FLOPs of decode grow with the context, or stay; with chunks they fall where a new chunk begins."""
    short, long = found(name, decode(4, length)), found(name, decode(4, length + more))
    assert long.flops >= short.flops
    assert long.bytes >= short.bytes
    assert long.ms >= short.ms


@pytest.mark.parametrize(
    ("said", "name"),
    [
        *(("H200", "h200"), ("NVIDIA H200", "h200"), ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA B200", "b200")),
        *(("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA L40S", "l40s"), ("AMD Instinct MI300X", "mi300x")),
    ],
)
def test_gpus_by_the_drivers_name(said: str, name: str) -> None:
    """A GPU is found by the name that its driver reports."""
    assert gpu(said).name == name


def test_peaks_are_dense() -> None:
    """Stated peaks are those without sparsity: fp8 is twice bf16, and the sources are named."""
    for each in table().values():
        assert each.tflops.get("fp8", 2 * each.tflops["bf16"]) == pytest.approx(2 * each.tflops["bf16"], rel=0.02)
        assert each.source
    assert gpu("h200").tflops["bf16"] == 989.4


def test_formats_without_units_run_in_bf16() -> None:
    """An A100 has no fp8 units: such products get its bf16 peak."""
    assert gpu("a100").peak("fp8") == gpu("a100").peak("bf16") == 312e12


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("{}", "none of tflops"),
        ('{"tflops": 5}', "no JSON object with tflops"),
        ('{"tflops": {"bfloat": 700}}', "bfloat is no kind of arithmetic"),
        ('{"tflops": {"bf16": -3}}', "bf16 is -3, not a positive number"),
        ('{"bandwidth_gbs": "fast"}', "'fast', not a positive number"),
        ('{"tflops": {"bf16": 1979}}', "above the GPU's 989.4"),
        ('{"gpu": "b200", "bandwidth_gbs": 4000}', "measured on b200"),
    ],
)
def test_bad_calibrations(tmp_path: Path, content: str, said: str) -> None:
    """A calibration that cannot be of this GPU is refused."""
    path = tmp_path / "peaks.json"
    path.write_text(content)
    with pytest.raises(SimulateError, match=said):
        calibrate(gpu("h200"), path)


def test_calibrated_peaks_replace_stated_ones(tmp_path: Path) -> None:
    """Measured peaks count in place of the table's, and are named."""
    path = tmp_path / "peaks.json"
    path.write_text(json.dumps({"gpu": "NVIDIA H200", "tflops": {"bf16": 790}, "bandwidth_gbs": 4300}))
    card = calibrate(gpu("h200"), path)
    assert (card.peak("bf16"), card.peak("fp8"), card.memory_rate) == (790e12, 1978.9e12, 4300e9)
    assert card.as_json()["peaks"] == "calibrated"
    assert set(card.calibrated) == {"bandwidth", "bf16"}


def test_headroom_says_how_near() -> None:
    """A step at the limit has fraction 1; from the threshold on it is near, below it is not."""
    each = found("Qwen3-8B", decode(8, 1000))
    at = headroom(each, "decode", each.limit_ms)
    assert (at["fraction_of_limit"], at["mbu"], at["near_limit"], at["status"]) == (1.0, 1.0, True, "ok")
    assert headroom(each, "decode", each.limit_ms / NEAR * 0.999)["near_limit"]
    assert not headroom(each, "decode", each.limit_ms / NEAR * 1.001)["near_limit"]


def test_what_is_faster_than_possible_is_said() -> None:
    """Above 100 % MFU the status is impossible, and that is no claim to be near the limit."""
    each = found("Llama-3.1-8B", prefill(1, 8192))
    far = headroom(each, "prefill", each.peak_seconds * 1e3 / 3.127)
    assert far["mfu"] == pytest.approx(3.127)
    assert (far["status"], far["near_limit"]) == ("impossible", False)


def test_no_verdict_without_inputs_or_templates() -> None:
    """Assumed inputs and layers without a template leave the number, and withhold the verdict."""
    each = found("Qwen3-8B", decode(8, 1000))
    assert headroom(each, "decode", each.limit_ms, assumed=["a context"])["near_limit"] is False
    model = replace(each.step.model, unmodelled=["x: no template covers it"])
    other = replace(each, step=replace(each.step, model=model))
    assert headroom(other, "decode", each.limit_ms)["status"] == "incomplete"


def test_lowered_peaks_prove_nothing() -> None:
    """An efficiency, or a calibration far below the table, brings every step near its limit: no verdict with them."""
    step, card = forward(parse(MODELS["Qwen3-8B"]["config"]), decode(8, 1000)), gpu("h200")
    slow = replace(card, bandwidth=1000.0, calibrated=("bandwidth",))
    for lowered in (replace(card, efficiency=0.6), slow):
        each = roofline(step, lowered)
        assert headroom(each, "decode", each.limit_ms)["status"] == "assumed"
    fair = roofline(step, replace(card, bandwidth=4300.0, calibrated=("bandwidth",)))
    assert headroom(fair, "decode", fair.limit_ms)["near_limit"]


def test_kernels_cannot_beat_the_limit_either() -> None:
    """A step that waits is slow enough, but what its kernels took is impossible too."""
    each = found("Qwen3-8B", decode(8, 1000))
    assert headroom(each, "decode", 10.0, busy_ms=1.0)["status"] == "impossible"


def test_even_routing_is_an_assumption() -> None:
    """Few tokens may pick fewer experts than even routing: no verdict, unless measured or all are read anyway."""
    model, card = parse(MODELS["Qwen3-30B-A3B"]["config"]), gpu("h200")
    few, many = (roofline(forward(model, decode(size, 1000)), card) for size in (4, 128))
    known = roofline(forward(model, decode(4, 1000), experts=20), card)
    assert "even routing" in headroom(few, "decode", few.limit_ms)["inputs"]["assumed"][0]
    assert [headroom(each, "decode", each.limit_ms)["status"] for each in (few, many, known)] == ["assumed", "ok", "ok"]
    assert known.limit_ms < few.limit_ms


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none(value: float) -> None:
    """A measured time is a positive number."""
    with pytest.raises(ValueError, match="measured_ms"):
        used(found("Qwen3-8B", decode(1, 1)), value)


def test_gaps_of_categories_add_up() -> None:
    """The rows' gaps sum to measured kernels minus roofline; work without a model and too fast work are marked."""
    each = found("Qwen3-8B", decode(8, 1000))
    taken = {"gemm": 4.2, "attention": 0.1, "sampling": 0.02}
    rows = {row["category"]: row for row in category_rows(each, taken)}
    assert sum(row["gap_ms"] for row in rows.values()) == pytest.approx(sum(taken.values()) - each.ms)
    assert rows["sampling"]["status"] == "unmodelled"
    assert rows["attention"]["status"] == "below_bound"
    assert rows["gemm"]["status"] == "ok"


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "Qwen3-30B-A3B", "Nemotron-3-Nano-30B-A3B", "DeepSeek-V3"])
def test_tensor_parallel_divides_the_work(name: str) -> None:
    """Two GPUs hold and do at least half each, and little more: what is replicated is small."""
    one, two = found(name, decode(64, 2048)), found(name, decode(64, 2048), Layout(tp=2))
    assert 0.5 * one.matrix_flops <= two.matrix_flops <= 0.6 * one.matrix_flops
    assert 0.5 <= weight_bytes(two.step) / weight_bytes(one.step) <= 0.52


def test_key_value_heads_are_copied_when_there_are_too_few() -> None:
    """4 key/value heads on 8 GPUs: each holds one, twice its share of the cache."""
    name = "Qwen3-30B-A3B"
    two, eight = (found(name, decode(8, 1024), Layout(tp=size)).step for size in (2, 8))
    per_layer = [next(op for op in step.parts[0].ops if op.name == "attention_qk").kv_bytes for step in (two, eight)]
    assert per_layer == [8 * 1024 * 2 * 128 * 2, 8 * 1024 * 128 * 2]


def test_expert_parallel_divides_experts_and_sends_tokens() -> None:
    """8 replicas with experts over all 8: an eighth of the experts each, two all-to-alls per layer."""
    one, spread = found("DeepSeek-V3", decode(256, 2048)), found("DeepSeek-V3", decode(256, 2048), Layout(dp=8, ep=8))

    def held(each: Roofline) -> float:
        return sum(op.params * times for op, times in each.step.ops() if op.name.startswith("experts"))

    assert held(spread) == held(one) / 8
    sent = [op for part in spread.step.parts for op in part.ops if op.category == "communication"]
    assert [op.name for op in sent] == ["all_to_all_dispatch", "all_to_all_combine"]
    assert sent[0].comm_bytes == 32 * 8 * 7168 * 2 * 7 / 8
    experts = next(op for op in spread.step.parts[1].ops if op.name == "experts_gate_up")
    assert experts.mnk is not None and experts.mnk[0] == 256 * 8 / 8


def test_all_reduce_volume() -> None:
    """A ring sends 2 (n - 1) / n of the message per GPU, twice per layer."""
    each = found("Llama-3.1-8B", decode(16, 100), Layout(tp=4))
    sent = [op for op in each.step.parts[0].ops if op.category == "communication"]
    assert [op.comm_bytes for op in sent] == [2 * 3 / 4 * 16 * 4096 * 2] * 2


@pytest.mark.parametrize(
    ("name", "layout", "said"),
    [
        ("Qwen2.5-7B", Layout(tp=8), "28 attention heads cannot be divided among 8"),
        ("Llama-3.1-8B", Layout(pp=64), "32 layers"),
        ("Qwen3-30B-A3B", Layout(tp=4, ep=3), "ep 3 does not divide"),
        ("Llama-3.1-8B", Layout(tp=0), "tp is 0"),
        ("gpt-oss-20b", Layout(dp=64, ep=64), "32 experts cannot be divided among 64"),
    ],
)
def test_impossible_layouts(name: str, layout: Layout, said: str) -> None:
    """A layout that does not divide the model is refused with the reason."""
    with pytest.raises(SimulateError, match=said):
        found(name, decode(8, 100), layout)


@given(gpus=st.integers(1, 16), moe=st.booleans())
def test_layouts_use_all_gpus(gpus: int, moe: bool) -> None:
    """Every layout has just that many GPUs, and none comes twice."""
    layouts = list(factorings(gpus, moe))
    assert all(layout.gpus == gpus for layout in layouts)
    assert len(set(layouts)) == len(layouts)


def test_what_if_puts_what_fits_first() -> None:
    """DeepSeek-V3 on 8 H200: plain data parallelism does not fit, and layouts that do come first by throughput."""
    rows = what_if(parse(MODELS["DeepSeek-V3"]["config"]), decode(128, 4096), gpu("h200"), 8)
    fits = [row["feasible"] for row in rows]
    assert fits == sorted(fits, reverse=True) and fits[0]
    replicas = next(row for row in rows if (row["dp"], row["ep"]) == (8, 1))
    assert not replicas["feasible"] and replicas["weights_gb"] > 141
    rates = [row["tokens_per_s_per_gpu"] for row in rows if row["feasible"]]
    assert rates == sorted(rates, reverse=True)


def test_the_checkpoint_has_to_agree(tmp_path: Path) -> None:
    """A checkpoint of another size than the model's weights is remarked on, one of the same is not."""
    model = parse(MODELS["Qwen3-0.6B"]["config"])
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": int(parameters(model)[0] * 2)}}))
    assert checked(tmp_path, model) == []
    index.write_text(json.dumps({"metadata": {"total_size": 10**9}}))
    assert "1.00 GB" in checked(tmp_path, model)[0]
    index.write_text("[]")
    assert "not checked" in checked(tmp_path, model)[0]
