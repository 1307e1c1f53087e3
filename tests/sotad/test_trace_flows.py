"""Flows and ids of CUDA graphs in a trace: columns as the file says, whatever is wrong with some of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.trace.columns import FLOW_PHASES, Trace
from sotad.trace.reader import read

Event = dict[str, Any]
IDS: list[tuple[Any, int | None]] = [
    (3, 3), (0, 0), ("7", 7), ("0x1F", 31), (4.0, 4), (2**61 + 9, 2**61 + 9), (2**64 - 1, (2**64 - 1) % 2**62),
    (-1, None), (1.5, None), ("loop", None), ("0xzz", None), ("", None), (None, None), ({"a": 1}, None), (1e300, None),
]  # fmt: skip


def flow(phase: str, ts: Any, identity: Any = 5, **changes: Any) -> Event:
    """One end of an arrow at the kernel, or at another process and thread."""
    base = {"ph": phase, "id": identity, "pid": 0, "tid": 7, "ts": ts, "cat": "ac2g", "name": "ac2g"}
    return {**base, **changes}


def kernel(ts: float = 100, **args: Any) -> Event:
    return {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": ts, "dur": 2, "args": args}


def call(name: str, ts: float, **args: Any) -> Event:
    return {"ph": "X", "cat": "cuda_runtime", "name": name, "pid": 70, "tid": 70, "ts": ts, "dur": 1, "args": args}


def trace_of(folder: Path, events: list[Event], block: int = 1 << 20) -> Trace:
    path = folder / "t.json"
    path.write_text(json.dumps(events))
    return read(path, block)


Row = tuple[int, int, tuple[str, str], str, str]


def rows_of(trace: Trace) -> list[Row]:
    flows = trace.flows
    return [
        (
            int(flows.time[i]),
            int(flows.identity[i]),
            trace.threads[flows.thread[i]],
            flows.categories[flows.category[i]],
            FLOW_PHASES[flows.phase[i]],
        )
        for i in range(len(flows))
    ]


@st.composite
def flows(draw: st.DrawFn) -> tuple[Event, Row | str]:
    """A flow event, and its row or why it has none."""
    given_id, known = draw(st.sampled_from(IDS))
    phase, category = draw(st.sampled_from(FLOW_PHASES)), draw(st.sampled_from(["ac2g", "fwdbwd", "kernel", ""]))
    tid, ts = draw(st.sampled_from([7, 70])), draw(st.sampled_from([1, 2.5, 100, None, "soon"]))
    event = flow(phase, ts, given_id, tid=tid, cat=category)
    if given_id is None and draw(st.booleans()):
        del event["id"]
    if not isinstance(ts, int | float):
        return event, "flows: no usable ts"
    if known is None:
        return event, "flows: no usable id"
    return event, (round(ts * 1000), known, ("0", str(tid)), category, phase)


@settings(deadline=None, max_examples=80)
@given(st.lists(flows(), max_size=9), st.sampled_from([1, 60, 1 << 20]), st.randoms())
def test_columns_of_flows(tmp_path_factory: pytest.TempPathFactory, drawn: Any, block: int, random: Any) -> None:
    """Every flow that has an id and a time is a row, the others are counted; the file's order does not matter."""
    folder = tmp_path_factory.mktemp("t")
    listed = [kernel(0), *(event for event, _ in drawn)]
    trace = trace_of(folder, listed, block)
    assert Counter(rows_of(trace)) == Counter(row for _, row in drawn if not isinstance(row, str))
    assert trace.dropped == Counter(row for _, row in drawn if isinstance(row, str))
    assert (trace.events, len(trace.kernels)) == (len(listed), 1)
    assert trace.flows.time.tolist() == sorted(trace.flows.time.tolist())
    random.shuffle(listed)
    assert rows_of(trace_of(folder, listed)) == rows_of(trace)


def test_a_trace_without_flows_has_an_empty_table(tmp_path: Path) -> None:
    """No flows is no error."""
    assert len(trace_of(tmp_path, [kernel()]).flows) == 0


def test_flows_of_merged_ranks_stay_apart(tmp_path: Path) -> None:
    """Equal ids of two ranks in one file are two arrows, as their correlations are."""
    ends = [flow("f", 1, 5, pid=f"[TP{rank}] 0") for rank in range(3)]
    assert trace_of(tmp_path, ends).flows.identity.tolist() == [(rank << 48) + 5 for rank in range(3)]


NODE = (9 << 32) | 17


def test_nodes_of_graphs(tmp_path: Path) -> None:
    """Ids of graph and node as numbers, as text, of 64 bits; 0 and what is no number are none."""
    said: list[tuple[Event, int, int]] = [
        ({"graph id": 9, "graph node id": NODE}, 9, NODE),
        ({"graph id": 9.0, "graph node id": str(NODE)}, 9, NODE),
        ({"graph id": 0, "graph node id": 0}, -1, -1),
        ({"graph id": None, "graph node id": None}, -1, -1),
        ({"graph id": "?", "graph node id": 2.5}, -1, -1),
        ({"graph id": 1, "graph node id": 2**64 - 1}, 1, (2**64 - 1) % 2**62),
        ({}, -1, -1),
    ]
    for block in (1, 1 << 20):
        trace = trace_of(tmp_path, [kernel(10 * i, **args) for i, (args, _, _) in enumerate(said)], block)
        found = zip(trace.kernels.graph.tolist(), trace.kernels.node.tolist(), strict=True)
        assert list(found) == [(graph, node) for _, graph, node in said]


def test_kernels_that_differ_by_node_alone_have_an_order(tmp_path: Path) -> None:
    """Kernels alike in all but their node come in the same order whatever the file's."""
    alike = [kernel(**{"graph id": 1, "graph node id": node}) for node in (3, 1, 2)]
    for listed in (alike, alike[::-1]):
        assert trace_of(tmp_path, listed).kernels.node.tolist() == [1, 2, 3]


def test_no_graphs_take_no_memory(tmp_path: Path) -> None:
    """Columns of ids that no kernel has are not stored; a small one that somebody has does not cost other tables."""
    trace = trace_of(tmp_path, [kernel(ts) for ts in range(1000)], block=500)
    assert trace.kernels.node.strides == trace.kernels.graph.strides == (0,)
    assert trace.kernels.node.tolist() == [-1] * 1000
    copy = {**kernel(3), "cat": "gpu_memcpy"}
    both = trace_of(tmp_path, [copy, *(kernel(ts, **{"graph node id": ts + 1}) for ts in range(9))], block=200)
    assert both.copies.node.tolist() == [-1] and both.kernels.node.tolist() == list(range(1, 10))


def test_a_call_that_a_flow_ties_to_work_is_a_launch(tmp_path: Path) -> None:
    """A call without `launch` in its name counts when a flow leads from it to work that no correlation ties."""
    calls = [
        call("cudaMemcpyAsync", 1, correlation=4),
        call("cudaStreamWaitEvent", 5, correlation=6),
        call("INVALID", 9),
    ]
    at = {"pid": 70, "tid": 70}
    arrows = [flow("s", 1, 4, **at), flow("f", 100, 4), flow("s", 5, 6, **at), flow("s", 9, 8, **at), flow("f", 200, 8)]
    trace = trace_of(tmp_path, [kernel(100), kernel(200, correlation=77), *calls, *arrows])
    assert sorted(trace.names[name] for name in trace.launches.name) == ["INVALID", "cudaMemcpyAsync"]


def test_flows_at_one_moment_cost_no_square(tmp_path: Path) -> None:
    """Thousands of events and flows at one time and place, which prove nothing, are read like others."""
    many = [kernel(1, correlation=None)] * 3000 + [flow("f", 1, 1), flow("s", 1, 1)] * 3000
    trace = trace_of(tmp_path, [*many, *[call("x", 1)] * 3000])
    assert (len(trace.kernels), len(trace.flows), len(trace.launches)) == (3000, 6000, 0)
    assert np.unique(trace.flows.time).tolist() == [0]
