"""What flows and nodes of CUDA graphs prove: launches without correlations, and one source for every replay."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.analysis.attribution import Attribution, Site, attribute
from sotad.analysis.joins import Tied, by_correlation, by_flow, launches_of, tied
from sotad.analysis.mapping import MATCHED, Analysed, Mapped, agreed, map_through
from sotad.analysis.mappings import Reference, mapped
from sotad.analysis.stages import find_stages
from sotad.analysis.triage import Request, analyse
from sotad.trace.columns import Trace
from sotad.trace.reader import read
from tests.sotad.rig.trace_events import PID, Event, event, frame, kernel, launch, mark, trace_of

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOTAD_DATA", ROOT.parent / "shared" / "data")) / "h200"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no captured traces here")


def start(ts: float, identity: int, cat: str = "ac2g", tid: int = PID) -> Event:
    return {"ph": "s", "id": identity, "pid": PID, "tid": tid, "ts": ts, "cat": cat, "name": cat}


def finish(ts: float, identity: int, cat: str = "ac2g") -> Event:
    return {"ph": "f", "id": identity, "pid": 0, "tid": 7, "ts": ts, "cat": cat, "name": cat, "bp": "e"}


def call(begin: float, correlation: int | None = None) -> Event:
    return event("cuda_runtime", "cudaLaunchKernel", begin, begin + 1, correlation=correlation)


def launches(*events: Event) -> list[int]:
    """The beginning of the launch of each kernel in microseconds; -1 where none is known."""
    trace = trace_of([mark("first", 0, 1), *events])
    found = launches_of(trace.kernels, trace)
    return [int(trace.launches.begin[at] // 1000) if at >= 0 else -1 for at in found]


ARROW = [start(10, 5), finish(100, 5)]


@pytest.mark.parametrize("of_kernel", [None, 0, 31])
@pytest.mark.parametrize("of_launch", [None, 0, 32])
def test_a_flow_ties_what_no_correlation_ties(of_kernel: int | None, of_launch: int | None) -> None:
    """Where one of the two has no correlation, the flow between them tells; where both have others, it does not."""
    both = bool(of_kernel and of_launch)
    assert launches(call(10, of_launch), kernel("k", 100, 110, of_kernel), *ARROW) == [-1 if both else 10]


def test_a_correlation_is_believed_before_a_flow() -> None:
    """A kernel whose flow begins at another launch than that of its correlation is the latter's, and counted."""
    events = [call(10, 1), call(20, 2), kernel("k", 100, 110, 2), *ARROW]
    assert launches(*events) == [20]
    trace = trace_of(events)
    assert tied(trace.kernels, trace) == Tied(all=1, alone=0, against=1)


def test_a_flow_tells_apart_launches_that_share_a_correlation() -> None:
    """Two processes that count alike: the arrow says whose kernel it is."""
    assert launches(call(10, 1), call(20, 1), kernel("k", 100, 110, 1), *ARROW) == [10]


@pytest.mark.parametrize(
    "arrows",
    [
        [start(10, 5)],
        [finish(100, 5)],
        [start(10, 5), finish(100, 6)],
        [start(10, 5), finish(100, 5, "fwdbwd")],
        [start(10, 0), finish(100, 0)],
        [start(11, 5), finish(100, 5)],
        [start(10, 5), finish(101, 5)],
        [start(10, 5, tid=71), finish(100, 5)],
        [*ARROW, start(20, 5)],
        [*ARROW, start(20, 6), finish(100, 6)],
    ],
    ids=[
        "start",
        "finish",
        "ids",
        "categories",
        "id 0",
        "start elsewhere",
        "finish elsewhere",
        "thread",
        "two",
        "both",
    ],
)
def test_a_flow_that_proves_nothing_ties_nothing(arrows: list[Event]) -> None:
    """Loose ends, ends at no event, and arrows that lead from two launches."""
    assert launches(call(10), call(20), kernel("k", 100, 110), *arrows) == [-1]


def test_doubled_events_and_steps_of_a_flow() -> None:
    """The same end written twice says nothing else, and a step is an end; a graph's arrow ends at many kernels."""
    step = {**finish(100, 5), "ph": "t"}
    kernels = [kernel("k", 100, 110), kernel("k", 120, 130)]
    assert launches(call(10), *kernels, start(10, 5), *ARROW, step, finish(120, 5)) == [10, 10]


SMALL = st.integers(0, 3)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(SMALL, SMALL, st.booleans()), max_size=5),
    st.lists(st.tuples(SMALL, SMALL, st.booleans()), max_size=7),
)
def test_flows_against_a_plain_search(starts: list[tuple[int, int, bool]], ends: list[tuple[int, int, bool]]) -> None:
    """The launch of each kernel by flow is the only one that some arrow leads from, over any arrows."""
    cats = {True: "ac2g", False: "other"}
    events = [call(10 + i) for i in range(3)] + [kernel("k", 100 + 10 * i, 105 + 10 * i) for i in range(3)]
    events += [start(10 + at, identity, cats[cat]) for at, identity, cat in starts]
    events += [finish(100 + 10 * at, identity, cats[cat]) for at, identity, cat in ends]
    trace = trace_of(events)
    sources: dict[tuple[int, bool], set[int]] = defaultdict(set)
    for at, identity, cat in starts:
        if at < 3 and identity:
            sources[identity, cat].add(at)
    expected = []
    for row in range(3):
        arrows = [sources[identity, cat] for at, identity, cat in ends if at == row]
        from_one = set().union(*(arrow for arrow in arrows if len(arrow) == 1))
        expected.append(from_one.pop() if len(from_one) == 1 else -1)
    begins = {int(begin): row for row, begin in enumerate(trace.launches.begin)}
    found = by_flow(trace.kernels, trace, np.ones(3, np.bool_))
    assert [begins.get(int(trace.launches.begin[at]), -1) if at >= 0 else -1 for at in found] == expected
    few = by_flow(trace.kernels, trace, np.array([False, True, False]))
    assert few.tolist() == [-1, found[1], -1], "what is not asked does not change what is"


def test_a_line_is_found_through_a_flow() -> None:
    """A kernel without correlation comes from the frame around the call that its flow begins at."""
    trace = trace_of([frame("vllm/m.py(7): f", 0, 50), call(10), kernel("k", 100, 110), *ARROW])
    found = attribute(trace)
    assert found.sites[found.kernel_site[0]].location == "vllm/m.py:7 f"


CAPTURED = [f"{engine}/traces/{kind}" for engine in ("vllm", "sgl") for kind in ("graph/decode", "eager/decode")]


@needs_data
@pytest.mark.parametrize("folder", [*CAPTURED, "vllm/traces/graph/prefill", "sgl/traces/graph/prefill"])
def test_flows_of_captured_traces_say_what_correlations_say(folder: str) -> None:
    """In real traces every kernel and copy has both, they agree, and without correlations flows find the same."""
    trace = read(next((DATA / folder).glob("*.gz")))
    for work in (trace.kernels, trace.copies):
        assert tied(work, trace) == Tied(all=len(work), alone=0, against=0)
        known = by_correlation(work, trace.launches)
        bare = replace(work, correlation=np.full(len(work), -1, np.int64))
        assert (known >= 0).all() and (launches_of(bare, trace) == known).all()


# --- nodes --------------------------------------------------------------------------------------------------


def replay(names: Sequence[str], nodes: Sequence[int], base: int, text: str = "step[DECODE bs=8]") -> list[Event]:
    """A step whose kernels one graph launched, with the id of each one's node."""
    events = [mark(text, base, base + 1000), launch(base + 5, base + 1, "cudaGraphLaunch")]
    for i, (name, node) in enumerate(zip(names, nodes, strict=True)):
        made = kernel(name, base + 2000 + 10 * i, base + 2005 + 10 * i, base + 1)
        made["args"] |= {"graph id": 3, "graph node id": (3 << 32) + node} if node else {}
        events.append(made)
    return events


def eager(names: Sequence[str], text: str = "step[DECODE bs=8]") -> Analysed:
    """A step whose kernels are launched one by one, the first from line 1, the second from line 2, ..."""
    events = [mark(text, 0, 1000)]
    for i, name in enumerate(names):
        events += [frame(f"vllm/m.py({i + 1}): f", 10 * i + 1, 10 * i + 9), launch(10 * i + 5, i + 1)]
        events.append(kernel(name, 2000 + 10 * i, 2005 + 10 * i, i + 1))
    return analysed(events)


def analysed(events: list[Event]) -> Analysed:
    trace = trace_of(events)
    return Analysed(trace, find_stages(trace), attribute(trace))


def lines(found: Mapped) -> list[str]:
    """The line of each kernel, `-` where none is known."""
    known = found.matched != MATCHED.index("none")
    places = [found.sites[site].location.split(":")[-1].split()[0] for site in found.kernel_site]
    return [place if is_known else "-" for place, is_known in zip(places, known, strict=True)]


WHOLE, CUT = ["gemm", "fill", "fill", "norm"], ["gemm", "fill", "norm"]


def test_a_node_that_one_replay_explains_is_explained_in_all() -> None:
    """A replay of which a kernel is missing leaves a choice by order alone; its nodes leave none."""
    formal = [replay(WHOLE, [1, 2, 3, 4], 0), replay(CUT, [1, 3, 4], 5000)]
    found = map_through(analysed([*formal[0], *formal[1]]), eager(WHOLE))
    assert (lines(found), found.disputed) == (["1", "2", "3", "4", "1", "3", "4"], 0)
    nameless = map_through(analysed([*formal[0], *replay(CUT, [0, 0, 0], 5000)]), eager(WHOLE))
    assert lines(nameless)[4:] == ["1", "-", "4"], "without nodes only what the order proves"


def test_a_node_whose_replays_disagree_is_unresolved() -> None:
    """Two replays in which one node stands at two places prove neither; other nodes keep theirs."""
    formal = [*replay(WHOLE, [1, 2, 3, 4], 0), *replay(WHOLE, [1, 3, 2, 4], 5000)]
    found = map_through(analysed(formal), eager(WHOLE))
    assert (lines(found), found.disputed) == (["1", "-", "-", "4", "1", "-", "-", "4"], 4)
    assert found.sites[found.kernel_site[1]].replay, "what is left is the line that replays the graph"


def test_a_node_with_another_function_is_another() -> None:
    """A graph updated between two replays runs another kernel in the same node: neither speaks for the other."""
    formal = [*replay(["gemm", "norm"], [1, 2], 0), *replay(["gemm", "rope"], [1, 2], 5000)]
    assert lines(map_through(analysed(formal), eager(["gemm", "norm"])))[3] == "-"


def test_stages_mapped_by_two_traces_agree_on_a_node() -> None:
    """A graph that prefill and decode replay has one source, also where each stage has a mapping trace of its own."""
    prefill = "step[EXTEND bs=1 toks=64]"
    formal = analysed([*replay(WHOLE, [1, 2, 3, 4], 0), *replay(WHOLE, [1, 2, 3, 4], 5000, prefill)])
    using = [Reference("decode", eager(WHOLE)), Reference("prefill", eager(["norm", *WHOLE], prefill))]
    found = mapped(formal.trace, formal.stages, formal.attribution, using)
    assert (lines(found), found.disputed) == (["-"] * 8, 8)
    same = [Reference("decode", eager(WHOLE)), Reference("prefill", eager(WHOLE, prefill))]
    assert lines(mapped(formal.trace, formal.stages, formal.attribution, same)) == ["1", "2", "3", "4"] * 2


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=9))
def test_agreement_over_any_findings(rows: list[tuple[int, int, int, bool]]) -> None:
    """All kernels of a node and name get one place or none; those without node and those known directly keep theirs."""
    made = [replay([f"n{name}"], [node], 5000 * i) for i, (node, name, _, _) in enumerate(rows)]
    trace = trace_of([mark("x", 0, 1), *(each for part in made for each in part)])
    sites = [Site("unresolved", replay=True), *(Site(f"m.py:{line} f") for line in (1, 2, 3))]
    site = np.array([place for *_, place, _ in rows], np.int32)
    how = [
        MATCHED.index("position" if sure else "name") if place else MATCHED.index("none") for *_, place, sure in rows
    ]
    own = np.zeros(len(rows), np.int32)
    found = agreed(trace.kernels, Mapped(sites, site, np.array(how, np.int32)), own)
    told: dict[tuple[int, int], set[int]] = defaultdict(set)
    for node, name, place, _ in rows:
        told[node, name] |= {place} - {0}
    for at, (node, name, place, _) in enumerate(rows):
        agreed_on = next(iter(told[node, name])) if len(told[node, name]) == 1 else 0
        assert found.kernel_site[at] == (agreed_on if node else place)
        assert (found.matched[at] == MATCHED.index("none")) == (found.kernel_site[at] == 0)


@needs_data
@pytest.mark.parametrize("engine", ["vllm", "sgl"])
def test_nodes_make_no_known_line_of_a_real_graph_wrong(engine: str) -> None:
    """With the n-th kernel of each replay as its n-th node, real steps, which are all alike, keep what they had."""
    trace, source = (read(next((DATA / f"{engine}/traces/{kind}/decode").glob("*.gz"))) for kind in ("graph", "eager"))
    using = Analysed(source, find_stages(source), attribute(source))
    stages, own = find_stages(trace), attribute(trace)
    before = map_through(Analysed(trace, stages, own), using)
    node, graph = _counted(trace, own)
    numbered = replace(trace, kernels=replace(trace.kernels, node=node, graph=graph))
    after = map_through(Analysed(numbered, stages, own), using)
    assert after.disputed == 0
    assert lines(after) == lines(before)


def _counted(trace: Trace, own: Attribution) -> tuple[Any, Any]:
    """Ids of nodes as a graph that holds the kernels of each replay in their order would have."""
    replayed = np.array([site.replay for site in own.sites])[own.kernel_site]
    node = np.full(len(trace.kernels), -1, np.int64)
    for correlation in np.unique(trace.kernels.correlation[replayed]):
        rows = np.flatnonzero(trace.kernels.correlation == correlation)
        node[rows] = (1 << 32) + 1 + np.arange(len(rows))
    return node, np.where(node > 0, 1, -1)


def test_the_analysis_counts_flows_and_graphs(tmp_path: Path) -> None:
    """Totals and each file's own; contradictions are a note."""
    events = [*replay(WHOLE, [1, 2, 3, 4], 0), *replay(CUT, [1, 3, 4], 5000)]
    lone = [call(6100, 9), kernel("lone", 8000, 8001, 8), start(6100, 9), finish(8000, 9), call(6200, 8)]
    path = tmp_path / "a.trace.json"
    path.write_text(json.dumps([*events, *lone]))
    tables = analyse(Request([path, path])).tables
    one = {"launches": 2, "kernels": 7, "nodes": 4}
    assert tables["files"][0]["cuda_graphs"] == one
    assert tables["cuda_graphs"] == {key: 2 * count for key, count in one.items()}
    assert tables["files"][0]["flows"] == {"events": 2, "all": 1, "alone": 0, "against": 1}
    assert any("from another launch than their correlation" in text for text in tables["warnings"])
