"""Kernel tables: rows with stable ids whose times, shares and medians add up; operators of traces without a device."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.plain_operators import make_tables
from rig.trace_events import Event, copy, event, frame, kernel, launch, mark, op, trace_of

from sotad.analysis.attribution import attribute
from sotad.analysis.kernel_rows import copy_rows, kernel_rows
from sotad.analysis.operators import UNNAMED, operator_tables
from sotad.analysis.rows import row_id, spread
from sotad.analysis.stages import find_stages

DECODE = "step[DECODE bs=8]"
GEMM, NORM = "void gemm_kernel<1>(int)", "rms_norm_kernel"


def tables(events: list[Event]) -> dict[str, list[dict[str, Any]]]:
    trace = trace_of(events)
    return kernel_rows(trace, find_stages(trace), attribute(trace))


def decode(durations: list[list[tuple[str, float]]]) -> list[Event]:
    """Steps with one launch each, whose kernels take these us one after another."""
    events, clock = [], 1000.0
    for i, step in enumerate(durations):
        events += [mark(DECODE, 10 * i, 10 * i + 9), launch(10 * i + 5, i + 1)]
        for name, duration in step:
            events.append(kernel(name, clock, clock + duration, i + 1))
            clock += duration
    return events


def test_rows_say_what_a_stage_spent() -> None:
    """Time, count, share of the stage, and median and deviation over its steps, with none counted as 0."""
    found = tables(decode([[(GEMM, 10), (GEMM, 20), (NORM, 5)], [(GEMM, 40), (NORM, 5)], [(GEMM, 20)]]))
    gemm, norm = found["decode"]
    assert (gemm["name"], gemm["category"], gemm["count"], gemm["steps"]) == ("gemm_kernel<1>", "gemm", 4, 3)
    assert gemm["time_ms"] == pytest.approx(0.090)
    assert gemm["share"] == pytest.approx(90)
    assert (gemm["per_step_ms"], gemm["mad_ms"]) == (pytest.approx(0.030), pytest.approx(0.010))
    assert (norm["steps"], norm["per_step_ms"], norm["mad_ms"]) == (2, pytest.approx(0.005), 0)
    assert norm["row_id"] == "decode/rms_norm_kernel"


def test_a_row_has_the_places_that_launch_it() -> None:
    """The share of a row's time by place, and how the place is known."""
    events = [
        frame("vllm/m.py(1): f", 0, 10),
        frame("vllm/m.py(2): g", 20, 30),
        launch(5, 1),
        launch(25, 2),
        launch(45, 3),
    ]
    events += [kernel(NORM, 50, 80, 1), kernel(NORM, 80, 90, 2), kernel(NORM, 90, 100, 3)]
    (row,) = tables(events)["all"]
    assert [(at["location"], round(at["share"]), at["matched"]) for at in row["locations"]] == [
        ("vllm/m.py:1 f", 60, "direct"),
        ("vllm/m.py:2 g", 20, "direct"),
        ("unresolved", 20, "none"),
    ]


def test_copies_have_rows_of_their_own() -> None:
    """Kernels count kernels only; copies are in their own table."""
    trace = trace_of([kernel(NORM, 0, 10), copy("Memcpy HtoD (Pinned -> Device)", 10, 20)])
    found = find_stages(trace), attribute(trace)
    assert [row["name"] for row in kernel_rows(trace, *found)["all"]] == [NORM]
    (row,) = copy_rows(trace, *found)["all"]
    assert (row["category"], row["count"], row["share"]) == ("memory", 1, 100)


def test_an_empty_trace_has_empty_tables() -> None:
    """No kernel: no row, no error."""
    assert tables([mark("x", 0, 1)]) == {"all": []}


DURATIONS = st.lists(
    st.lists(st.tuples(st.sampled_from([GEMM, NORM, "a", "b"]), st.integers(1, 50)), max_size=6), min_size=1, max_size=6
)


@settings(deadline=None)
@given(DURATIONS)
def test_tables_add_up(steps: list[list[tuple[str, float]]]) -> None:
    """Over all stages the rows sum to all kernel time, shares of a stage to 100, whatever the steps."""
    found = tables(decode(steps))
    whole = sum(duration for step in steps for _, duration in step) / 1000
    assert sum(row["time_ms"] for rows in found.values() for row in rows) == pytest.approx(whole)
    for rows in found.values():
        if rows:
            assert sum(row["share"] for row in rows) == pytest.approx(100)
            assert all(sum(at["share"] for at in row["locations"]) == pytest.approx(100) for row in rows)
    assert [row["time_ms"] for row in found.get("decode", [])] == sorted(
        (row["time_ms"] for row in found.get("decode", [])), reverse=True
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=0, max_size=12), st.integers(0, 12))
def test_medians_count_steps_without_the_kernel(values: list[int], zeros: int) -> None:
    """Median and deviation are those of the values with the zeros written out."""
    whole = [float(value) for value in values] + [0.0] * zeros
    median, mad = spread(np.array(values, np.int64), len(whole))
    expected = statistics.median(whole) if whole else 0.0
    assert median == pytest.approx(expected)
    assert mad == pytest.approx(statistics.median([abs(each - expected) for each in whole]) if whole else 0.0)


def test_row_ids_are_those_of_the_ledgers() -> None:
    """An id that a ledger holds names the same row; names that are odd or long are marked, and never share an id."""
    assert row_id("decode", None, "aten::addmm") == "decode/aten::addmm"
    assert row_id("decode", "attention", "aten::bmm") == "decode/attention/aten::bmm"
    assert row_id("decode", None, "void x<a|b>(int*)") == "decode/void x<a_b>(int_)~a5228edb"
    assert row_id("decode", None, "y" * 100) == f"decode/{'y' * 80}~c8e396b2"
    assert row_id("decode", "a", "b") != row_id("decode", None, "a/b")


ANNOTATIONS = ["attention", "step[DECODE bs=8 toks=8]", "step[PREFILL bs=2 toks=64]", "step[MIXED bs=3]"]


@st.composite
def calls(draw: Any) -> list[Event]:
    """Steps one after another with nested operators and annotations inside, between and on a second thread.

    No two begin and end together: which of them calls the other could not be told.
    """
    found: list[Event] = []
    taken: set[tuple[int, int, int]] = set()

    def fill(begin: int, end: int, depth: int, tid: int) -> None:
        while depth < 4 and end - begin >= 4 and draw(st.booleans()):
            begin = draw(st.integers(begin, end - 2))
            stop = draw(st.integers(begin + 1, end))
            if (tid, begin, stop) in taken:
                return
            taken.add((tid, begin, stop))
            name = draw(st.sampled_from(["aten::mm", "aten::add", "attention"]))
            cat = "user_annotation" if name == "attention" else "cpu_op"
            found.append(event(cat, name, begin, stop, tid=tid))
            fill(begin, stop, depth + 1, tid)
            begin = stop

    for i, name in enumerate(draw(st.lists(st.sampled_from(ANNOTATIONS[1:]), min_size=1, max_size=4))):
        base = 100 * i
        found.append(mark(name, base, base + 80))
        taken.add((70, base, base + 80))
        fill(base, base + 80, 0, 70)
        fill(base + 82, base + 99, 0, 70)
        fill(base, base + 99, 0, 71)
    return found


@settings(deadline=None)
@given(calls())
def test_operators_are_those_of_the_plain_way(events: list[Event]) -> None:
    """Without a device, rows and stages are those of the plain way to work them out."""
    trace = trace_of(events)
    found = operator_tables(trace, find_stages(trace))
    if not any(each["cat"] == "cpu_op" for each in events):
        assert found.rows == []
        return
    expected = make_tables(events)
    assert [without_times(row) for row in found.rows] == [without_times(row) for row in expected.rows]
    assert [row["time_ms"] for row in found.rows] == pytest.approx([row["time_ms"] for row in expected.rows])
    assert [row["share"] for row in found.rows] == pytest.approx([row["share"] for row in expected.rows])
    assert found.stages == expected.stages


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("time_ms", "share")}


def test_operators_without_steps_are_one_stage() -> None:
    """A CPU trace without annotations still has its table."""
    trace = trace_of([op("aten::linear", 0, 60), op("aten::addmm", 10, 50)])
    found = operator_tables(trace, find_stages(trace))
    assert {row["row_id"]: row["time_ms"] for row in found.rows} == {"all/aten::linear": 0.02, "all/aten::addmm": 0.04}
    assert found.stages == {}


def test_what_no_operator_covers_is_a_row() -> None:
    """The time of steps outside of operators is not lost."""
    trace = trace_of([mark(DECODE, 0, 100), op("aten::mm", 10, 40)])
    found = operator_tables(trace, find_stages(trace))
    assert {row["name"]: row["time_ms"] for row in found.rows} == {"aten::mm": 0.03, UNNAMED: 0.07}


ANY_EVENT = st.builds(
    event,
    st.sampled_from(
        ["kernel", "gpu_memcpy", "cpu_op", "cuda_runtime", "python_function", "user_annotation", "gpu_user_annotation"]
    ),
    st.sampled_from(
        [GEMM, DECODE, "step[IDLE]", "execute_context_1(9)_generation_0(0)", "vllm/a.py(1): f", "cudaGraphLaunch"]
    ),
    st.integers(0, 40),
    st.integers(-2, 80),
    st.sampled_from([0, 70]),
    st.sampled_from([7, 70]),
    External_id=st.one_of(st.none(), st.integers(0, 3)),
    correlation=st.one_of(st.none(), st.integers(0, 3)),
    stream=st.integers(7, 8),
)


@settings(deadline=None)
@given(st.lists(ANY_EVENT, max_size=25), st.lists(ANY_EVENT, max_size=10))
def test_any_events_make_tables_that_add_up(events: list[Event], others: list[Event]) -> None:
    """Crossing, negative, doubled and unknown events never fail, lose or double the time of a kernel."""
    trace, other = trace_of([mark("anchor", 0, 1), *events]), trace_of([mark("anchor", 0, 1), *others])
    stages, sources = find_stages(trace), attribute(trace)
    found = kernel_rows(trace, stages, sources, (other, find_stages(other), attribute(other)))
    whole = int((trace.kernels.end - trace.kernels.begin).sum()) / 1e6
    assert sum(row["time_ms"] for rows in found.values() for row in rows) == pytest.approx(whole)
    assert sum(row["count"] for rows in found.values() for row in rows) == len(trace.kernels)
    assert set(found) == set(stages.names)
    for index, step in enumerate(stages.kernel_step):
        assert step < 0 or stages.names[stages.kernel[index]] == stages.steps[step].stage
        assert step < 0 or stages.steps[step].device == trace.kernels.device[index]
        assert step >= 0 or stages.names[stages.kernel[index]] in ("outside", "all")
    copy_rows(trace, stages, sources)
    operator_tables(trace, stages)
