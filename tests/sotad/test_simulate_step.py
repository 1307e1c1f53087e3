"""FLOPs and bytes of a step, against worked numbers and brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sotad.simulate.config import parse
from sotad.simulate.errors import SimulateError
from sotad.simulate.gpus import gpu
from sotad.simulate.moe import touched
from sotad.simulate.ops import Op
from sotad.simulate.roofline import Roofline, roofline
from sotad.simulate.shapes import Batch, Group, decode, prefill
from sotad.simulate.step import Pass, cache_bytes, forward, parameters

MODELS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("simulate_models.yaml").read_text())


def step(name: str, batch: Batch, **changes: Any) -> Pass:
    return forward(parse({**MODELS[name]["config"], **changes}, name), batch)


def ops(found: Pass, part: int = 0) -> dict[str, Op]:
    return {op.name: op for op in found.parts[part].ops}


def on_h200(found: Pass) -> Roofline:
    return roofline(found, gpu("h200"))


@pytest.mark.parametrize(
    ("batch", "gflop", "gbyte", "compute_ms", "memory_ms"),
    [
        (decode(1, 1024), 15.546, 15.144, 0.0157, 3.155),
        (decode(64, 8192), 1235.5, 83.73, 1.249, 17.443),
        (prefill(1, 4096), 61575.0, None, 62.26, None),
    ],
)
def test_a_dense_model_by_hand(
    batch: Batch, gflop: float, gbyte: float | None, compute_ms: float, memory_ms: float | None
) -> None:
    """Llama-3.1-8B: FLOPs of products and scores, bytes of weights and cache, and their times on an H200."""
    found = on_h200(step("Llama-3.1-8B", batch))
    assert found.matrix_flops / 1e9 == pytest.approx(gflop, rel=1e-3)
    assert found.peak_seconds * 1e3 == pytest.approx(compute_ms, rel=5e-3)
    if gbyte and memory_ms:
        assert found.least_bytes / 1e9 == pytest.approx(gbyte, rel=1e-3)
        assert found.limit_ms == pytest.approx(memory_ms, rel=1e-3)
        assert found.bound == "memory"
    else:
        assert found.bound == "compute"


def test_forward_flops_are_two_per_parameter() -> None:
    """Without scores and lm_head a dense model takes 2 FLOPs per parameter of its layers and token."""
    found = step("Llama-3.1-8B", prefill(1, 512))
    linear = sum(op.flops * times for op, times in found.ops() if op.category == "gemm" and op.name != "lm_head")
    model = found.model
    inside = parameters(model)[0] - 2 * model.vocab * model.hidden
    assert linear == pytest.approx(2 * 512 * inside, rel=1e-3)


def test_causal_scores_of_a_long_prompt() -> None:
    """128 heads of 128 over 4096 tokens: 275 GFLOP of QK per layer, the causal half of the square."""
    wide = step("Qwen3-235B-A22B", prefill(1, 4096), num_attention_heads=128, num_key_value_heads=8)
    assert ops(wide)["attention_qk"].flops / 1e9 == pytest.approx(275, rel=1e-3)


def test_decode_depends_on_the_context() -> None:
    """A longer context costs more FLOPs and more bytes."""
    short, long = (on_h200(step("Qwen3-8B", decode(1, length))) for length in (1, 8192))
    assert long.flops > short.flops
    assert long.least_bytes - short.least_bytes == pytest.approx(8191 * 36 * 2 * 8 * 128 * 2)


def test_published_shape_of_qwen3_235b() -> None:
    """41.89 GFLOP per token in the layers, as 22 B active parameters say."""
    found = step("Qwen3-235B-A22B", decode(1, 1))
    layers = sum(op.flops for op in found.parts[0].ops if op.math == "bf16" and not op.name.startswith("attention_"))
    assert 94 * layers / 1e9 == pytest.approx(41.891, rel=2e-3)


def test_deepseek_v3_by_hand() -> None:
    """MLA decode: 73.2 GFLOP per token beside the scores, 278,528 per context token and layer, 70,272 B of cache."""
    found = step("DeepSeek-V3", decode(1, 8192))
    scores = sum(op.flops * times for op, times in found.ops() if op.category == "attention")
    assert scores / 61 / 8192 == 278528
    rest = on_h200(found).matrix_flops - scores
    assert rest / 1e9 == pytest.approx(73.2, rel=0.01)
    assert rest == pytest.approx(2 * 37e9, rel=0.03)
    assert cache_bytes(found)[0] == 61 * 576 * 2
    cache = sum(op.kv_bytes * times for op, times in found.ops() if op.category == "attention")
    assert cache / 1e9 == pytest.approx(0.5757, rel=1e-3)


def test_mla_unpacks_for_prefill_and_absorbs_for_decode() -> None:
    """Prefill multiplies kv_b and wide heads, decode the latent of all heads; both hold the same parameters."""
    whole, one = (ops(step("DeepSeek-V3", batch)) for batch in (prefill(1, 4096), decode(1, 4096)))
    assert "kv_b_proj" in whole and "absorb_k" not in whole
    assert "absorb_k" in one and "kv_b_proj" not in one
    assert whole["attention_qk"].flops == 2 * 128 * 192 * (4096 * 4097 // 2)
    assert one["absorb_k"].flops + one["unabsorb_v"].flops == pytest.approx(33.55e6, rel=1e-3)
    held = [sum(op.params for op in each.values()) for each in (whole, one)]
    assert held[0] == held[1]


def test_a_mixed_batch_holds_its_weights_once() -> None:
    """Prompts and decoding requests in one step: both forms of MLA, parameters counted once."""
    groups = (Group(1, 512, 512), Group(8, 1, 2048))
    mixed = step("DeepSeek-V3", Batch(groups))
    plain = step("DeepSeek-V3", prefill(1, 512))
    assert sum(op.params * times for op, times in mixed.ops()) == sum(op.params * times for op, times in plain.ops())
    assert {"kv_b_proj", "absorb_k"} <= set(ops(mixed))


def test_sparse_attention_reads_what_its_indexer_picks() -> None:
    """DSA: scores are limited to the top tokens, the indexer sees them all."""
    sparse = {"model_type": "deepseek_v32", "index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128}
    found = ops(step("DeepSeek-V3", decode(1, 65536), **sparse))
    assert found["attention_qk"].flops == 2 * 128 * 576 * 2048
    assert found["indexer_scores"].flops == 2 * 64 * 128 * 65536


@pytest.mark.parametrize(("tokens", "expected"), [(1, 8.0), (8, 51.62), (64, 125.94)])
def test_experts_touched(tokens: int, expected: float) -> None:
    """Distinct experts of 128 that tokens with 8 each need, and the bytes of just these."""
    assert touched(128, 8, tokens) == pytest.approx(expected, abs=0.01)
    found = ops(step("Qwen3-235B-A22B", decode(tokens, 1024)))
    read = found["experts_gate_up"].weight_bytes + found["experts_down"].weight_bytes
    assert read == pytest.approx(touched(128, 8, tokens) * 3 * 4096 * 1536 * 2)


def test_delta_net_layer_by_hand() -> None:
    """A GDN layer of Qwen3-Next per token: projections, recurrence and 2.1 MB of state read and written."""
    found = ops(step("Qwen3-Next-80B-A3B", decode(1, 100)))
    assert found["in_proj_qkvz"].flops / 1e6 == pytest.approx(50.33, rel=1e-3)
    assert found["in_proj_ba"].flops / 1e6 == pytest.approx(0.262, rel=1e-2)
    assert found["delta_rule"].flops / 1e6 == pytest.approx(3.146, rel=1e-3)
    assert found["out_proj"].flops / 1e6 == pytest.approx(16.78, rel=1e-3)
    assert found["delta_rule"].kv_bytes / 1e6 == pytest.approx(4.194, rel=1e-3)


def test_recurrent_layers_do_not_grow_with_the_context() -> None:
    """Only the softmax layers of a hybrid cost more at a longer context."""
    short, long = (step("Nemotron-3-Nano-30B-A3B", decode(4, length)) for length in (100, 100_000))
    labels = [part.label for part in short.parts]
    for number, label in enumerate(labels):
        same = short.parts[number].ops == long.parts[number].ops
        assert same != (label == "GQA")


def test_a_window_bounds_work_and_cache() -> None:
    """gpt-oss: half of the layers read 128 tokens of a long context, and keep no more."""
    found = step("gpt-oss-20b", decode(1, 8192))
    windowed, full = ops(found, 0), ops(found, 1)
    assert full["attention_qk"].flops == 64 * windowed["attention_qk"].flops
    assert cache_bytes(found) == (12 * 2 * 8 * 64 * 2, 12 * 2 * 8 * 64 * 2 * (8192 + 128))


def test_logits_of_the_last_token_only() -> None:
    """The lm_head multiplies one row per prompt, and its weights are counted once when tied."""
    found = step("Qwen3-0.6B", prefill(4, 512))
    head = ops(found, -1)["lm_head"]
    assert head.mnk == (4, 151936, 1024)
    assert head.params == 0
    assert head.weight_bytes == 151936 * 1024 * 2


def test_a_cached_prefix_saves_products_but_not_scores() -> None:
    """A prompt with a cached half multiplies half of the tokens, and each still sees what came before."""
    found = ops(step("Qwen3-8B", prefill(1, 2048, cached=1024)))
    assert found["qkv_proj"].mnk == (1024, 6144, 4096)
    pairs = sum(range(1025, 2049))
    assert found["attention_qk"].flops == 2 * 32 * 128 * pairs


def test_formats_of_weights_and_cache() -> None:
    """fp8 weights and cache halve their bytes; the products get the fp8 peak."""
    model = MODELS["Qwen3-8B"]["config"]
    plain = forward(parse(model), decode(1, 4096))
    small = forward(parse(model, dtype="fp8"), decode(1, 4096), kv_dtype="fp8")
    assert ops(small)["qkv_proj"].weight_bytes * 2 == ops(plain)["qkv_proj"].weight_bytes
    assert ops(small)["attention_qk"].kv_bytes * 2 == ops(plain)["attention_qk"].kv_bytes
    assert (ops(small)["qkv_proj"].math, ops(plain)["qkv_proj"].math) == ("fp8", "bf16")


groups = st.builds(
    lambda count, new, past: Group(count, new, past + new), st.integers(1, 4), st.integers(1, 40), st.integers(0, 90)
)
limits = st.one_of(st.none(), st.integers(1, 50))


@given(batch=st.lists(groups, max_size=3).map(lambda each: Batch(tuple(each))), window=limits)
def test_pairs_and_reads_by_brute_force(batch: Batch, window: int | None) -> None:
    """Every query sees itself and what lies before it, in its window; a key counts as read once."""
    pairs = read = 0
    for group in batch.groups:
        seen: set[int] = set()
        for at in range(group.context - group.new, group.context):
            keys = range(max(0, at + 1 - window) if window else 0, at + 1)
            pairs += group.count * len(keys)
            seen.update(keys)
        read += group.count * len(seen)
    assert batch.pairs(window) == pairs
    assert batch.read(window) == read


@given(batch=st.lists(groups, max_size=3).map(lambda each: Batch(tuple(each))), chunk=st.integers(1, 50))
def test_chunks_by_brute_force(batch: Batch, chunk: int) -> None:
    """With chunked attention a query sees its own chunk only."""
    pairs = read = 0
    for group in batch.groups:
        seen: set[int] = set()
        for at in range(group.context - group.new, group.context):
            keys = range(at // chunk * chunk, at + 1)
            pairs += group.count * len(keys)
            seen.update(keys)
        read += group.count * len(seen)
    assert batch.pairs(chunk=chunk) == pairs
    assert batch.read(chunk=chunk) == read


@pytest.mark.parametrize(("call", "said"), [((0, 5), "batch is 0"), ((1, 0), "input_len is 0"), ((1, 5, 5), "cached")])
def test_impossible_loads(call: tuple[int, ...], said: str) -> None:
    """A load without requests, tokens or anything to compute is refused."""
    with pytest.raises(SimulateError, match=said):
        prefill(*call)
