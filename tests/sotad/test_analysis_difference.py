"""Two captures side by side: the rows add up, noise is noise, and what cannot be compared is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.analysis.cause import explain
from sotad.analysis.cycles import kernel_side
from sotad.analysis.difference import difference
from sotad.analysis.overlap import sweep
from sotad.analysis.pairing import BETWEEN, IDLE, INSIDE, KERNELS, PLAIN, Part, Side, Steps, pair
from sotad.analysis.stages import find_stages
from sotad.trace.columns import Frames, Spans, Trace, Work

REST = [Part(f"decode/{name}", name, IDLE) for name in (INSIDE, BETWEEN)]
GEMM, NORM, SILU = (
    Part(f"decode/{name}", name, category)
    for name, category in (("mm", "gemm"), ("rms_norm", "norm"), ("silu", "activation"))
)


def steps(parts: list[Part], rows: Any, batch: Any = 8, tokens: Any = 8, closed: bool = True) -> Steps:
    """Steps with these ms per part and the two pauses at the end."""
    times = np.array(rows, dtype=float)
    n = len(times)
    sizes, lengths = (np.broadcast_to(np.array(each, dtype=np.int64), n).copy() for each in (batch, tokens))
    return Steps([*parts, *REST], times, np.ones_like(times), sizes, lengths, np.full(n, closed))


def side(name: str, stage: str = "decode", **stages: Steps) -> Side:
    return Side(name, "kernels", dict(stages))


def decode(*parts: Part, ms: Any, **more: Any) -> Side:
    return side("ours", decode=steps(list(parts), ms, **more))


def row_of(stage: dict[str, Any], category: str) -> dict[str, Any]:
    return next(row for row in stage["rows"] if row["category"] == category)


milliseconds = st.floats(0.001, 50, allow_nan=False)


@st.composite
def captures(draw: st.DrawFn) -> Side:
    """A capture with decode steps of any batch sizes and prefill steps of any lengths, in any known parts."""
    parts = draw(st.lists(st.sampled_from([GEMM, NORM, SILU]), min_size=1, unique=True))
    stages = {}
    for stage in ("decode", "prefill"):
        n = draw(st.integers(1, 6))
        rows = [[draw(milliseconds) for _ in range(len(parts) + 2)] for _ in range(n)]
        batch = [draw(st.integers(0, 3)) for _ in range(n)]
        tokens = [draw(st.integers(0, 300)) for _ in range(n)]
        found = steps(parts, rows, batch, tokens)
        found.closed = np.array([draw(st.booleans()) for _ in range(n)])
        found.times[~found.closed, -1] = 0.0
        stages[stage] = found
    return Side(draw(st.sampled_from(["a", "b"])), "kernels", stages)


@given(captures(), captures())
@settings(max_examples=60, deadline=None)
def test_rows_add_up_to_the_difference_of_the_stage(target: Side, leader: Side) -> None:
    """Categories to the stage, kernels to their category, and the last cumulated value is the whole difference."""
    for stage in difference(target, leader)["stages"].values():
        if not stage["comparable"]:
            assert stage["reason"]
            continue
        for key in ("target_ms", "leader_ms", "extra_ms"):
            for rows in (stage["rows"], stage["groups"]):
                assert sum(row[key] for row in rows) == pytest.approx(stage[key], rel=1e-9, abs=1e-9)
            for row in stage["rows"]:
                assert sum(each[key] for each in row["kernels"]) == pytest.approx(row[key], rel=1e-9, abs=1e-9)
        assert stage["rows"][-1]["cumulated_ms"] == pytest.approx(stage["extra_ms"], abs=1e-9)
        assert stage["extra_ms"] == pytest.approx(stage["target_ms"] - stage["leader_ms"], abs=1e-9)


@given(captures())
@settings(max_examples=60, deadline=None)
def test_a_capture_does_not_differ_from_itself(capture: Side) -> None:
    """No stage is slower and no row is significant."""
    found = difference(capture, capture)
    assert found["slower"] is None
    for stage in found["stages"].values():
        if stage["comparable"]:
            assert stage["extra_ms"] == 0
            rows = [*stage["rows"], *(each for row in stage["rows"] for each in row["kernels"])]
            assert all(row["within_noise"] in (True, None) and row["extra_ms"] == 0 for row in rows)


def test_exchanging_the_sides_turns_every_sign() -> None:
    """The same rows, with the opposite differences."""
    a = decode(GEMM, NORM, ms=[[3, 1, 0.1, 0.2], [3.1, 1, 0.1, 0.2]])
    b = decode(GEMM, SILU, ms=[[2, 0.5, 0.1, 0.4], [2.1, 0.5, 0.1, 0.5]])
    ours, theirs = (difference(*pair_)["stages"]["decode"] for pair_ in ((a, b), (b, a)))
    assert {r["category"]: r["extra_ms"] for r in ours["rows"]} == pytest.approx(
        {r["category"]: -r["extra_ms"] for r in theirs["rows"]}
    )


def test_the_row_that_grew_is_first_and_named() -> None:
    """A kernel that takes 1 ms more per step explains the stage; what stayed is within noise."""
    rng = np.random.default_rng(5)
    base = np.array([4.0, 1.0, 0.5, 0.3])
    noisy = [base + rng.normal(0, 0.01, 4) for _ in range(10)]
    grown = base + np.array([0, 1, 0, 0])
    slow = [grown + rng.normal(0, 0.01, 4) for _ in range(10)]
    found = difference(decode(GEMM, NORM, ms=slow), decode(GEMM, NORM, ms=noisy))
    stage = found["stages"]["decode"]
    assert found["slower"] == "decode" and stage["rows"][0]["category"] == "norm"
    assert stage["rows"][0]["extra_ms"] == pytest.approx(1, abs=0.02)
    assert stage["rows"][0]["kernels"][0]["row_id"] == "decode/rms_norm"
    assert [row["within_noise"] for row in stage["rows"][1:]] == [True, True]
    assert "decode/(small kernels) +" in found["statement"]


def test_a_kernel_of_one_side_only_counts_in_full_there() -> None:
    """It is listed under its side, with no row id on the other."""
    found = difference(decode(GEMM, NORM, ms=[[3, 1, 0, 0]] * 3), decode(GEMM, SILU, ms=[[3, 0.4, 0, 0]] * 3))
    norm, silu = (row_of(found["stages"]["decode"], name)["kernels"][0] for name in ("norm", "activation"))
    assert (norm["row_id"], norm["leader_row_id"], norm["extra_ms"]) == ("decode/rms_norm", None, 1)
    assert (silu["row_id"], silu["leader_row_id"]) == (None, "decode/silu")
    assert silu["extra_ms"] == pytest.approx(-0.4)


def test_decode_of_other_batch_sizes_is_refused() -> None:
    """Batch 8 against batch 1 says nothing, and the reason tells both."""
    found = difference(decode(GEMM, ms=[[3, 0, 0]] * 3), decode(GEMM, ms=[[1, 0, 0]] * 3, batch=1))
    stage = found["stages"]["decode"]
    assert not stage["comparable"] and "batch 8 against 1" in stage["reason"]
    assert found["slower"] is None and "not comparable" in found["statement"]


def test_only_steps_of_equal_batch_sizes_meet() -> None:
    """A side that ran more small batches is not faster for it."""
    a = decode(GEMM, ms=[[4, 0, 0]] * 4 + [[1, 0, 0]] * 2, batch=[8] * 4 + [1] * 2)
    b = decode(GEMM, ms=[[4, 0, 0]] * 2 + [[1, 0, 0]] * 4, batch=[8] * 2 + [1] * 4)
    assert difference(a, b)["stages"]["decode"]["extra_ms"] == 0


def test_prompts_are_compared_per_token() -> None:
    """2048 tokens in 40 ms are as fast as 1024 in 20, and the note says that lengths differ."""
    a = side("a", prefill=steps([GEMM], [[40, 0, 0]] * 3, 1, 2048, closed=False))
    b = side("b", prefill=steps([GEMM], [[20, 0, 0]] * 3, 1, 1024, closed=False))
    stage = difference(a, b)["stages"]["prefill"]
    assert (stage["target_ms"], stage["leader_ms"], stage["unit"]) == (40, 40, "ms per step of 2048 tokens")
    assert any("1024" in note for note in stage["notes"])
    b.stages["prefill"].tokens[:] = 256
    assert "too far apart" in difference(a, b)["stages"]["prefill"]["reason"]


def test_a_step_of_odd_length_is_left_out_and_told() -> None:
    """The first step of a capture waits for the profiler."""
    odd = [[4, 0, 0, 1.5], *([[4, 0, 0, 0.3]] * 7)]
    stage = difference(decode(GEMM, NORM, ms=odd), decode(GEMM, NORM, ms=odd[1:]))["stages"]["decode"]
    assert (stage["extra_ms"], stage["left_out"], stage["steps"]["target"]) == (0, {"target": 1, "leader": 0}, 7)


def test_steps_with_their_pause_are_not_compared_with_steps_without() -> None:
    """One side whose steps do not follow each other: the pause counts on neither."""
    alone = decode(GEMM, ms=[[4, 0, 0]] * 3, closed=False)
    stage = difference(decode(GEMM, ms=[[4, 0, 0.5]] * 3), alone)["stages"]["decode"]
    assert stage["extra_ms"] == 0 and any("pauses" in note for note in stage["notes"])


def test_one_step_has_no_known_noise() -> None:
    """The difference is told, its certainty is not."""
    stage = difference(decode(GEMM, ms=[[4, 0, 0]]), decode(GEMM, ms=[[3, 0, 0]]))["stages"]["decode"]
    assert (stage["extra_ms"], stage["interval_ms"], stage["within_noise"]) == (1, None, None)


def test_operators_are_not_compared_with_kernels() -> None:
    """One capture without the GPU, one with it."""
    cpu = decode(GEMM, ms=[[4, 0, 0]] * 2)
    cpu.kind = "operators"
    assert "with, or both without" in difference(decode(GEMM, ms=[[4, 0, 0]] * 2), cpu)["stages"]["decode"]["reason"]


def test_few_rows_are_wrongly_significant_among_many() -> None:
    """Of 120 captures with noise alone, at most the promised share shows any significant row (Holm)."""
    rng = np.random.default_rng(11)
    parts = [Part(f"decode/k{i}", f"k{i}", f"c{i}") for i in range(12)]
    wrong = 0
    for _ in range(120):
        a, b = (decode(*parts, ms=1 + rng.normal(0, 0.05, (6, 14))) for _ in range(2))
        wrong += any(row["within_noise"] is False for row in difference(a, b)["stages"]["decode"]["rows"])
    assert wrong <= 14  # 6 expected; three standard deviations more are 13


def test_pairing_keeps_columns_apart_by_annotation() -> None:
    """The same operator under two annotations is two rows."""
    parts = [Part(f"decode/{a}/mm", "mm", "gemm", a) for a in ("mlp", "attention")]
    found = pair("decode", decode(*parts, ms=[[1, 2, 0, 0]] * 2), decode(*parts[:1], ms=[[1, 0, 0]] * 2))
    assert len(found.parts) == 4


def test_operators_of_engines_without_common_annotations_meet_by_name() -> None:
    """Each engine annotates in its own words; the same operator is still one row."""
    ours = [Part(f"decode/{a}/mm", "mm", a, a) for a in ("run", "mlp")]
    a = decode(*ours, ms=[[1, 2, 0, 0]] * 2)
    b = decode(Part("decode/mm", "mm", PLAIN), ms=[[2.5, 0, 0]] * 2)
    stage = difference(a, b)["stages"]["decode"]
    mm = row_of(stage, PLAIN)["kernels"]
    assert [(row["row_id"], row["leader_row_id"], row["extra_ms"]) for row in mm] == [
        ("decode/mlp/mm", "decode/mm", 0.5)
    ]


def test_short_prompts_are_not_compared_per_token() -> None:
    """A prompt of 1 token takes as long as one of 3: reading the weights."""
    a, b = (side("a", prefill=steps([GEMM], [[4, 0, 0]] * 3, 1, n, closed=False)) for n in (1, 3))
    assert "too short" in difference(a, b)["stages"]["prefill"]["reason"]


def test_a_campaigns_explanation_has_its_keys() -> None:
    """The slow stage, rows by extra time, and what may be cited."""
    ours = side("a", decode=steps([GEMM, NORM], [[4, 1, 0, 0]] * 10, 4, 4), prefill=_prompt(100))
    theirs = side("b", decode=steps([GEMM, NORM], [[3, 1, 0, 0]] * 10, 4, 4), prefill=_prompt(100))
    found = explain(ours, theirs)
    keys = {"stage", "common_factor", "per_request", "extra_ms", "waited_ms", "stages", "rows", "cited"}
    assert set(found) == keys
    assert (found["stage"], found["extra_ms"]["decode"], found["common_factor"]) == ("decode", 10, 1.0)
    assert found["cited"] == ["decode/mm", "decode/step"]


def test_a_kernel_that_replaces_a_slower_one_is_not_cited() -> None:
    """Another attention kernel that takes less than the leader's explains nothing; an odd first step does not count."""
    own, other = (Part(f"decode/fa{i}", f"fa{i}", "attention") for i in (2, 3))
    slow = [[3, 2, 0, 0.2], *([[3, 2, 0, 0]] * 9)]
    ours = Side("a", KERNELS, {"decode": steps([GEMM, own], slow, 4, 4)})
    theirs = Side("b", KERNELS, {"decode": steps([GEMM, other], [[2, 2.5, 0, 0]] * 10, 4, 4)})
    assert explain(ours, theirs)["cited"] == ["decode/mm", "decode/step"]
    ours.stages["decode"].times[0, -1] = 30
    assert explain(ours, theirs)["extra_ms"]["decode"] == pytest.approx(9 * 0.5)


def test_a_large_cause_does_not_hide_a_smaller_one() -> None:
    """A copy that is 2% of the steps is cited beside pauses that are 25 times as long; one that is 0.5% is not."""
    copy = Part("decode/copy", "copy", "data_movement")
    theirs = side("b", decode=steps([GEMM], [[3.98, 0, 0]] * 10, 4, 4))
    for copies, expected in ((0.2, {"decode/copy"}), (0.05, set())):
        ours = side("a", decode=steps([GEMM, copy], [[3.98, copies, 5, 0]] * 10, 4, 4))
        pauses = {"decode/step", "decode/(idle inside the step)"}
        assert set(explain(ours, theirs)["cited"]) == pauses | expected


def _prompt(ms: float) -> Steps:
    return steps([Part("prefill/mm", "mm", "gemm")], [[ms, 0, 0]] * 2, 1, 64, closed=False)


# --- steps of a trace -----------------------------------------------------------------------------------------


def work_of(rows: list[tuple[int, int, int, int]]) -> Work:
    """Kernels or windows from (begin, length, name, stream), ns."""
    begin, length, name, stream = (np.array(column, dtype=np.int64) for column in zip(*sorted(rows), strict=True))
    none, zero = np.full(len(begin), -1), np.zeros(len(begin), dtype=np.int32)
    return Work(begin, begin + length, name.astype(np.int32), zero, none, none, zero, stream.astype(np.int32))


def trace_of(kernels: list[tuple[int, int, int, int]], windows: list[tuple[int, int, int, int]]) -> Trace:
    """A trace of kernels k0, k1, ... and windows of decode steps."""
    names = ["k0", "k1", "k2", "step[DECODE bs=4]"]
    columns: list[Any] = [np.zeros(0, dtype=np.int64) for _ in range(8)]
    none = Spans(*columns[:6])
    places = ([(0, "7"), (0, "8")], work_of(kernels), Work(*columns), none, none, Frames(*columns), none)
    return Trace("x", 0, names, [("0", "7")], ["0"], *places, work_of(windows))


@st.composite
def decode_traces(draw: st.DrawFn) -> Trace:
    """Steps one after the other, each with a kernel at its begin and others anywhere, on two streams."""
    now, kernels, windows = 0, [], []
    for _ in range(draw(st.integers(2, 5))):
        length = draw(st.integers(10, 100))
        windows.append((now, length, 3, 0))
        kernels.append((now, draw(st.integers(1, 150)), draw(st.integers(0, 2)), 0))
        others = st.tuples(st.integers(now, now + 200), st.integers(1, 150), st.integers(0, 2), st.integers(0, 1))
        kernels += draw(st.lists(others, max_size=4))
        now += length + draw(st.integers(0, 80))
    return trace_of(kernels, windows)


@given(decode_traces())
@settings(max_examples=80, deadline=None)
def test_a_step_is_its_work_and_its_pauses(trace: Trace) -> None:
    """Steps are as long as their periods, the work of each is its busy time, and no pause is negative."""
    stages = find_stages(trace)
    steps = kernel_side("x", trace, stages, sweep(trace, stages)).stages["decode"]
    begins = np.sort(trace.gpu_marks.begin)
    lengths = steps.times.sum(axis=1) * 1e6
    assert lengths[steps.closed] == pytest.approx(np.diff(begins))
    assert steps.closed.tolist() == [True] * (len(begins) - 1) + [False]
    assert (steps.times * 1e6 >= -1e-6).all()
    busy = np.zeros(int(max(trace.kernels.end.max(), begins[-1])) + 1, dtype=bool)
    for begin, end in zip(trace.kernels.begin, trace.kernels.end, strict=True):
        busy[begin:end] = True
    for row, (begin, end) in zip(steps.times, itertools.pairwise(begins), strict=False):
        assert row[:-2].sum() * 1e6 == pytest.approx(busy[begin:end].sum())


def test_a_wait_for_a_request_is_in_no_prompt_step() -> None:
    """Sampling after the annotation and copies before the next one count, the wait between them does not."""
    kernels = [(0, 90, 0, 0), (105, 10, 1, 0), (9000, 5, 2, 0), (9010, 90, 0, 0), (9105, 10, 1, 0)]
    trace = trace_of(kernels, [(0, 90, 3, 0), (9010, 90, 3, 0)])
    trace.names[3] = "step[EXTEND bs=1 toks=64]"
    stages = find_stages(trace)
    steps = kernel_side("x", trace, stages, sweep(trace, stages)).stages["prefill"]
    assert (steps.times.sum(axis=1) * 1e6).tolist() == pytest.approx([115, 115])
    assert not steps.closed.any()
