"""Where kernels come from: proven operators and lines only, and through a mapping trace what a graph hides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.trace_events import Event, copy, frame, kernel, launch, mark, op, trace_of

from sotad.analysis.attribution import UNRESOLVED, Attribution, Site, attribute
from sotad.analysis.frames import read_frame
from sotad.analysis.mapping import MATCHED, Analysed, Mapped, map_through
from sotad.analysis.stages import find_stages
from sotad.trace.columns import Trace
from sotad.trace.reader import read

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[3] / "shared/data")) / "h200"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no captured traces here")

LINEAR = "vllm/model_executor/layers/linear.py(220): apply"


@pytest.mark.parametrize(
    ("name", "rank", "location"),
    [
        ("sglang/srt/layers/linear.py(9): f", 290, "python/sglang/srt/layers/linear.py:9 f"),
        ("/w/sglang/python/sglang/srt/layers/linear.py(9): f", 300, "python/sglang/srt/layers/linear.py:9 f"),
        ("/a/site-packages/vllm/v1/worker.py(12): run", 285, "vllm/v1/worker.py:12 run"),
        ("/a/lib/site-packages/numpy/core.py(1): f", 45, "numpy/core.py:1 f"),
        ("torch/nn/functional.py(2455): embedding", 45, "torch/nn/functional.py:2455 embedding"),
        ("torch/nn/modules/module.py(1783): _call_impl", 0, "torch/nn/modules/module.py:1783 _call_impl"),
        ("vllm/model_executor/parameter.py(122): __torch_function__", 205, None),
        ("threading.py(1030): _bootstrap", -20, None),
        ("/home/me/serve.py(3): main", 35, "/home/me/serve.py:3 main"),
        ("<built-in method addmm of type object at 0x7f>", -10, ""),
        ("nn.Module: RMSNorm_1", -10, ""),
    ],
)
def test_frames_are_ranked_by_what_they_say(name: str, rank: int, location: str | None) -> None:
    """A frame of the engine beats one of a library, which beats plumbing; built-ins name no line."""
    found = read_frame(name)
    assert found.rank == rank
    assert location is None or found.location == location


def sites(found: Attribution) -> list[Site]:
    return [found.sites[site] for site in found.kernel_site]


def test_the_launch_says_operator_and_line() -> None:
    """The innermost operator and the best frame open at the launch, on its thread, are the kernel's."""
    events = [
        frame("vllm/models/m.py(1): forward", 0, 100),
        frame(LINEAR, 10, 50),
        frame("torch/_ops.py(9): __call__", 11, 49),
        op("aten::linear", 12, 48, 1),
        op("aten::mm", 13, 40, 2),
        frame("vllm/other.py(5): g", 0, 100, tid=8),
        launch(20, 5),
        kernel("k", 60, 70, correlation=5, external=2),
    ]
    found = attribute(trace_of(events))
    assert sites(found) == [
        Site("vllm/model_executor/layers/linear.py:220 apply",
             ("vllm/models/m.py:1 forward", "vllm/model_executor/layers/linear.py:220 apply"), "aten::mm")
    ]  # fmt: skip


def test_without_a_launch_the_external_id_tells() -> None:
    """The operator with the kernel's id gives operator and stack, where no launch was recorded."""
    found = attribute(trace_of([frame(LINEAR, 0, 50), op("aten::mm", 13, 40, 2), kernel("k", 60, 70, external=2)]))
    assert [(site.location, site.op) for site in sites(found)] == [
        ("vllm/model_executor/layers/linear.py:220 apply", "aten::mm")
    ]


def test_a_launch_outside_of_operators_still_has_its_line() -> None:
    """A Triton kernel is launched without an operator: the launch stands for it, the frame is known."""
    found = attribute(trace_of([frame(LINEAR, 0, 50), launch(20, 5, "cuLaunchKernelEx"), kernel("k", 60, 70, 5)]))
    assert [(site.location, site.op) for site in sites(found)] == [
        ("vllm/model_executor/layers/linear.py:220 apply", "cuLaunchKernelEx")
    ]
    assert found.kernel_op.tolist() == [-1]


@pytest.mark.parametrize(
    "events",
    [
        [op("aten::mm", 0, 50, 2), op("aten::add", 60, 90, 2), kernel("k", 100, 110, external=2)],
        [op("aten::mm", 0, 50), launch(20, 5), launch(70, 5), kernel("k", 100, 110, correlation=5)],
        [op("aten::mm", 0, 50, 1), kernel("k", 20, 30)],
        [op("aten::mm", 0, 50, 0), kernel("k", 20, 30, external=0)],
        [kernel("k", 20, 30, correlation=3, external=4)],
        [],
    ],
    ids=["id of two operators", "correlation of two launches", "no ids", "id zero", "ids of nothing", "nothing"],
)
def test_what_is_not_proven_is_unresolved(events: list[Event]) -> None:
    """Ambiguous and missing ids give no operator and no line."""
    found = attribute(trace_of([*events, kernel("far", 500, 501)]))
    assert all(site == Site(UNRESOLVED) for site in sites(found))
    assert (found.kernel_op == -1).all()


def test_an_id_that_contradicts_its_launch_proves_nothing() -> None:
    """The id names an operator that was not open when the kernel was launched: neither is believed."""
    events = [op("aten::mm", 0, 50, 2), op("aten::add", 60, 90, 3), launch(70, 5), kernel("k", 100, 110, 5, 2)]
    found = attribute(trace_of(events))
    assert found.kernel_op.tolist() == [-1]


def test_an_id_that_contradicts_all_launches_of_its_correlation_proves_nothing() -> None:
    """Where several launches have a kernel's correlation, an operator that holds none of them is not its operator."""
    events = [op("aten::a", 0, 10, 1), op("aten::b", 20, 30, 2), launch(2, 7), launch(4, 7)]
    events += [kernel("k", 40, 45, 7, 1), kernel("k", 50, 55, 7, 2)]
    trace = trace_of(events)
    names = [trace.names[number] if number >= 0 else None for number in attribute(trace).kernel_op]
    assert names == ["aten::a", None]


def test_the_id_tells_operators_of_two_processes_apart() -> None:
    """Two processes that write one pid and thread overlap in time; the kernel's id says whose operator it was."""
    events = [op("aten::mm", 0, 50, 7), op("aten::add", 10, 60, 8), launch(20, 5), kernel("k", 100, 110, 5, 7)]
    found = attribute(trace_of(events))
    assert [site.op for site in sites(found)] == ["aten::mm"]


def test_frames_of_another_thread_are_not_taken() -> None:
    """A stack counts only on the launching thread, also when another thread's is open at that moment."""
    found = attribute(
        trace_of([frame(LINEAR, 0, 50, tid=0), op("aten::mm", 13, 40, 2), launch(20, 5), kernel("k", 60, 70, 5)])
    )
    assert [(site.location, site.op) for site in sites(found)] == [(UNRESOLVED, "aten::mm")]


def test_a_replayed_graph_is_marked() -> None:
    """The line that replays a CUDA graph is shown as that, and is no source of its kernels."""
    events = [frame("vllm/graph.py(7): replay", 0, 50), launch(20, 5, "cudaGraphLaunch"), kernel("k", 60, 70, 5)]
    found = attribute(trace_of(events))
    assert [(site.location, site.replay) for site in sites(found)] == [("vllm/graph.py:7 replay", True)]
    assert not found.located()[found.kernel_site].any()


def test_copies_have_sites_too() -> None:
    """A copy is attributed like a kernel."""
    found = attribute(
        trace_of([frame(LINEAR, 0, 50), launch(20, 5, "cudaMemcpyAsync"), copy("Memcpy DtoH", 60, 70, 5)])
    )
    assert found.sites[found.copy_site[0]].location == "vllm/model_executor/layers/linear.py:220 apply"


@st.composite
def stacks(draw: Any) -> list[tuple[int, int, int]]:
    """Nested frames (begin, end, number of the file), as calls make them."""
    found: list[tuple[int, int, int]] = []

    def fill(begin: int, end: int, depth: int) -> None:
        while depth < 5 and end - begin >= 2 and draw(st.booleans()):
            begin = draw(st.integers(begin, end - 2))
            stop = draw(st.integers(begin + 1, end))
            found.append((begin, stop, draw(st.integers(0, 5))))
            fill(begin, stop, depth + 1)
            begin = stop

    fill(0, 60, 0)
    return found


FILES = ["vllm/a.py", "torch/b.py", "torch/_ops.py", "lib/c.py", "vllm/d.py", "threading.py"]


@settings(deadline=None)
@given(stacks(), st.lists(st.integers(0, 60), max_size=8))
def test_the_best_frame_is_that_of_a_search_through_all(frames: list[tuple[int, int, int]], moments: list[int]) -> None:
    """For any nested stacks the location is the highest ranked open frame, the innermost of equal ones."""
    events = [frame(f"{FILES[name]}({begin}{end}): f", begin, end) for begin, end, name in frames]
    for i, moment in enumerate(moments):
        events += [launch(moment, i + 1), kernel("k", 100 + i, 101 + i, correlation=i + 1)]
    found = attribute(trace_of([mark("anchor", 0, 1), *events]))
    for moment, site in zip(moments, sites(found), strict=True):
        open_frames = [each for each in frames if each[0] <= moment < each[1]]
        ranked = [(read_frame(f"{FILES[n]}({b}{e}): f"), b, -e) for b, e, n in open_frames]
        shown = [(each.rank, b, e, each.location) for each, b, e in ranked if each.rank > 0]
        best = {each[3] for each in shown if each[:3] == max(shown)[:3]} or {UNRESOLVED}
        assert site.location in best


def analysed(events: list[Event]) -> Analysed:
    trace = trace_of(events)
    return Analysed(trace, find_stages(trace), attribute(trace))


def step(names: list[str], base: int, *, lines: list[str] | None = None) -> list[Event]:
    """A decode step whose kernels are launched one by one from these lines, or all by one graph."""
    events = [mark("step[DECODE bs=8]", base, base + 1000)]
    if lines is None:
        events.append(launch(base + 5, base + 1, "cudaGraphLaunch"))
    for i, name in enumerate(names):
        if lines is not None:
            events += [frame(f"vllm/m.py({lines[i]}): f", base + 10 * i + 1, base + 10 * i + 9)]
            events += [launch(base + 10 * i + 5, base + i + 1)]
        correlation = base + 1 if lines is None else base + i + 1
        events.append(kernel(name, base + 2000 + 10 * i, base + 2005 + 10 * i, correlation))
    return events


def located(mapped: Mapped) -> list[tuple[str, str]]:
    return [
        (mapped.sites[site].location.removeprefix("vllm/m.py:").removesuffix(" f"), MATCHED[how])
        for site, how in zip(mapped.kernel_site, mapped.matched, strict=True)
    ]


def mapped_lines(eager: list[str], lines: list[str], graph: list[str]) -> list[tuple[str, str]]:
    return located(map_through(analysed(step(graph, 0)), analysed(step(eager, 0, lines=lines))))


def test_graph_kernels_get_the_lines_of_their_places() -> None:
    """The same kernel launched from two lines gets each at its place, which names alone could not tell."""
    assert mapped_lines(["gemm", "norm", "gemm"], ["1", "2", "3"], ["gemm", "norm", "gemm"]) == [
        ("1", "position"),
        ("2", "position"),
        ("3", "position"),
    ]


def test_a_compiled_kernel_takes_the_place_of_the_one_it_replaces() -> None:
    """Between two kernels that both traces have, one of the same category for another is its counterpart."""
    eager, graph = ["gemm_a", "rms_norm_kernel", "gemm_b"], ["gemm_a", "triton_red_fused_rms_norm_0", "gemm_b"]
    assert mapped_lines(eager, ["1", "2", "3"], graph)[1] == ("2", "position")


def test_a_kernel_that_replaces_several_lines_stays_unresolved() -> None:
    """Two norms fused into one kernel: no single line is its source."""
    eager = ["gemm_a", "rms_norm_kernel", "rms_norm_kernel", "rotary_kernel", "gemm_b"]
    found = mapped_lines(
        eager, ["1", "2", "3", "4", "5"], ["gemm_a", "triton_red_fused_3", "triton_poi_fused_4", "gemm_b"]
    )
    assert [how for _, how in found] == ["position", "none", "none", "position"]


def test_an_alignment_with_a_choice_chooses_nothing() -> None:
    """One fill where the mapping trace has two from different lines: its line is unknown; from one line: known."""
    assert (
        mapped_lines(["gemm", "fill", "fill", "norm"], ["1", "2", "3", "4"], ["gemm", "fill", "norm"])[1][1] == "none"
    )
    assert mapped_lines(["gemm", "fill", "fill", "norm"], ["1", "2", "2", "4"], ["gemm", "fill", "norm"])[1][0] == "2"


def test_names_help_where_places_do_not() -> None:
    """Kernels outside of steps have no place; a name that is launched from one line only tells."""
    eager = analysed([*step(["gemm"], 0, lines=["1"]), *step(["gemm"], 5000, lines=["1"])])
    for stage, line in (("all", "1"), ("prefill", "unresolved")):
        formal = trace_of([kernel("gemm", 10, 20, 99)])
        found = map_through(Analysed(formal, find_stages(formal, stage), attribute(formal)), eager)
        assert located(found)[0][0] == line, "a name of another stage says nothing about this one"


def test_what_is_known_directly_is_kept() -> None:
    """A kernel with a line of its own keeps it, whatever the mapping trace says."""
    formal, eager = analysed(step(["gemm"], 0, lines=["7"])), analysed(step(["gemm"], 0, lines=["1"]))
    assert located(map_through(formal, eager)) == [("7", "direct")]


def share(trace: Trace, which: np.ndarray[Any, Any]) -> float:
    time = trace.kernels.end - trace.kernels.begin
    return float(100 * time[which].sum() / time.sum())


def captured(name: str) -> Analysed:
    trace = read(next((DATA / name).glob("*.gz")))
    return Analysed(trace, find_stages(trace), attribute(trace))


@real
@pytest.mark.parametrize("engine", ["vllm", "sgl"])
def test_real_traces_are_attributed_to_lines(engine: str) -> None:
    """Of an eager trace all GPU time has its line; of a graph trace nearly all has it through that one."""
    eager, graph = captured(f"{engine}/traces/eager/decode"), captured(f"{engine}/traces/graph/decode")
    assert share(eager.trace, eager.attribution.located()[eager.attribution.kernel_site]) > 99
    assert share(graph.trace, graph.attribution.located()[graph.attribution.kernel_site]) == 0
    mapped = map_through(graph, eager)
    assert share(graph.trace, mapped.matched != MATCHED.index("none")) > 97
