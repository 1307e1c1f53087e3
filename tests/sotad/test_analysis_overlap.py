"""What ran at the same time on a device, against a reference that looks at every nanosecond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.analysis import overlap
from sotad.analysis.cover import cover
from sotad.analysis.neighbours import stream_by_stream
from sotad.analysis.overlap import Overlap, sweep
from sotad.analysis.overlap_rows import overlap_rows, same_scope_family
from sotad.trace.columns import Frames, Spans, Trace, Work

US = 1000
CATEGORIES = {"G": "gemm", "A": "communication", "N": "norm", "E": "elementwise", "M": "memory"}


class Ran(NamedTuple):
    """One kernel or copy; times in nanoseconds, its name's first letter tells the category."""

    name: str
    stream: int
    begin: int
    end: int
    device: int = 0
    stage: int = 0
    copy: bool = False


@dataclass
class Stages:
    """Stages as the stage finder gives them."""

    names: list[str]
    kernel: Any
    kernel_step: Any
    copy: Any
    copy_step: Any
    steps: list[Any] = field(default_factory=list)


def category(name: str) -> str:
    """The category by the first letter of the name."""
    return CATEGORIES[name[0]]


def work_of(rows: Sequence[Ran], names: list[str], streams: list[tuple[int, str]]) -> Work:
    """The rows as columns."""
    places = [streams.index((row.device, str(row.stream))) for row in rows]
    wide = [[row.begin for row in rows], [row.end for row in rows]]
    begin, end = (np.array(column, dtype=np.int64) for column in wide)
    none = np.full(len(rows), -1, dtype=np.int64)
    name, device, stream = (
        np.array(column, dtype=np.int32)
        for column in ([names.index(row.name) for row in rows], [row.device for row in rows], places)
    )
    return Work(begin, end, name, np.zeros(len(rows), dtype=np.int32), none, none, device, stream)


def make(rows: Sequence[Ran], steps: Sequence[Any] = (), stage_names: Sequence[str] = ("all",)) -> tuple[Trace, Stages]:
    """A trace of the rows, and their stages; the step of a kernel is the first that holds its begin."""
    rows = sorted(rows, key=lambda row: (row.begin, -row.end))
    names = sorted({row.name for row in rows})
    streams = sorted({(row.device, str(row.stream)) for row in rows})
    devices = [str(number) for number in range(max((row.device for row in rows), default=-1) + 1)]
    kernels, copies = ([row for row in rows if row.copy is kind] for kind in (False, True))
    nothing = np.zeros(0, dtype=np.int64)
    spans = Spans(*(nothing,) * 2, *(nothing.astype(np.int32),) * 2, *(nothing,) * 2)
    frames = Frames(*(nothing,) * 2, *(nothing.astype(np.int32),) * 2, *(nothing,) * 4)
    works = [work_of(each, names, streams) for each in (kernels, copies, [])]
    trace = Trace("t", 0, names, [], devices, streams, works[0], works[1], spans, spans, frames, spans, works[2])

    def step_of(row: Ran) -> int:
        inside = [i for i, step in enumerate(steps) if step.device == row.device and step.begin <= row.begin < step.end]
        return inside[0] if inside else -1

    stage, step = (
        [np.array([f(r) for r in k], dtype=np.int32) for k in (kernels, copies)]
        for f in (lambda row: row.stage, step_of)
    )
    return trace, Stages(list(stage_names), stage[0], step[0], stage[1], step[1], list(steps))


def step(begin: int, end: int, device: int = 0, stage: str = "all") -> Any:
    """One step of the engine."""
    return SimpleNamespace(begin=begin, end=end, device=device, stage=stage, sequences=1, tokens=1)


def swept(rows: Sequence[Ran], steps: Sequence[Any] = (), stage_names: Sequence[str] = ("all",)) -> Overlap:
    """The overlap of the rows."""
    trace, stages = make(rows, steps, stage_names)
    return sweep(trace, stages, category)  # type: ignore[arg-type]


WORKED = [
    Ran("G1", 7, 0, 100 * US),
    Ran("A1", 19, 60 * US, 140 * US),
    Ran("N1", 7, 100 * US, 110 * US),
    Ran("G2", 7, 145 * US, 245 * US),
]


def test_worked_example_of_two_streams() -> None:
    """Exclusive, hidden, busy, single, multi, idle and exposed communication of an example done by hand."""
    found = swept(WORKED, [step(0, 245 * US)])
    assert (found.kernels.exclusive // US).tolist() == [60, 30, 0, 100]
    assert (found.kernels.hidden // US).tolist() == [40, 50, 10, 0]
    assert (found.kernels.hidden_by_compute // US).tolist() == [0, 40, 0, 0]
    device = found.devices[0]
    assert (device.busy_ns, device.multi_stream_ns, device.single_stream_ns) == (240 * US, 50 * US, 190 * US)
    assert (device.idle_ns, device.max_streams) == (5 * US, 2)
    assert found.steps.exposed_communication.tolist() == [30 * US]
    assert found.steps.idle.tolist() == [5 * US] and found.stages["all"].idle_ns == 5 * US
    assert [(bubble.duration_ns, bubble.after, bubble.before) for bubble in found.bubbles] == [(5 * US, "A1", "G2")]
    gaps = found.stages["all"].gaps
    assert (gaps.count, gaps.total_ns, gaps.largest_ns) == (1, 35 * US, 35 * US)


def test_launch_gaps_within_steps_by_length_and_pair() -> None:
    """Gaps between kernels of one step on the main stream are counted; those between steps are not."""
    ran = [Ran("G1", 7, 0, 10 * US), Ran("N1", 7, 13 * US, 20 * US), Ran("G2", 7, 21 * US, 30 * US)]
    ran += [Ran("G1", 7, 90 * US, 95 * US), Ran("N1", 7, 99 * US, 100 * US), Ran("E1", 8, 11 * US, 12 * US)]
    gaps = swept(ran, [step(0, 30 * US), step(90 * US, 100 * US)]).stages["all"].gaps
    assert (gaps.count, gaps.total_ns, gaps.median_ns, gaps.largest_ns) == (3, 8 * US, 3 * US, 4 * US)
    assert gaps.below_us == [0, 1, 2, 0, 0, 0, 0, 0, 0] and gaps.below_ns[1:3] == [1 * US, 7 * US]
    assert [(pair.after, pair.before, pair.count, pair.total_ns) for pair in gaps.between] == [
        ("G1", "N1", 2, 7 * US),
        ("N1", "G2", 1, 1 * US),
    ]


def test_overlap_on_one_stream_hides_nothing() -> None:
    """Two kernels that a trace shows as overlapping on one stream stay exclusive, and share the busy time."""
    found = swept([Ran("G1", 7, 0, 10), Ran("N1", 7, 8, 12)])
    assert found.kernels.exclusive.tolist() == [10, 4] and found.kernels.hidden.tolist() == [0, 0]
    assert found.kernels.attributed.tolist() == [9, 3]
    assert found.devices[0].multi_stream_ns == 0


def test_same_stream_number_on_two_devices_is_two_streams() -> None:
    """Work of another device hides nothing."""
    found = swept([Ran("G1", 7, 0, 10), Ran("G1", 7, 0, 10, device=1)])
    assert found.kernels.hidden.tolist() == [0, 0]
    assert [device.busy_ns for device in found.devices] == [10, 10]


def test_copies_hide_kernels_but_not_communication() -> None:
    """A copy on another stream makes a collective hidden; the collective is exposed all the same."""
    found = swept([Ran("A1", 7, 0, 10), Ran("M1", 8, 0, 10, copy=True)], [step(0, 10)])
    assert found.kernels.hidden.tolist() == [10] and found.kernels.hidden_by_compute.tolist() == [0]
    assert found.copies.hidden.tolist() == [10]
    assert found.steps.exposed_communication.tolist() == [10]


def test_nothing_at_all() -> None:
    """A trace without work has no devices and no times."""
    found = swept([])
    assert found.devices == [] and found.stages["all"].busy_ns == 0 and found.bubbles == []


RANS = st.builds(
    lambda name, stream, begin, length, device, stage, copy: Ran(
        "M" if copy else name, stream, begin, begin + length, device, stage, copy
    ),
    st.sampled_from(["G1", "G2", "A1", "N1", "E1"]),
    st.integers(0, 3),
    st.integers(0, 60),
    st.integers(0, 25),
    st.integers(0, 1),
    st.integers(0, 1),
    st.booleans(),
)


def brute(rows: Sequence[Ran]) -> tuple[list[list[float]], dict[int, list[int]], dict[int, int]]:
    """Per row exclusive, hidden, by compute, share; per device single and multi time; exposed time: tick by tick."""
    rows_found = [[0.0] * 4 for _ in rows]
    devices: dict[int, list[int]] = {row.device: [0, 0] for row in rows}
    exposed = dict.fromkeys(devices, 0)
    for tick in range(100):
        for device in devices:
            active = [i for i, r in enumerate(rows) if r.device == device and r.begin <= tick < r.end]
            streams = {rows[i].stream for i in active}
            if active:
                devices[device][len(streams) > 1] += 1
            kernels = [category(rows[i].name) for i in active if not rows[i].copy]
            exposed[device] += bool(kernels) and set(kernels) == {"communication"}
            for i in active:
                others = [rows[j] for j in active if rows[j].stream != rows[i].stream]
                rows_found[i][bool(others)] += 1
                rows_found[i][2] += any(category(other.name) == "gemm" and not other.copy for other in others)
                rows_found[i][3] += 1 / len(active)
    return rows_found, devices, exposed


def test_idle_time_is_inside_steps_or_outside() -> None:
    """Steps that overlap count once, and what a step claims before the first work and after the last is not idle."""
    rows = [Ran("G", 7, begin, begin + 10) for begin in (100, 120, 150, 200)]
    found = swept(rows, [step(50, 130), step(110, 140), step(190, 400)])
    device = found.devices[0]
    assert (device.idle_ns, device.idle_in_steps_ns) == (70, 10 + 10 + 10)


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0, 1, 5, 40_000])), max_size=30))
def test_streams_are_sorted_as_lexsort_does(rows: list[tuple[int, int]]) -> None:
    """By stream, then by begin, equals in the order they came; also with stream numbers too large for 16 bits."""
    begin, stream = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    found = stream_by_stream(begin, stream.astype(np.int32))
    assert found.tolist() == np.lexsort((begin, stream)).tolist()


@given(st.lists(RANS, max_size=14), st.sampled_from([1, 4, 1 << 17]))
def test_sweep_agrees_with_looking_at_every_tick(rows: list[Ran], block: int) -> None:
    """Every figure of the sweep is that of the tick by tick reference, in one block or in many."""
    rows = sorted(rows, key=lambda row: (row.begin, -row.end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_BLOCK", block)
        steps = [step(0, 100, device) for device in (0, 1)]
        found = swept(rows, steps, ["a", "b"])
    expected, devices, exposed = brute(rows)
    for shares, wanted in (
        (found.kernels, [e for e, r in zip(expected, rows, strict=True) if not r.copy]),
        (found.copies, [e for e, r in zip(expected, rows, strict=True) if r.copy]),
    ):
        columns = (shares.exclusive, shares.hidden, shares.hidden_by_compute)
        assert [list(row) for row in zip(*(c.tolist() for c in columns), strict=True)] == [row[:3] for row in wanted]
        assert (shares.exclusive + shares.hidden == shares.duration).all()
        for mine, share in zip(shares.attributed.tolist(), (row[3] for row in wanted), strict=True):
            assert abs(mine - share) <= 2 * len(rows)  # less than one per moment at which anything begins or ends
    for each in found.devices:
        assert [each.single_stream_ns, each.multi_stream_ns] == devices[each.device]
        assert each.busy_ns == each.single_stream_ns + each.multi_stream_ns
        assert 0 <= each.idle_in_steps_ns <= each.idle_ns
    busy = sum(each.busy_ns for each in found.devices)
    assert int(found.kernels.attributed.sum() + found.copies.attributed.sum()) == busy
    assert sum(stage.busy_ns for stage in found.stages.values()) == busy
    multi = sum(each.multi_stream_ns for each in found.devices)
    assert sum(stage.multi_stream_ns for stage in found.stages.values()) == multi
    assert {s.device: int(e) for s, e in zip(steps, found.steps.exposed_communication, strict=True) if e} == {
        device: time for device, time in exposed.items() if time
    }


@given(st.lists(RANS, max_size=14))
def test_attributed_time_is_shared_to_the_nanosecond(rows: list[Ran]) -> None:
    """In units that every share divides into whole, attributed time is the exact equal share."""
    unit = 360360  # divisible by every number of concurrent rows up to 15
    scaled = sorted((r._replace(begin=r.begin * unit, end=r.end * unit) for r in rows), key=lambda r: (r.begin, -r.end))
    small = [r._replace(begin=r.begin // unit, end=r.end // unit) for r in scaled]
    found = swept(scaled, (), ["a", "b"])
    wanted = [round(row[3] * unit) for row, r in zip(brute(small)[0], scaled, strict=True) if not r.copy]
    assert found.kernels.attributed.tolist() == wanted


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=9), st.integers(0, 60), st.integers(0, 60))
def test_cover_measures_any_window(spans: list[tuple[int, int]], first: int, last: int) -> None:
    """The time covered inside a window is the number of covered ticks in it."""
    first, last = sorted((first, last))
    begin = np.array([span[0] for span in spans], dtype=np.int64)
    length = np.array([span[1] for span in spans], dtype=np.int64)
    ticks = {tick for at, span in spans for tick in range(at, at + span)}
    found = cover(begin, begin + length)
    assert found.within(np.array([first]), np.array([last])).tolist() == [len(ticks & set(range(first, last)))]
    assert found.total == len(ticks)


def rows_of(rows: Sequence[Ran], steps: Sequence[Any] = (), framework: str | None = None) -> list[dict[str, Any]]:
    """The overlap rows of one stage."""
    trace, stages = make(rows, steps)
    found = sweep(trace, stages, category)  # type: ignore[arg-type]
    return overlap_rows(trace, stages, found, framework=framework, category=category)["all"]  # type: ignore[arg-type]


def test_worked_example_finds_the_consumer_on_the_other_stream() -> None:
    """Exposed communication is listed with its exposed time per step, and its consumer on the idle stream is seen."""
    row = next(row for row in rows_of(WORKED, [step(0, 245 * US)]) if row["kernel"] == "A1")
    assert row["exposed_us_per_step"] == 30 and row["exclusive_ratio"] == pytest.approx(0.375)
    assert (row["dep_risk"], row["dep_sides"], row["verdict"], row["priority"]) == ("high", ["next"], "exposed", "P2")
    assert "G2" in row["dep_evidence"][0] and row["row_id"] == "all/overlap/A1"


def test_lone_compute_kernel_is_no_opportunity() -> None:
    """Compute that runs alone, on one stream, gives no row, however long it is."""
    chain = [Ran("G1", 7, 1000 * US * i, 1000 * US * i + 999 * US) for i in range(5)]
    assert rows_of(chain, [step(0, 5000 * US)]) == []


def test_small_kernels_of_one_stream_are_serial() -> None:
    """A norm between two products on one stream is tied to both, and overlap cannot help it."""
    chain = [Ran("G1", 7, 0, 90 * US), Ran("N1", 7, 90 * US, 100 * US), Ran("G2", 7, 101 * US, 200 * US)]
    row = rows_of(chain, [step(0, 200 * US)])[0]
    assert (row["kernel"], row["verdict"], row["dep_risk"], row["dep_sides"]) == (
        "N1",
        "serial",
        "high",
        ["prev", "next"],
    )


def test_all_reduce_between_product_and_norm_is_exposed_not_free() -> None:
    """A collective in a chain on one stream is exposed in full, and its neighbours are its dependencies."""
    chain = [Ran("G1", 7, 0, 90 * US), Ran("A1", 7, 91 * US, 100 * US), Ran("N1", 7, 101 * US, 103 * US)]
    row = rows_of(chain, [step(0, 200 * US)])[0]
    assert (row["kernel"], row["priority"], row["dep_risk"], row["exposed_us"]) == ("A1", "P2", "high", 9)


def test_collective_with_slack_on_both_sides_is_an_opportunity() -> None:
    """A collective on a stream of its own, with the other stream busy around it, can be moved."""
    ran = [Ran("G1", 7, 0, 90 * US), Ran("A1", 19, 120 * US, 140 * US), Ran("G2", 7, 200 * US, 300 * US)]
    row = next(row for row in rows_of(ran, [step(0, 300 * US)]) if row["kernel"] == "A1")
    assert (row["priority"], row["verdict"], row["dep_risk"]) == ("P1", "opportunity", "low")


def test_gaps_of_an_idle_device_prove_nothing() -> None:
    """Where the host launches slower than the device works, dependencies are unclear, not absent."""
    ran = [Ran("G1", 7, 0, 10 * US), Ran("A1", 7, 100 * US, 110 * US), Ran("G2", 7, 200 * US, 210 * US)]
    row = next(row for row in rows_of(ran, [step(0, 300 * US)]) if row["kernel"] == "A1")
    assert (row["dep_risk"], row["verdict"]) == ("unclear", "exposed")


def test_hidden_work_is_left_alone_and_comes_last() -> None:
    """What other streams hide already has the lowest priority, and shares are of the stage's kernel time."""
    ran = [Ran("G1", 7, 0, 100 * US), Ran("A1", 19, 10 * US, 60 * US), Ran("N1", 7, 100 * US, 110 * US)]
    found = rows_of(ran, [step(0, 110 * US)])
    assert [(row["kernel"], row["verdict"]) for row in found] == [
        ("N1", "serial"),
        ("G1", "overlapped"),
        ("A1", "hidden"),
    ]
    assert found[2]["share"] == pytest.approx(100 * 50 / 160)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("vllm/linear.py:109 apply", "vllm/linear.py:120 forward", True),
        ("vllm/linear.py(109): apply", "vllm/linear.py:120 forward", True),
        ("vllm/a.py:1 apply", "vllm/b.py:9 apply", True),
        ("vllm/a.py:1 apply", "vllm/b.py:9 forward", False),
        ("", "", False),
    ],
)
def test_scope_family(left: str, right: str, same: bool) -> None:
    """Two locations are of one family by file or function, in either notation."""
    assert same_scope_family(left, right) is same


def test_work_between_steps_counts_against_the_whole_trace() -> None:
    """What runs in no step is a row only if it matters beside all kernels, not beside the little that it runs with."""
    ran = [
        Ran("G1", 7, 0, 990 * US),
        Ran("N1", 7, 1000 * US, 1005 * US, stage=1),
        Ran("E1", 7, 1010 * US, 1030 * US, stage=1),
    ]
    trace, stages = make(ran, [step(0, 990 * US, stage="decode")], ["decode", "outside"])
    found = sweep(trace, stages, category)  # type: ignore[arg-type]
    rows = overlap_rows(trace, stages, found, category=category)["outside"]  # type: ignore[arg-type]
    assert [(row["kernel"], row["exposed_us_per_step"]) for row in rows] == [("E1", None)]
    assert rows[0]["share"] == pytest.approx(80)
