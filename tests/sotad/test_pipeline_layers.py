"""Passes, layers and their times on made-up traces whose answer is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_rig import (
    ATTENTION,
    HEAD,
    LAYER,
    LINEAR,
    MOE,
    REDUCE,
    TAIL,
    K,
    Made,
    forward,
    joined,
    later,
    passes,
    seen,
    trace,
)  # fmt: skip

from sotad.pipeline.bounds import anchored, refined
from sotad.pipeline.flow import compare, flow, layer_report, members
from sotad.pipeline.layers import HEAD as BEFORE
from sotad.pipeline.layers import OUTSIDE
from sotad.pipeline.layers import TAIL as AFTER
from sotad.pipeline.model import of as model_of
from sotad.pipeline.part import Part
from sotad.pipeline.period import layer_period
from sotad.pipeline.view import NoKernels, View

MHC = "mhc_post_tilelang_kernel"


def mhc_trace(names: dict[int, str]) -> Made:
    """Twenty kernels of 10 us, with an anchor at every fifth."""
    anchors = dict.fromkeys((0, 5, 10, 15), MHC)
    return Made([K({**anchors, **names}.get(at, "some_kernel"), at * 10.0) for at in range(20)])


def labels(view: View, pass_: int, layer: int) -> list[str]:
    return [view.lane.words.labels[at] for at in view.lane.label[members(view, pass_, layer)]]


def counts(view: View) -> list[int]:
    return [check.layers for check in view.layers.checks]


def test_two_blocks_make_a_layer() -> None:
    """Layer 0 holds the kernels of two blocks, both halves, and of the all-reduces only the one before its end."""
    (view,) = seen(mhc_trace({9: REDUCE}), layers=2, profile="dsv4_csa_hca")
    assert view.lane.row[members(view, 0, 0)].tolist() == list(range(10))
    assert view.layers.total[0] == 100_000
    rows = flow(view, [0], 0, 0)
    assert [row["half"] for row in rows] == ["attn"] * 5 + ["ffn"] * 5
    assert [row["category"] for row in rows].count("communication") == 1


def test_an_all_reduce_that_opens_the_next_layer_is_not_counted() -> None:
    """A kernel at the position of the next anchor belongs to the next layer."""
    (view,) = seen(mhc_trace({9: REDUCE, 11: REDUCE}), layers=2, profile="dsv4_csa_hca")
    own = layer_report(view, 0, 0)["category_summary"]
    assert own["communication"] == {"dur_us": 10.0, "count": 1}


def test_categories_of_a_layer_add_up() -> None:
    """Latent attention, hyper-connections and all-reduce are told apart, ten us each."""
    made = mhc_trace({1: "flash_fwd_splitkv_mla_kernel", 9: REDUCE, 10: MHC})
    (view,) = seen(made, layers=2, profile="dsv4_csa_hca")
    own = layer_report(view, 0, 0)["category_summary"]
    assert {name: own[name]["dur_us"] for name in ("attention", "communication", "mhc_post")} == {
        "attention": 10.0, "communication": 10.0, "mhc_post": 20.0,
    }  # fmt: skip
    assert sum(row["dur_us"] for row in own.values()) == 100.0


def test_the_generic_profile_knows_no_hyper_connections() -> None:
    """What is one family's own kernel is not classified by another's rules."""
    (view,) = seen(mhc_trace({}), anchor=MHC, layers=4, profile="generic")
    assert "mhc_post" not in view.lane.words.categories
    assert {row["half"] for row in flow(view, [0], 0, 0)} == {"full"}


def test_generic_blocks_are_layers() -> None:
    """With one block in a layer, layer 0 ends where the next anchor stands."""
    assert anchored([0, 10], 20).tolist() == [0, 10, 20]


def test_the_end_is_an_anchor() -> None:
    """The last layer is kept, a rest of blocks is not: 20 anchors of six in a pass are three passes and two blocks."""
    assert anchored(range(0, 100, 5), 100, 6).tolist() == [0, 30, 60, 90]
    assert anchored(range(0, 90, 5), 90, 6).tolist() == [0, 30, 60, 90]
    assert anchored(range(0, 85, 5), 85, 6).tolist() == [0, 30, 60]


def test_the_worked_example() -> None:
    """Three layers of two blocks: layer 1 of pass 1 holds blocks 8 and 9, and pass 2 is complete without a19."""
    made = Made([K(MHC if not at % 5 else f"k{at % 5}", 10.0 * at) for at in range(90)])
    (view,) = seen(made, layers=3, profile="dsv4_csa_hca")
    assert counts(view) == [3, 3, 3]
    assert view.lane.row[members(view, 1, 1)].tolist() == list(range(40, 50))


def test_too_few_blocks_give_the_default() -> None:
    """A period cannot be seen in three blocks."""
    assert layer_period([1, 2, 1], [5, 5, 5], 2, default=43).layers == 43
    assert layer_period([1, 2, 1], [5, 5, 5], 2, default=7).layers == 7


def test_the_shortest_period_wins() -> None:
    """A pass of six blocks is found as six, not as twelve, although both repeat as well."""
    assert layer_period([1, 2, 2, 2, 2, 3] * 8, [5] * 48).layers == 6


def test_equal_blocks_tell_nothing() -> None:
    """Blocks without any difference fit every number of layers: the answer is the default, without confidence."""
    assert layer_period([1] * 40, [5] * 40, default=0) == dataclasses.replace(layer_period([], []), layers=0)


def test_hot_order_and_wall_are_apart() -> None:
    """Kernels are listed by duration, then by begin; wall time follows the order of the trace."""
    made = Made([K(name, at, dur) for name, at, dur in (
        (ATTENTION, 0, 10), ("hot_a", 10, 50), ("hot_b", 20, 50), ("tiny", 30, 5))])  # fmt: skip
    (view,) = seen(made, layers=1, anchor="FlashAttn")
    found = layer_report(view, 0, 0)
    assert [row["simplified_name"] for row in found["kernels"]][::3] == ["hot_a", "tiny"]
    assert [row["dur_us"] for row in found["kernels"]] == [50.0, 50.0, 10.0, 5.0]
    assert found["metadata"]["wall_us"] == 35.0


@pytest.mark.parametrize("model", [None, model_of({"num_hidden_layers": 6, "num_attention_heads": 8})])
def test_layers_begin_at_their_norm(model: Any) -> None:
    """A layer opens at the norm before attention, and neither embedding nor language-model head is in one."""
    (view,) = seen(passes([LAYER] * 6, 5), model)
    assert counts(view) == [6] * 5
    assert labels(view, 2, 3) == ["FusedAddRMSNormKernel", *(part.split("::")[-1] for part in LAYER[1:])]
    assert labels(view, 2, 0)[0] == "RMSNormKernel"
    assert labels(view, 2, 5)[-1] == "nvjet_down_TNT"
    first = view.layers.layer_of[view.passes.of == 0]
    assert (first == BEFORE).sum() == 1 and (first == AFTER).sum() == len(TAIL)


@pytest.mark.parametrize("layers", [[LINEAR] * 3 + [LAYER], [MOE], [LAYER], [LINEAR] * 7 + [LAYER]])
@pytest.mark.parametrize("text", ["step[DECODE bs=8]", None])
def test_families_are_cut_without_being_told(layers: list[Any], text: str | None) -> None:
    """Dense, experts and hybrids: all layers of all passes, with annotations and without."""
    (view,) = seen(passes(layers * (24 // len(layers)), 6, text))
    assert counts(view) == [24] * 6
    assert view.layers.kernels[:24].tolist() == [len(layer) for layer in layers * (24 // len(layers))]


def test_first_dense_layers_have_their_own_cluster() -> None:
    """Layers without experts before those with: the count holds, and they are another cluster."""
    made = passes([LAYER] * 3 + [MOE] * 21, 4)
    (view,) = seen(made)
    part = Part(view, trace(made), model_of({}), view.groups[0])
    assert counts(view) == [24] * 4
    assert part.cluster_rows[0]["layers"] == list(range(3, 24))
    assert {row["label"] for row in part.cluster_rows} >= {"ATTN+MOE", "ATTN+DENSE"}


def test_an_anchor_that_some_layers_lack_is_replaced() -> None:
    """The profile's anchor counts 20 of 24 layers; a kernel of every layer is found in its place."""
    odd = tuple("nameless_mixer" if name == ATTENTION else name for name in LAYER)
    (view,) = seen(passes(([LAYER] * 5 + [odd]) * 4, 4), layers=24)
    assert view.anchors.method == "discovered"
    assert counts(view) == [24] * 4
    assert view.notes


def test_a_given_anchor_may_come_twice_in_a_layer() -> None:
    """An anchor named by hand that stands at both norms of a layer gives as many layers as there are."""
    plain = [(*LAYER[:4], "gemma_norm", *LAYER[5:])] * 6
    (view,) = seen(passes(plain, 3), anchor="nvjet_o")
    assert counts(view) == [6] * 3
    (view,) = seen(passes([LAYER] * 6, 3), anchor="down_TNT")
    assert counts(view) == [6] * 3
    twice = [(*LAYER[:3], "my_reduce", *LAYER[3:], "my_reduce")] * 6
    (view,) = seen(passes(twice, 3), anchor="my_reduce")
    assert counts(view) == [6] * 3
    assert view.anchors.blocks_per_layer == 2


def test_a_count_that_does_not_fit_cuts_nothing() -> None:
    """With 23 anchors where 24 are due nothing slides into the next pass: it is said, with the numbers."""
    made = passes([LAYER] * 24, 3)
    at = next(i for i, kernel in enumerate(made.kernels) if kernel.name == ATTENTION)
    del made.kernels[at]
    (view,) = seen(made, anchor="FlashAttn", layers=24)
    assert counts(view) == [0, 24, 24]
    assert "unreliable: 23 anchors, expected 24" in view.passes.list[0].note
    assert (view.layers.layer_of[view.passes.of == 0] == OUTSIDE).all()


def test_kernels_of_side_streams_are_in_the_layer_of_their_time() -> None:
    """An all-reduce on its own stream belongs to the layer whose window it begins in, and what hides it is no gap."""
    made = passes([LAYER] * 4, 2)
    inside = [kernel for kernel in made.kernels if kernel.name == "nvjet_up_TNT"][1]
    made.kernels.append(K(REDUCE, inside.begin + 2, 4.0, stream=20))  # hidden by the GEMM
    made.kernels.append(K(REDUCE, inside.begin + 10.25, 0.5, stream=20))  # in the gap of 1 us after it
    (view,) = seen(made)
    assert labels(view, 0, 1).count("ncclDevKernel_AllReduce_Sum_bf16_RING_LL") == 2
    assert view.layers.exposed[:4].tolist() == [0, 500, 0, 0]
    assert (view.layers.wall - view.layers.busy)[:4].tolist() == [7_000, 6_500, 7_000, 7_000]


def test_devices_are_apart() -> None:
    """Two devices at the same time are two results, each with its own layers."""
    one = passes([LAYER] * 6, 3)
    found = seen(joined(one, later(passes([LAYER] * 6, 4), 3.0, device=1)))
    assert sorted((view.lane.device, counts(view)) for view in found) == [("0", [6] * 3), ("1", [6] * 4)]


def test_prefill_and_decode_are_apart() -> None:
    """Passes are grouped by kind, and the steady ones of each are their own."""
    decode = passes([LAYER] * 4, 6)
    prefill = later(passes([LAYER] * 4, 3, "step[EXTEND bs=1 toks=512]", dur=100.0), 40_000)
    (view,) = seen(joined(decode, prefill))
    assert {group.kind: len(group.steady) for group in view.groups} == {"prefill": 3, "decode": 6}
    assert [each.kind for each in view.passes.list] == ["decode"] * 6 + ["prefill"] * 3


def test_graph_replays_are_passes() -> None:
    """Without annotations one replay of a graph is one decode pass, and the sampler behind it is in none."""
    made, begin = Made(), 0.0
    for number in range(1, 6):
        own = forward([LAYER] * 8, begin, correlation=number)
        begin = own[-1].begin + 11
        made.kernels += [*own, K("sampler_kernel", begin, correlation=100 + number)]
        made.graphs.append((number, own[0].begin - 5))
        begin += 13
    (view,) = seen(made)
    assert view.passes.method == "graph replay"
    assert counts(view) == [8] * 5
    assert {each.kind for each in view.passes.list} == {"decode"}
    assert (view.passes.of < 0).sum() == 5


def test_graphs_of_single_layers_are_no_passes() -> None:
    """An engine that captures each layer alone replays many graphs in a pass: passes are found another way."""
    made = passes([LAYER] * 8, 4, None, apart=300.0)
    for at in range(0, len(made.kernels), 8):
        made.graphs.append((at + 1, made.kernels[at].begin - 5))
        made.kernels[at : at + 8] = [dataclasses.replace(k, correlation=at + 1) for k in made.kernels[at : at + 8]]
    (view,) = seen(made)
    assert view.passes.method == "gaps"
    assert counts(view) == [8] * 4


def test_gaps_part_passes_although_eager_ones_have_gaps_themselves() -> None:
    """Launch-bound decoding waits at every kernel; longer gaps that recur part the passes."""
    (view,) = seen(passes([LAYER] * 8, 5, None, apart=2_000.0, dur=4.0, gap=60.0))
    assert view.passes.method == "gaps"
    assert counts(view) == [8] * 5


def test_one_pass_is_enough_with_an_annotation() -> None:
    """A trace of a single pass has layers and says that cold and steady cannot be told apart."""
    (view,) = seen(passes([LAYER] * 12, 1))
    assert counts(view) == [12]
    assert "too few" in view.groups[0].why


def test_the_first_slow_pass_is_cold() -> None:
    """A slow first pass is left out of the figures, by median and MAD, whatever the GPU's speed."""
    slow = passes([LAYER] * 6, 1, dur=40.0)
    (view,) = seen(joined(slow, later(passes([LAYER] * 6, 7), 10_000)))
    (group,) = view.groups
    assert group.state == ["cold", *["steady"] * 7]
    assert group.chosen > 0


def test_another_batch_is_not_averaged() -> None:
    """Decoding with another batch size is another shape, and neither cold nor steady."""
    other = passes([LAYER] * 6, 2, "step[DECODE bs=64]", dur=30.0)
    (view,) = seen(joined(passes([LAYER] * 6, 5), later(other, 10_000)))
    assert view.groups[0].state == ["steady"] * 5 + ["other shape"] * 2


def test_drafts_have_their_own_number_of_layers() -> None:
    """Short passes that come again and again are another model's; the target's layers stay what they are."""
    made, begin = Made(), 0.0
    for _ in range(4):
        for number in (2, 12):
            made.kernels += forward([LAYER] * number, begin)
            begin = made.kernels[-1].begin + 500.0
    (view,) = seen(made, layers=12)
    assert counts(view).count(12) == 4


def test_kernels_before_the_first_pass_are_in_none() -> None:
    """A profile that starts within a pass reports the rest of that pass, and gives it to no layer."""
    made = passes([LAYER] * 6, 4)
    made.kernels += [K(name, 10.0 + 3 * at, 2.0) for at, name in enumerate(LAYER)]
    (view,) = seen(made)
    assert (view.layers.layer_of == OUTSIDE).sum() == len(LAYER)
    assert counts(view) == [6] * 4


def test_no_kernels_is_said() -> None:
    """A trace without kernels is refused with what it holds."""
    with pytest.raises(NoKernels, match="no GPU kernels"):
        seen(Made())


def test_compared_layers_differ_by_what_the_rows_say() -> None:
    """Deltas by kernel name add up to the difference of the layers."""
    (view,) = seen(passes([LAYER] * 3 + [MOE] * 9, 3))
    one, two = (flow(view, [0, 1, 2], 1, layer) for layer in (1, 7))
    rows = compare(one, two)
    assert sum(row["delta_us"] for row in rows) == pytest.approx(10.0 * (len(MOE) - len(LAYER)))
    assert {row["name"]: row["in"] for row in rows}["fused_moe_kernel"] == "second only"
    assert [row["delta_us"] for row in compare(one, one)] == [0.0] * len(compare(one, one))


def test_the_boundary_needs_more_than_one_kernel_in_common() -> None:
    """Blocks that share nothing but their anchor begin at it."""
    found = refined(np.array([7, 8, 9, 1, 2, 9, 3, 4, 9, 5, 6]), np.array([2, 5, 8]), 1, set())
    assert found.starts.tolist() == [2, 5, 8, 11]
    assert found.opener is None


def test_a_trace_that_begins_within_a_pass_is_aligned() -> None:
    """Counting begins at the first whole pass: the rest of the one before slides no layer into the next."""
    made = passes([LAYER] * 12, 6, None)
    del made.kernels[: 5 * len(LAYER) + 4]
    (view,) = seen(made)
    assert view.passes.method == "anchor count"
    assert counts(view) == [12] * 5
    assert labels(view, 0, 0)[0] == "RMSNormKernel"
    assert all(labels(view, at, 11)[-1] == "nvjet_down_TNT" for at in range(5))


def test_a_single_pass_without_annotation_is_one() -> None:
    """A trace of one forward pass is cut into its layers although nothing repeats."""
    (view,) = seen(passes([LAYER] * 10, 1, None))
    assert view.passes.method == "whole trace"
    assert counts(view) == [10]


def test_a_wrong_number_is_denied_without_annotations() -> None:
    """What comes once in a pass speaks against a wrong number of layers."""
    (view,) = seen(passes([LAYER] * 12, 6, None), layers=8)
    assert counts(view) == [0] * 6
    assert "12 anchors, expected 8" in view.passes.list[1].note


def test_two_batches_at_a_time_are_flagged() -> None:
    """Attention on two streams within a pass is said: the main stream is cut, the other's kernels go by time."""
    one = passes([LAYER] * 6, 3, stream=7)
    other = later(passes([LAYER] * 6, 3, None, stream=9), 4.0)
    (view,) = seen(joined(one, other))
    assert all("interleaved" in each.note for each in view.passes.list)
    assert counts(view) == [6] * 3


SHAPES = st.lists(st.sampled_from([LAYER, MOE, LINEAR]), min_size=2, max_size=6)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_layers_part_every_pass(shape: list[Any], number: int, side: int, random: Any) -> None:
    """Every kernel is in exactly one place, in the order of time on the main stream; row order changes nothing."""
    made = passes(shape, number)
    made.kernels += [K(REDUCE, random.uniform(90, 2000), random.uniform(1, 30), stream=20) for _ in range(side)]
    (view,) = seen(made)
    layers, lane = view.layers, view.lane
    assert (layers.row_of >= 0).sum() + (layers.layer_of < 0).sum() == len(made.kernels)
    assert layers.kernels.sum() == (layers.row_of >= 0).sum()
    assert layers.total.sum() == (lane.end - lane.begin)[layers.row_of >= 0].sum()
    assert (layers.busy <= layers.wall).all() and (layers.exposed <= layers.busy).all() and (layers.busy >= 0).all()
    for pass_ in range(number):
        rows = layers.rows(pass_)
        assert (layers.begin[rows][1:] >= layers.end[rows][:-1]).all()
    order = list(range(len(made.kernels)))
    random.shuffle(order)
    (mixed,) = seen(trace(made, order))
    for name in ("begin", "end", "busy", "exposed", "wait", "total", "kernels", "layer_of"):
        assert (getattr(mixed.layers, name) == getattr(layers, name)).all()


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.integers(2, 5), st.integers(2, 9))
def test_times_scale(shape: list[Any], number: int, factor: int) -> None:
    """A slower clock gives the same layers with longer times."""
    made = passes(shape, number)
    slow = Made(
        [dataclasses.replace(k, begin=k.begin * factor, dur=k.dur * factor) for k in made.kernels],
        [(text, a * factor, b * factor, device) for text, a, b, device in made.steps],
    )
    (one,), (two,) = seen(made), seen(slow)
    for name in ("wall", "busy", "wait", "total", "exposed"):
        assert (getattr(one.layers, name) * factor == getattr(two.layers, name)).all()
    assert (one.layers.layer_of == two.layers.layer_of).all()
    assert len(HEAD) == 2
