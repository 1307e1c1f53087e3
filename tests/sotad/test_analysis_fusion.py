"""Known fusions are found by what follows what on a stream, and never where a word merely occurs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.analysis.canonical import canonical
from sotad.analysis.catalogue import catalogue, families_of, words_of
from sotad.analysis.fusion import Fusions, find_fusions, fuse_rows
from sotad.analysis.rows import row_id
from sotad.analysis.stages import find_stages
from sotad.trace.columns import Frames, Spans, Trace, Work
from sotad.trace.reader import read

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
US = 1000

ALL_REDUCE = "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>(vllm::RankData*)"
ADD_NORM = "void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>(__nv_bfloat16*)"
NORM = "void vllm::rms_norm_kernel<c10::BFloat16, 8, 3, true>(c10::BFloat16*)"
GEMM = "nvjet_sm90_tst_256x8_64x6_4x1_v_bz_TNT"
ACTIVATION = "void sglang::act_and_mul_kernel<__nv_bfloat16>(__nv_bfloat16*)"
ROPE = "void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)"
STORE = "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>(__nv_bfloat16 const*)"


@dataclass
class Stages:
    """One stage, as the stage finder gives it."""

    kernel: Any
    copy: Any
    names: list[str] = field(default_factory=lambda: ["decode"])
    steps: list[Any] = field(default_factory=lambda: [SimpleNamespace(stage="decode")])


Ran = tuple[str, float, float] | tuple[str, float, float, int]  # name, gap before in us, duration in us, stream


def spans(count: int) -> dict[str, Any]:
    """Empty id columns."""
    none = np.full(count, -1, dtype=np.int64)
    return {"thread": np.zeros(count, dtype=np.int32), "external": none, "correlation": none}


def work(rows: Sequence[tuple[int, int, int, int]]) -> Work:
    """Columns of (begin, end, name id, stream)."""
    rows = sorted(rows)
    begin, end, name, stream = np.array(rows, dtype=np.int64).reshape(len(rows), 4).T
    small = (name.astype(np.int32), np.zeros(len(rows), dtype=np.int32), stream.astype(np.int32))
    return Work(begin=begin, end=end, name=small[0], device=small[1], stream=small[2], **spans(len(rows)))


def trace_of(ran: Sequence[Ran]) -> tuple[Trace, Stages]:
    """Kernels one after the other on their stream; names that begin with Mem are copies."""
    names = sorted({row[0] for row in ran})
    clock: dict[int, int] = {}
    kernels: list[tuple[int, int, int, int]] = []
    copies: list[tuple[int, int, int, int]] = []
    for name, gap, duration, *stream in ran:
        lane = stream[0] if stream else 0
        begin = clock.get(lane, 0) + round(gap * US)
        clock[lane] = begin + round(duration * US)
        (copies if name.startswith("Mem") else kernels).append((begin, clock[lane], names.index(name), lane))
    none = {"begin": np.zeros(0, np.int64), "end": np.zeros(0, np.int64), "name": np.zeros(0, np.int32), **spans(0)}
    empty, frames = Spans(**none), Frames(**none, identity=none["begin"], parent=none["begin"])
    streams = [(0, str(lane)) for lane in range(max(clock, default=0) + 1)]
    tables = (work(kernels), work(copies), empty, empty, frames, empty, work([]))
    trace = Trace("t", 0, names, [], ["0"], streams, *tables)
    return trace, Stages(np.zeros(len(kernels), dtype=np.int32), np.zeros(len(copies), dtype=np.int32))


def fusions(ran: Sequence[Ran], **options: Any) -> Fusions:
    """What the catalogue finds in one stage."""
    trace, stages = trace_of(ran)
    return find_fusions(trace, stages, **{"framework": "sglang", **options})["decode"]  # type: ignore[arg-type]


def missing(ran: Sequence[Ran], **options: Any) -> dict[str, dict[str, Any]]:
    """The opportunities by pattern."""
    return {row["pattern_id"]: row for row in fusions(ran, **options).missing}


LAYER: list[Ran] = [(GEMM, 1, 70), (ALL_REDUCE, 1, 15), (NORM, 1, 6), (ACTIVATION, 1, 9)]
AR_NORM = "sglang-flashinfer-allreduce-rmsnorm"


def test_worked_example_saves_the_norm_and_not_the_whole_chain() -> None:
    """All-reduce 150, norm 60 of 1000 us: up to 60 us can be saved; act-and-mul is already fused."""
    found = fusions(LAYER * 10, tp_size=8)
    assert [row["pattern_id"] for row in found.missing] == [AR_NORM]
    row = found.missing[0]
    assert row["saving_ms"] == pytest.approx(0.060) and row["saving_share"] == pytest.approx(6.0)
    assert row["related_ms"] == pytest.approx(0.210) and row["gap_us"] == pytest.approx(10)
    assert (row["count"], row["support"], row["confidence"]) == (10, 1.0, "likely")
    assert row["saving_us_per_step"] == pytest.approx(60)
    kernels = {canonical(ALL_REDUCE), canonical(NORM)}
    assert {(e["kernel"], e["row_id"]) for e in row["evidence"]} == {(k, row_id("decode", None, k)) for k in kernels}
    assert "sglang-act-and-mul" in {row["pattern_id"] for row in found.present}


def test_fusion_that_already_runs_is_no_opportunity() -> None:
    """A trace with FusedAddRMSNorm and no separate add has it as present, and nothing missing."""
    found = fusions([(GEMM, 1, 70), (ADD_NORM, 1, 6), (ACTIVATION, 1, 9)] * 10)
    assert found.missing == []
    assert {"sglang-add-rmsnorm", "sglang-act-and-mul"} == {row["pattern_id"] for row in found.present}


def test_words_in_one_stage_are_no_chain() -> None:
    """A gate_up product and a softmax of sampling in one stage are no MoE router."""
    layers: list[Ran] = [("gate_up_proj_gemm_kernel", 1, 50), (ADD_NORM, 1, 5)] * 10
    assert missing([*layers, ("softmax_warp_forward", 1, 40)]) == {}


@pytest.mark.parametrize(
    ("gap", "stream", "between", "expected"),
    [(19.9, 0, [], True), (20.1, 0, [], False), (1, 1, [], False), (1, 0, [(GEMM, 1, 5)], False)],
)
def test_norm_must_follow_directly(gap: float, stream: int, between: list[Ran], expected: bool) -> None:
    """The norm counts only on the same stream, next in order, and within 20 us."""
    layer: list[Ran] = [(GEMM, 1, 70), (ALL_REDUCE, 1, 15), *between, (NORM, gap, 6, stream)]
    assert (AR_NORM in missing(layer * 10, tp_size=8)) is expected


@pytest.mark.parametrize(("followed", "expected"), [(8, True), (7, False)])
def test_support_of_four_in_five(followed: int, expected: bool) -> None:
    """A chain is reported when at least 80 % of its first kernel's runs go on as the chain does."""
    ran = [*([(GEMM, 1, 70), (ALL_REDUCE, 1, 15), (NORM, 1, 6)] * followed)]
    ran += [(GEMM, 1, 70), (ALL_REDUCE, 1, 15), (GEMM, 1, 70)] * (10 - followed)
    found = missing(ran, tp_size=8)
    assert (AR_NORM in found) is expected
    if expected:
        assert found[AR_NORM]["support"] == pytest.approx(0.8) and found[AR_NORM]["confidence"] == "possible"


@pytest.mark.parametrize(("tp_size", "expected"), [(1, False), (2, True), (None, True)])
def test_patterns_of_several_ranks(tp_size: int | None, expected: bool) -> None:
    """Without a stated tensor-parallel size, a collective in the trace is the proof of several ranks."""
    assert (AR_NORM in missing(LAYER * 10, tp_size=tp_size)) is expected


def test_patterns_belong_to_a_framework() -> None:
    """A vLLM trace is matched with vLLM's patterns, an unknown one with all."""
    assert list(missing(LAYER * 10, framework="vllm")) == ["vllm-allreduce-rmsnorm"]
    assert missing(LAYER * 10, framework="tokenspeed") == {}
    assert {row["framework"] for row in fusions(LAYER * 10, framework=None).present} >= {"sglang", "vllm"}


def test_model_of_a_pattern() -> None:
    """A pattern of one model is left out for another, and only possible while the model is unknown."""
    quant: list[Ran] = [(GEMM, 1, 50), (NORM, 1, 6), ("per_token_group_quant_8bit_kernel", 1, 5)] * 10
    name = "sglang-norm-group-quant"
    assert name not in missing(quant, model="/models/Qwen3-8B")
    assert missing(quant, model="/models/DeepSeek-V3")[name]["confidence"] == "likely"
    assert missing(quant)[name]["confidence"] == "possible"


def test_norms_of_q_and_k_before_rope_are_one_run() -> None:
    """Two norms in a row, then RoPE: one occurrence, found although the same kernel also norms elsewhere."""
    layer: list[Ran] = [(NORM, 1, 4), (GEMM, 1, 60), (NORM, 1, 2), (NORM, 1, 2), (ROPE, 1, 3), (STORE, 1, 3)]
    found = missing(layer * 5, framework="vllm")
    row = found["vllm-qk-norm-rope"]
    assert (row["count"], row["support"]) == (5, 1.0)
    assert row["saving_ms"] == pytest.approx(5 * 3 / 1000)  # norms 4 together, RoPE 3: the shorter goes
    assert [each["pattern_id"] for each in row["alternatives"]] == ["vllm-rope-kv"]
    assert "vllm-rope-kv" not in found


def test_kernel_that_only_marks_the_place_is_not_counted() -> None:
    """Inductor's nameless kernels before the KV write are possible at most, and the write is not part of it."""
    layer: list[Ran] = [(GEMM, 1, 60), ("triton_red_fused_3", 1, 2), ("triton_poi_fused_4", 1, 3), (STORE, 1, 9)]
    row = missing(layer * 5, framework="vllm", model="Qwen3-8B")["vllm-qk-norm-rope-inductor"]
    assert row["related_ms"] == pytest.approx(0.025) and row["confidence"] == "possible"
    assert len(row["evidence"]) == 2


def test_fill_around_an_fp8_product() -> None:
    """Fills are copies, and count where a pattern names them."""
    layer: list[Ran] = [("Memset (Device)", 1, 2), ("nvjet_sm100_qqtst_128x256", 1, 50)]
    assert missing(layer * 5)["sglang-cutlass-scaled-mm"]["saving_ms"] == pytest.approx(0.010)


def test_launch_bound_stage_says_so() -> None:
    """Where most kernels wait long for their launch, no chain can be seen, and the result tells."""
    slow = fusions([(GEMM, 50, 5), (ALL_REDUCE, 50, 5), (NORM, 50, 5)] * 10)
    assert slow.launch_bound and slow.missing == [] and not fusions(LAYER * 10).launch_bound


def test_small_chains_are_left_out() -> None:
    """Chains below the wanted share of the stage are no rows."""
    assert missing(LAYER * 10, min_share=22.0) == {} and AR_NORM in missing(LAYER * 10, min_share=20.0)


def test_empty_trace() -> None:
    """Without kernels there is nothing to fuse."""
    trace, stages = trace_of([])
    assert fuse_rows(trace, stages) == {"decode": []}  # type: ignore[arg-type]


KERNELS = st.tuples(
    st.sampled_from([ALL_REDUCE, NORM, ADD_NORM, GEMM, STORE]), st.sampled_from([1, 30]), st.integers(1, 9)
)


@given(st.lists(KERNELS, min_size=1, max_size=25))
def test_chains_agree_with_walking_along_the_stream(ran: list[Any]) -> None:
    """Support and saving of all-reduce and norm are those of a plain walk over the kernels."""
    runs: list[list[tuple[str, int]]] = []  # kernels of one part that follow one another
    for name, gap, duration in ran:
        part = {ALL_REDUCE: "reduce", NORM: "norm", ADD_NORM: "norm"}.get(name, "")
        if runs and gap <= 20 and part and runs[-1][0][0] == part:
            runs[-1].append((part, duration))
        else:
            runs.append([(part, duration)])
    starts = np.cumsum([0, *(len(run) for run in runs)])
    gaps = [gap for _, gap, _ in ran]
    pairs = [
        (left, right)
        for index, (left, right) in enumerate(pairwise(runs))
        if left[0][0] == "reduce" and right[0][0] == "norm" and gaps[starts[index + 1]] <= 20
    ]
    total = sum(run[0][0] == "reduce" for run in runs)
    row = missing(ran, tp_size=2, min_share=0.0).get(AR_NORM)
    times = [(sum(t for _, t in left), sum(t for _, t in right)) for left, right in pairs]
    enough = bool(pairs) and len(pairs) >= 0.8 * total and 200 * sum(map(sum, times)) >= sum(d for *_, d in ran)
    assert (row is not None) is enough
    if row is not None:
        assert row["count"] == len(pairs) and row["support"] == pytest.approx(len(pairs) / total)
        assert row["saving_ms"] == pytest.approx(sum(min(pair) for pair in times) / 1000)


def test_catalogue_is_consistent() -> None:
    """Ids are unique, named patterns exist, context is part of a chain, and no split kernel counts as fused."""
    known = catalogue()
    ids = [pattern.id for pattern in known.patterns]
    assert len(ids) == len(set(ids)) >= 37 and len(known.families) >= 13
    assert {pattern.framework for pattern in known.patterns} == {"sglang", "vllm", "trtllm", "tokenspeed"}
    for pattern in known.patterns:
        assert pattern.active or pattern.chains
        assert set(pattern.subsumes) <= set(ids) and pattern.anchor in ("first", "last")
        assert pattern.context <= {group.name for chain in pattern.chains for group in chain}
        assert pattern.min_share <= pattern.likely_share
        for name in (ALL_REDUCE, NORM, GEMM, ROPE, STORE):
            assert not pattern.is_active(words_of(name)), f"{pattern.id} takes {name} for fused"


def test_families_by_kernel() -> None:
    """A collective names its framework's known overlaps, attention's combine kernel does not."""
    assert [f["knob"] for f in families_of(ALL_REDUCE, "vllm")] == ["pass_config.enable_sp"]
    assert families_of("flash_fwd_splitkv_combine_kernel", None) == []


@pytest.mark.skipif(not (DATA / "h200").is_dir(), reason="no captured traces here")
@pytest.mark.parametrize(
    ("folder", "framework", "expected"),
    [("sgl", "sglang", "sglang-qk-norm-rope"), ("vllm", "vllm", "vllm-qk-norm-rope-inductor")],
)
def test_served_decode_lacks_the_fusion_of_norm_and_rope(folder: str, framework: str, expected: str) -> None:
    """Both servers ran without the fused norm of Q and K with RoPE: once per layer and step, nothing else missing."""
    path = next((DATA / "h200" / folder / "traces/graph/decode").glob("*.gz"))
    trace = read(path)
    found = find_fusions(trace, find_stages(trace), framework=framework, model="qwen3-8b-dummy")["decode"]
    assert [(row["pattern_id"], row["count"]) for row in found.missing] == [(expected, 36 * 8)]
    assert 0.5 < found.missing[0]["saving_share"] < 1.5
