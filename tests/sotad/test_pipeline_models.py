"""Families, configurations, names, clusters and steady passes: the parts that need no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_rig import HEAD, TAIL, K, Made, passes, seen, trace

from sotad.pipeline.clusters import clusters, distance, signature
from sotad.pipeline.flow import flow, members
from sotad.pipeline.model import BadConfig, compress_ratios, of, read
from sotad.pipeline.names import short
from sotad.pipeline.part import Part
from sotad.pipeline.passes import Pass
from sotad.pipeline.profiles import infer, named, profiles, recognised
from sotad.pipeline.shown import ranges
from sotad.pipeline.steady import groups, spread

SEQUENCES = st.lists(st.integers(0, 4), max_size=12).map(tuple)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"compress_ratios": [0, 4], "kv_lora_rank": 512}, "dsv4_csa_hca"),
        ({"compress_ratios": [], "kv_lora_rank": 512, "num_attention_heads": 8}, "dsv3_mla"),
        ({"kv_lora_rank": 0}, "generic"),
        ({}, "generic"),
        ({"layer_types": ["linear_attention", "full_attention"], "num_experts": 8}, "gdn_hybrid"),
        ({"hybrid_override_pattern": "M-M*", "num_attention_heads": 8}, "mamba_hybrid"),
        ({"layer_types": ["sliding_attention", "full_attention"], "num_local_experts": 32}, "gpt_oss_alternating"),
        ({"num_experts": 128, "num_attention_heads": 32}, "moe_gqa"),
        ({"num_experts": None, "num_attention_heads": 32}, "dense_gqa"),
    ],
)
def test_a_configuration_tells_its_family(config: dict[str, object], name: str) -> None:
    """The more special family wins; zero and empty values say nothing."""
    assert infer(config).name == name


def test_kernel_names_tell_a_family() -> None:
    """Without a configuration the kernels decide, and unknown ones leave it open."""
    assert recognised(["mhc_post_tilelang_kernel", "fused_moe_kernel"]).name == "dsv4_csa_hca"
    assert recognised(["fused_recurrent_gated_delta_rule_fwd"]).name == "gdn_hybrid"
    assert recognised(["my_kernel"]).name == "generic"


def test_an_unknown_profile_lists_the_known_ones() -> None:
    """The error of a wrong name helps."""
    with pytest.raises(ValueError, match=r"no profile 'x'; there is dsv4_csa_hca, .*generic"):
        named("x")
    assert [named(profile.name) for profile in profiles()] == list(profiles())


def test_profiles_classify_their_own_kernels() -> None:
    """Each family's rules are its own, and the first that fits wins."""
    own = named("dsv4_csa_hca")
    assert own.category("fused_store_indexer_cache_kernel") == "indexer_store"
    assert own.category("void mhc_pre_big_fuse<1>()") == "mhc_pre_fuse"
    assert named("generic").category("mhc_post_tilelang") is None


def test_ratios_of_trailing_prediction_layers_are_left_out() -> None:
    """As many ratios as layers, or as layers and predicted ones; any other number is an error that says both."""
    five = {"compress_ratios": [0, 0, 4, 128, 0], "num_nextn_predict_layers": 1}
    assert compress_ratios(five, 4) == [0, 0, 4, 128]
    with pytest.raises(BadConfig, match=r"3 entries for 4 layers"):
        compress_ratios({"compress_ratios": [0, 0, 4]}, 4)


def test_layer_types_come_from_the_configuration() -> None:
    """Lists, intervals, first dense layers, compressed and hash layers."""
    assert of({"num_hidden_layers": 4, "full_attention_interval": 4, "linear_num_value_heads": 2}).types == (
        "LINEAR", "LINEAR", "LINEAR", "FULL_ATTN",
    )  # fmt: skip
    assert of({"num_hidden_layers": 3, "first_k_dense_replace": 1}).types == ("DENSE", "MOE", "MOE")
    ratios = {"num_hidden_layers": 4, "compress_ratios": [0, 4, 128, 7], "num_hash_layers": 1}
    assert of(ratios).types == ("FULL_ATTN", "C4_LIGHT", "C128_HEAVY", "HASH")
    assert of({"text_config": {"num_hidden_layers": 2, "layer_types": ["sliding_attention"] * 2}}).types == ("SWA",) * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        (
            '{"num_hidden_layers": 3, "layer_types": ["full_attention"]}',
            "given for 1 layers, but num_hidden_layers is 3",
        ),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    """One line with the file and what is wrong with it."""
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(BadConfig, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("void (anonymous namespace)::act_and_mul_kernel<bf16, 0>((anonymous namespace)::P)", "act_and_mul_kernel"),
        ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<X<2> > > >(P)",
         "device_kernel[FlashAttnFwdSm90]"),
        ("std::enable_if<(((8)>(0))), void>::type vllm::fused_add_rms_norm_kernel<c10::BFloat16>(T*)",
         "fused_add_rms_norm_kernel"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<int> >(int)",
         "vectorized_elementwise_kernel[FillFunctor]"),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096>)",
         "ncclDevKernel_AllReduce_Sum_bf16_RING_LL"),
        ("triton_red_fused_3", "triton_red_fused_3"),
    ],
)  # fmt: skip
def test_names_are_short(name: str, told: str) -> None:
    """Neither result, arguments nor templates; a wrapper is named with what it wraps."""
    assert short(name) == told


@given(st.text(max_size=120))
def test_any_name_has_a_short_one(name: str) -> None:
    """Whatever a trace calls a kernel, its short name is no longer than 80 characters."""
    assert len(short(name)) <= 80


@given(SEQUENCES, SEQUENCES)
def test_the_distance_is_one(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """Zero only for equal sequences, the same both ways, and never more than the longer one."""
    far = distance(first, second)
    assert far == distance(second, first)
    assert (far == 0) == (first == second)
    assert abs(len(first) - len(second)) <= far <= max(len(first), len(second))


def test_signatures_count_repetitions_once() -> None:
    """A kernel launched three times in a row is as one launched twice."""
    assert signature([1, 1, 1, 2, 1]) == signature([1, 2, 2, 1]) == (1, 2, 1)


def test_layers_that_differ_little_are_one_cluster() -> None:
    """One kernel of forty more is alike, ten are not; the representative is the commonest layer."""
    usual, near, far = tuple(range(40)), (*range(39), 99), (*range(30), *range(100, 110))
    found = clusters([usual, usual, near, far], [5.0, 7.0, 6.0, 100.0])
    assert [(cluster.layers, cluster.medoid) for cluster in found] == [([3], 3), ([0, 1, 2], 0)]


def test_equal_durations_have_no_outliers() -> None:
    """A spread of zero does not make a nanosecond an outlier; a pass of half the median is one."""
    times = [1000, 1000, 1001, 1000, 500]
    told = [Pass(at, "decode", "gaps", 0, time, 1) for at, time in enumerate(times)]
    (group,) = groups(told, [True] * 5)
    assert group.state == ["steady"] * 4 + ["outlier"]
    assert spread([]) == spread([0, 0])


def test_ranges_are_short() -> None:
    """Layers in a row are written as a range."""
    assert ranges([0, 2, 3, 4, 9]) == "0, 2-4, 9"
    assert ranges([]) == ""


DSV4 = ("mhc_pre_gemm_sqrsum", "mhc_pre_big_fuse", "RMSNormKernel", "deep_gemm_q", "flash_fwd_splitkv_mla_kernel",
        "deep_gemm_o", "mhc_post_tilelang", "mhc_pre_gemm_sqrsum", "mhc_pre_big_fuse", "RMSNormKernel",
        "fused_moe_kernel", "moe_sum_kernel", "mhc_post_tilelang")  # fmt: skip


def test_a_closing_anchor_does_not_shift_the_layers() -> None:
    """Where the anchor ends each half, a layer still begins with its own attention half and has both its halves."""
    light, heavy = DSV4, (*DSV4[:4], "hadamard_transform", "indexer_kernel", *DSV4[4:])
    names = [*HEAD, *(name for at in range(8) for name in (heavy if at % 2 else light)), *TAIL]
    made, begin = Made(), 0.0
    for _ in range(3):
        made.kernels += [K(name, begin + at * 11.0) for at, name in enumerate(names)]
        made.steps.append(("step[DECODE bs=1]", begin, begin + len(names) * 11.0, 0))
        begin += len(names) * 11.0 + 50
    model = of({"num_hidden_layers": 8, "compress_ratios": [4, 128] * 4})
    (view,) = seen(made, model)
    own = members(view, 1, 3)
    assert [view.lane.words.labels[at] for at in view.lane.label[own]] == [
        named("dsv4_csa_hca").short(name) or name for name in heavy
    ]
    halves = [row["half"] for row in flow(view, [1], 1, 2)]
    assert halves == ["attn"] * 7 + ["ffn"] * 6
    found = Part(view, trace(made), model, view.groups[0]).cluster_rows
    assert {(row["label"], tuple(row["layers"])) for row in found} == {
        ("C128_HEAVY", (1, 3, 5, 7)), ("C4_LIGHT", (0, 2, 4, 6)),
    }  # fmt: skip


def test_sliding_and_full_layers_are_labelled_by_the_configuration() -> None:
    """Layers that run the same kernels are one cluster, and each keeps the type that its configuration gives it."""
    layer = ("FusedAddRMSNormKernel", "nvjet_qkv", "kernel_unified_attention_2d", "nvjet_o", "FusedAddRMSNormKernel",
             "nvjet_up", "act_and_mul_kernel", "nvjet_down")  # fmt: skip
    model = of({"num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3})
    made = passes([layer] * 6, 4)
    (view,) = seen(made, model)
    part = Part(view, trace(made), model, view.groups[0])
    assert [row["type"] for row in part.layer_rows()] == ["SWA", "FULL_ATTN"] * 3
    assert view.profile.name == "gpt_oss_alternating"


MAMBA = ("FusedAddRMSNormKernel", "nvjet_in_proj", "_causal_conv1d_update_kernel", "_selective_scan_update_kernel",
         "gated_rms_norm_kernel", "nvjet_out_proj")  # fmt: skip
MLP = ("FusedAddRMSNormKernel", "nvjet_up", "relu2_kernel", "nvjet_down")
MIX = ("FusedAddRMSNormKernel", "nvjet_qkv", "flash_fwd_splitkv_kernel", "nvjet_o")


def test_layers_without_any_mixer_are_counted_by_their_norm() -> None:
    """A hybrid whose MLPs are layers of their own: attention does not count them, the norm that opens each does."""
    pattern = "M-M*-M-M*-M-"
    layers = [{"M": MAMBA, "-": MLP, "*": MIX}[kind] for kind in pattern]
    model = of({"num_hidden_layers": len(pattern), "hybrid_override_pattern": pattern, "mamba_num_heads": 8})
    (view,) = seen(passes(layers, 4), model)
    assert [check.layers for check in view.layers.checks] == [len(pattern)] * 4
    assert view.layers.kernels[: len(pattern)].tolist() == [len(layer) for layer in layers]
    assert model.types[:4] == ("MAMBA", "MLP", "MAMBA", "FULL_ATTN")


MLA = ("FusedAddRMSNormKernel", "nvjet_qkv_a", "RMSNormKernel", "nvjet_q_b", "bmm_absorb", "fused_rope_kernel",
       "set_mla_kv_buffer_kernel", "flash_fwd_splitkv_mla_kernel", "bmm_v", "nvjet_o",
       "cross_device_reduce_1stage", "FusedAddRMSNormKernel", "moe_fused_gate", "fused_moe_kernel",
       "fused_moe_kernel", "moe_sum_reduce", "cross_device_reduce_1stage")  # fmt: skip


@pytest.mark.parametrize("text", ["step[DECODE bs=4]", None])
def test_latent_attention_with_parallel_ranks(text: str | None) -> None:
    """A layer of latent attention has inner norms: it opens at the outer one, and its all-reduces are inside."""
    (view,) = seen(passes([MLA] * 10, 5, text), of({"num_hidden_layers": 10, "kv_lora_rank": 512}))
    assert [check.layers for check in view.layers.checks] == [10] * 5
    assert set(view.layers.kernels.tolist()) == {len(MLA)}
    rows = flow(view, [2], 2, 4)
    assert [rows[0]["simplified"], rows[-1]["simplified"]] == [MLA[0], MLA[-1]]
    assert view.layers.exposed[:10].tolist() == [20_000] * 10
