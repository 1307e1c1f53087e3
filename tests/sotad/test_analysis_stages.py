"""Steps and stages: every dialect, and which step a kernel belongs to, by proof before by guess."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.trace_events import Event, copy, kernel, launch, mark, op, trace_of, window

from sotad.analysis.dialects import Named, parse, parse_plain
from sotad.analysis.nesting import Nesting
from sotad.analysis.stages import ALL, OUTSIDE, Stages, find_stages
from sotad.trace.reader import read

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[3] / "shared/data")) / "h200"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no captured traces here")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("step[EXTEND bs=4 toks=8192]", Named("prefill", 4, 8192)),
        ("step[DECODE bs=32]", Named("decode", 32, 0)),
        ("step[EXTEND prefill bs=32]", Named("prefill", 32, 0)),
        ("step[TARGET_VERIFY bs=8]", Named("verify", 8, 0)),
        ("step[DRAFT_EXTEND bs=8]", Named("draft", 8, 0)),
        ("step[DRAFT_EXTEND_V2 bs=8]", Named("draft", 8, 0)),
        ("step[MIXED bs=3 toks=20]", Named("mixed", 3, 20)),
        ("step[PREFILL bs=2 toks=64]", Named("prefill", 2, 64)),
        ("step[IDLE]", Named(None, 0, 0)),
        ("execute_context_1(128)_generation_0(0)", Named("prefill", 1, 128)),
        ("execute_context_0(0)_generation_8(8)", Named("decode", 8, 8)),
        ("execute_context_2(900)_generation_3(3)", Named("mixed", 5, 903)),
        ("execute_context_1(512)_generation_12(12)", Named("mixed", 13, 524)),
        ("execute_context_0(0)_generation_0(0)", Named(None, 0, 0)),
        ("[Executor] _forward_step 12: 2 ctx reqs, 4 gen reqs", Named("mixed", 6, 0)),
        ("[Executor] _forward_step 13: 0 ctx reqs, 4 gen reqs", Named("decode", 4, 0)),
        ("[Executor] _forward_step 14: 1 ctx reqs, 0 gen reqs", Named("prefill", 1, 0)),
        (f"step[DECODE bs=2 toks={'9' * 30}]", Named("decode", 2, 0)),
        (f"execute_context_0(0)_generation_{'9' * 30}(4)", Named(None, 0, 4)),
        ("scheduler.get_next_batch_to_run", None),
        ("prefill", None),
    ],
)
def test_every_dialect_is_read_by_its_numbers(text: str, named: Named | None) -> None:
    """The words and numbers of an annotation give stage, sequences and tokens; an empty step has no stage."""
    assert parse(text) == named


@pytest.mark.parametrize(
    ("text", "stage"),
    [("model.prefill", "prefill"), ("Extend 12", "prefill"), ("decode_step", "decode"), ("decoder", None),
     ("prefill then decode", None), ("prefilled", None)],
)  # fmt: skip
def test_plain_words_count_as_whole_words(text: str, stage: str | None) -> None:
    """A plain annotation tells a stage only by a whole word, and only by one of the two."""
    named = parse_plain(text)
    assert (named.stage if named else None) == stage


def stages_of(found: Stages) -> list[str]:
    return [found.names[stage] for stage in found.kernel]


def steps_of(found: Stages) -> list[int]:
    return [int(step) for step in found.kernel_step]


PREFILL, DECODE = "step[EXTEND bs=1 toks=64]", "step[DECODE bs=8]"


def test_a_kernel_belongs_to_the_step_that_launched_it() -> None:
    """Launched in step 1, run while step 2 is launched: step 1, and its window is that of its kernels."""
    found = find_stages(
        trace_of(
            [
                mark(PREFILL, 0, 10),
                mark(DECODE, 20, 30),
                launch(5, 1),
                launch(25, 2),
                kernel("a", 22, 60, correlation=1),
                kernel("b", 61, 70, correlation=2),
            ]
        )
    )
    assert stages_of(found) == ["prefill", "decode"]
    assert [(step.begin, step.end, step.stage, step.method) for step in found.steps] == [
        (22_000, 60_000, "prefill", "launch"),
        (61_000, 70_000, "decode", "launch"),
    ]
    assert [(step.sequences, step.tokens) for step in found.steps] == [(1, 64), (8, 0)]


def test_the_external_id_of_an_annotation_goes_before_the_clock() -> None:
    """A kernel with the annotation's own id is of that step, wherever it runs; its windows are one step."""
    events = [
        window(PREFILL, 0, 10, external=5),
        window(PREFILL, 2, 12, stream=9, external=5),
        window(DECODE, 20, 30, external=6),
        kernel("a", 21, 22, external=5),
    ]
    found = find_stages(trace_of(events))
    assert [(step.stage, step.method) for step in found.steps] == [("decode", "mark"), ("prefill", "external")]
    assert stages_of(found) == ["prefill"]


def test_an_id_that_operators_share_names_no_annotation() -> None:
    """Where ids of operators and annotations overlap, the launch decides."""
    events = [mark(PREFILL, 0, 10, external=1), mark(DECODE, 20, 30, external=2), op("aten::mm", 21, 28, 1)]
    found = find_stages(trace_of([*events, launch(25, 9), kernel("a", 40, 50, 9, 1)]))
    assert (stages_of(found), found.steps[0].method) == (["decode"], "launch")


def test_without_a_launch_the_window_around_the_beginning_decides() -> None:
    """In a window: that step. Beside one by a hair: a guess, said so. Further away: outside."""
    events = [window(DECODE, 100, 200), kernel("in", 150, 260), kernel("near", 203, 204), kernel("far", 300, 301)]
    found = find_stages(trace_of(events))
    assert stages_of(found) == ["decode", "decode", OUTSIDE]
    assert [step.method for step in found.steps] == ["window+guess"]
    assert found.guessed_ns == 1000
    assert found.steps[0].end == 160_000, "a guess does not stretch a step, a kernel of its window does"


def test_what_an_annotation_of_another_kind_launched_is_no_neighbours() -> None:
    """Work launched outside of every step stays outside, however close its kernels run to one."""
    events = [mark(DECODE, 0, 10), window(DECODE, 12, 30), mark("step_of_a_kind", 40, 50), launch(5, 1), launch(45, 2)]
    found = find_stages(trace_of([*events, kernel("a", 12, 30, 1), kernel("b", 25, 26, 2)]))
    assert stages_of(found) == ["decode", OUTSIDE]


def test_the_kernels_of_a_graph_share_one_launch() -> None:
    """All kernels with the correlation of one cudaGraphLaunch are of the step that made it."""
    events = [mark(DECODE, 0, 10), mark(DECODE, 20, 30), launch(5, 1, "cudaGraphLaunch")]
    found = find_stages(trace_of([*events, *(kernel("k", 40 + i, 41 + i, 1) for i in range(5))]))
    assert steps_of(found) == [0] * 5


def test_empty_and_idle_steps_are_no_steps() -> None:
    """What an empty step launches is outside, and it is not counted."""
    events = [mark("execute_context_0(0)_generation_0(0)", 0, 10), mark("scheduler.idle", 20, 30), launch(5, 1)]
    found = find_stages(trace_of([*events, kernel("a", 40, 41, 1)]))
    assert (found.names, found.steps, stages_of(found)) == ([OUTSIDE], [], [OUTSIDE])


def decode_loop(tail: dict[int, str], claim: str | None = None) -> list[Event]:
    """Four decode steps; `tail` are the kernels launched after some of them, inside an annotation or none."""
    events = []
    for i in range(4):
        base = 100 * i
        events += [
            mark(DECODE, base, base + 40),
            launch(base + 5, 2 * i + 1),
            kernel("layer", base + 10, base + 50, 2 * i + 1),
        ]
        if i in tail:
            events += [launch(base + 70, 2 * i + 2), kernel(tail[i], base + 75, base + 80, 2 * i + 2)]
            events += [mark(claim, base + 65, base + 75)] if claim else []
    return events


def test_what_follows_every_step_is_a_part_of_it() -> None:
    """Logits and sampling that are launched after each step's annotation count to the step, and are said to."""
    found = find_stages(trace_of(decode_loop(dict.fromkeys(range(4), "sample"))))
    assert steps_of(found) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.steps[0].method == "launch+follows"
    assert found.names == ["decode"]


@pytest.mark.parametrize(
    "events",
    [decode_loop({1: "sample", 2: "sample"}), decode_loop(dict.fromkeys(range(4), "sample"), "prepare_next")],
    ids=["after half of the steps", "claimed by another annotation"],
)
def test_what_is_not_a_part_of_every_step_stays_outside(events: list[Event]) -> None:
    """Work between steps that only some of them have, or that another annotation claims, belongs to none."""
    found = find_stages(trace_of(events))
    assert {name for name, step in zip(kernels_of(events), steps_of(found), strict=True) if step < 0} == {"sample"}


def kernels_of(events: list[Event]) -> list[str]:
    return [each["name"] for each in sorted(events, key=lambda each: each["ts"]) if each["cat"] == "kernel"]


def test_an_annotation_around_one_step_adds_what_it_launches() -> None:
    """What the annotation around a step launches beside it, every time, is a part of the step."""
    events = []
    for i in range(3):
        base = 100 * i
        events += [mark("run_batch", base, base + 60), mark(DECODE, base + 10, base + 40)]
        events += [launch(base + 5, 2 * i + 1), launch(base + 20, 2 * i + 2)]
        events += [kernel("prepare", base + 6, base + 8, 2 * i + 1), kernel("layer", base + 21, base + 50, 2 * i + 2)]
    assert steps_of(find_stages(trace_of(events))) == [0, 0, 1, 1, 2, 2]


def test_each_device_has_its_own_steps() -> None:
    """One annotation that launches to two devices is a step on each."""
    events = [mark(DECODE, 0, 10), launch(1, 1), launch(2, 2)]
    found = find_stages(trace_of([*events, kernel("a", 20, 30, 1), kernel("a", 25, 40, 2, device=1)]))
    assert [(step.device, step.begin, step.end) for step in found.steps] == [(0, 20_000, 30_000), (1, 25_000, 40_000)]
    assert steps_of(found) == [0, 1]


def test_copies_are_in_steps_too() -> None:
    """A copy belongs to the step that asked for it but does not make it longer."""
    events = [mark(DECODE, 0, 10), launch(1, 1), launch(2, 2, "cudaMemcpyAsync"), kernel("a", 20, 30, 1)]
    found = find_stages(trace_of([*events, copy("Memcpy DtoH", 12, 15, 2)]))
    assert (found.copy_step.tolist(), found.steps[0].begin) == ([0], 20_000)


def test_two_processes_with_the_same_ids_do_not_mix() -> None:
    """A correlation that two launches have proves neither; the device's own window still does."""
    events = [mark(DECODE, 0, 10), mark(PREFILL, 0, 10, pid=71, tid=71), launch(5, 1), launch(5, 1, pid=71, tid=71)]
    found = find_stages(trace_of([*events, kernel("a", 20, 30, 1)]))
    assert stages_of(found) == [OUTSIDE]
    found = find_stages(trace_of([*events, kernel("a", 20, 30, 1), window(PREFILL, 19, 31)]))
    assert stages_of(found) == ["prefill"]


@pytest.mark.parametrize("events", [[], [kernel("a", 0, 1), copy("Memcpy", 1, 2)], [mark("nothing", 0, 1)]])
def test_a_trace_without_steps_is_of_one_stage(events: list[Event]) -> None:
    """Without steps all is one stage: that of the file's path, else "all"."""
    trace = trace_of([*events, mark("x", 5, 6)])
    assert find_stages(trace).names == [ALL]
    assert find_stages(trace, "decode").names == ["decode"]
    assert find_stages(trace_of([mark(PREFILL, 0, 1)]), "decode").names == ["prefill"]


def test_a_cpu_trace_has_its_annotations_as_steps() -> None:
    """Without a device the steps are on the CPU's clock, of device -1."""
    found = find_stages(trace_of([mark(DECODE, 10, 20), mark(PREFILL, 0, 5), mark("step[IDLE]", 6, 7)]))
    assert [(step.begin, step.end, step.stage, step.device) for step in found.steps] == [
        (0, 5000, "prefill", -1),
        (10_000, 20_000, "decode", -1),
    ]


@st.composite
def intervals(draw: Any) -> list[tuple[int, int, int]]:
    return draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(0, 2)), max_size=14))


@settings(deadline=None)
@given(intervals(), st.lists(st.tuples(st.integers(-2, 45), st.integers(0, 3)), max_size=20))
def test_innermost_intervals_do_hold_the_moment(
    spans: list[tuple[int, int, int]], asked: list[tuple[int, int]]
) -> None:
    """Of any intervals, an answer always holds the moment on its lane; of nested ones it is the shortest."""
    begin, length, lane = (np.array([span[i] for span in spans], np.int64) for i in range(3))
    end = begin + length
    found = Nesting(begin, end, lane).innermost(
        np.array([moment for moment, _ in asked], np.int64), np.array([on for _, on in asked], np.int64)
    )
    crossing = any(
        lane[i] == lane[j] and begin[i] < begin[j] < end[i] < end[j]
        for i in range(len(spans))
        for j in range(len(spans))
    )
    for (moment, on), row in zip(asked, found, strict=True):
        holding = [i for i in range(len(spans)) if lane[i] == on and begin[i] <= moment < end[i]]
        assert row in holding or row == -1
        if not crossing:
            assert (row >= 0) == bool(holding)
            assert row < 0 or length[row] == min(length[i] for i in holding)


@real
@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("vllm/traces/graph/decode", {"decode": (8, 524)}),
        ("vllm/traces/graph/prefill", {"prefill": (3, 456)}),
        ("vllm/traces/eager/decode", {"decode": (3, 560)}),
        ("sgl/traces/graph/decode", {"decode": (8, 554)}),
        ("sgl/traces/graph/prefill", {"prefill": (2, 495), "decode": (2, 518)}),
        ("sgl/traces/eager/decode", {"decode": (3, 559)}),
    ],
)
def test_steps_of_real_traces_hold_equal_numbers_of_kernels(path: str, stages: dict[str, tuple[int, int]]) -> None:
    """Captured steps of one kind differ by one kernel at most, although they are launched one step ahead."""
    trace = read(next((DATA / path).glob("*.gz")))
    found = find_stages(trace)
    count = np.bincount(found.kernel_step[found.kernel_step >= 0], minlength=len(found.steps))
    for stage, (steps, kernels) in stages.items():
        counts = [int(count[i]) for i, step in enumerate(found.steps) if step.stage == stage]
        assert len(counts) == steps
        assert all(abs(each - kernels) <= 1 for each in counts)
    assert found.guessed_ns == 0
    assert all(a.end <= b.begin for a, b in zip(found.steps, found.steps[1:], strict=False))
