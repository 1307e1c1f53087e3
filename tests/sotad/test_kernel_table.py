"""Kernel tables of small traces with known times, and of a trace made by torch.profiler."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.analysis.kernels import (
    OUTSIDE,
    UNNAMED,
    Tables,
    TraceError,
    compare,
    make_tables,
    read_tables,
    row_id,
)

Event = dict[str, Any]


def event(name: str, begin_us: float, duration_us: float, cat: str = "cpu_op", tid: int = 1, **args: Any) -> Event:
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "ts": begin_us,
        "dur": duration_us,
        "pid": 1,
        "tid": tid,
        "args": args,
    }


def step(text: str, begin_us: float, duration_us: float) -> Event:
    return event(f"step[{text}]", begin_us, duration_us, "user_annotation")


TRACE = [
    {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}},
    step("PREFILL bs=2 toks=64", 0, 100),
    event("aten::linear", 10, 60),
    event("aten::addmm", 20, 40),
    step("DECODE bs=8 toks=8", 200, 50),
    event("attention", 205, 25, "user_annotation"),
    event("aten::bmm", 210, 15),
    event("aten::addmm", 235, 10),
    step("DECODE bs=4 toks=4", 300, 50),
    event("aten::addmm", 310, 20),
    event("aten::empty", 500, 5),
]


def times(tables: Tables) -> dict[str, float]:
    return {row["row_id"]: row["time_ms"] for row in tables.rows}


def test_operators_count_by_self_time_and_stage() -> None:
    """An operator's time is its own, without what it calls, in the stage of its step."""
    assert times(make_tables(TRACE)) == pytest.approx(
        {
            "prefill/aten::linear": 0.020,
            "prefill/aten::addmm": 0.040,
            f"prefill/{UNNAMED}": 0.040,
            "decode/aten::addmm": 0.030,
            "decode/attention/aten::bmm": 0.015,
            f"decode/{UNNAMED}": 0.055,
            f"{OUTSIDE}/aten::empty": 0.005,
        }
    )


def test_rows_and_stages_say_what_they_are() -> None:
    """Rows have counts and shares that sum to the stage; stages have steps, batch size and tokens."""
    tables = make_tables(TRACE)
    row = next(row for row in tables.rows if row["row_id"] == "decode/aten::addmm")
    assert (row["count"], row["category"], row["annotation"]) == (2, "cpu_op", None)
    assert row["share"] == pytest.approx(30.0)
    for stage in ("prefill", "decode", OUTSIDE):
        assert sum(row["share"] for row in tables.rows if row["stage"] == stage) == pytest.approx(100)
    decode = tables.stages["decode"]
    assert (decode["row_id"], decode["count"], decode["mean_batch_size"], decode["tokens"]) == (
        "decode/step",
        2,
        6,
        12,
    )
    assert decode["total_ms"] == pytest.approx(0.1)


def test_kernels_belong_to_the_step_that_launched_them() -> None:
    """A kernel that runs after its step ended, or in the next one, counts where it was launched."""
    events = [
        *TRACE,
        event("cudaLaunchKernel", 50, 2, "cuda_runtime", correlation=7),
        event("gemm", 210, 30, "kernel", tid=7, correlation=7),
        event("orphan", 215, 10, "kernel", tid=7),
    ]
    assert times(make_tables(events)) == pytest.approx({"prefill/gemm": 0.030, "decode/orphan": 0.010})


def test_extend_is_prefill_and_other_words_are_stages() -> None:
    """What another engine calls EXTEND is compared with PREFILL; unknown words stay apart."""
    steps = [step("EXTEND bs=4 toks=8192", 0, 10), step("MIXED bs=4", 20, 10), event("op", 1, 2)]
    assert set(make_tables(steps).stages) == {"prefill", "mixed"}


@given(st.permutations(TRACE))
def test_order_of_events_does_not_matter(events: list[Event]) -> None:
    """Shuffled events give the same tables."""
    assert make_tables(events) == make_tables(TRACE)


def test_threads_do_not_nest_in_each_other() -> None:
    """Operators of two threads at the same time both keep their whole time."""
    tables = make_tables([step("DECODE bs=1 toks=1", 0, 100), event("a", 10, 50), event("b", 20, 10, tid=2)])
    assert times(tables) == pytest.approx({"decode/a": 0.050, "decode/b": 0.010, f"decode/{UNNAMED}": 0.040})


def test_child_that_ends_late_by_rounding_takes_no_time_twice() -> None:
    """Self times never sum to more than the outermost operator lasted."""
    tables = make_tables([step("DECODE bs=1 toks=1", 0, 30), event("a", 0, 10), event("b", 8, 2.001)])
    assert times(tables)["decode/a"] == pytest.approx(0.008)


def test_row_ids_are_stable_and_distinct() -> None:
    """Plain names are kept; odd or long ones are marked, and different names never share an id."""
    assert row_id("decode", None, "aten::addmm") == "decode/aten::addmm"
    odd, similar = (
        row_id("decode", None, "void k<int*>(float)"),
        row_id("decode", None, "void k<int_>(float)"),
    )
    assert odd != similar and odd == "decode/void k<int_>(float)~" + odd[-8:]
    assert row_id("decode", "a", "b") != row_id("decode", None, "a/b")
    assert len(row_id("decode", None, "x" * 500)) < 120


def test_comparison_is_per_token_and_sorted_by_what_it_costs() -> None:
    """Twice the tokens in the same time is half the time per token, and the costliest row is first."""
    target = [
        step("DECODE bs=4 toks=4", 0, 100),
        event("gemm", 0, 60),
        event("copy", 60, 20),
        event("norm", 80, 4),
    ]
    leader = [step("DECODE bs=8 toks=8", 0, 100), event("gemm", 0, 60), event("norm", 80, 16)]
    rows = compare(make_tables(target), make_tables(leader))
    assert [row["row_id"] for row in rows][:3] == ["decode/step", "decode/gemm", "decode/copy"]
    found = {row["row_id"]: row for row in rows}
    gemm, copy, norm = (found[f"decode/{name}"] for name in ("gemm", "copy", "norm"))
    assert (gemm["us_per_token"], gemm["leader_us_per_token"]) == pytest.approx((15, 7.5))
    assert (gemm["extra_ms"], gemm["leader_time_ms"]) == pytest.approx((0.030, 0.060))
    assert copy["extra_ms"] == pytest.approx(0.020) and (copy["in_target"], copy["in_leader"]) == (
        True,
        False,
    )
    assert norm["extra_ms"] == pytest.approx(-0.004)
    assert found["decode/step"]["extra_ms"] == pytest.approx(0.050)


def test_trace_compared_with_itself_shows_nothing() -> None:
    """Two equal traces have no extra milliseconds anywhere."""
    rows = compare(make_tables(TRACE), make_tables(TRACE))
    assert rows and all(row["extra_ms"] == 0 for row in rows)


def test_plain_and_compressed_files_are_the_same(tmp_path: Path) -> None:
    """Both forms that the profiler writes are read, whatever they are called."""
    text = json.dumps({"traceEvents": TRACE}).encode()
    (tmp_path / "a.json").write_bytes(text)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(text, mtime=0))
    assert read_tables(tmp_path / "a.json") == read_tables(tmp_path / "b.json.gz") == make_tables(TRACE)


WHOLE = json.dumps({"traceEvents": TRACE}).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(WHOLE, mtime=0)[:-20], "cut short or damaged"),
        (gzip.compress(WHOLE, mtime=0)[:40] + b"\0" * 40, "cut short or damaged"),
        (WHOLE[: len(WHOLE) // 2], "not whole JSON"),
        (b"", "not whole JSON"),
        (b"[1, 2]", "traceEvents"),
        (b'{"other": 1}', "traceEvents"),
        (b'{"traceEvents": []}', "no step"),
        (json.dumps([event("aten::mm", 0, 1)]).encode(), "no step"),
        (json.dumps([step("DECODE bs=1 toks=1", 0, 5)]).encode(), "no operator and no kernel"),
    ],
)
def test_bad_trace_is_one_clear_error(tmp_path: Path, content: bytes, said: str) -> None:
    """A trace that cannot be used says which file, and why, in one line."""
    path = tmp_path / "t.json.gz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=said) as refusal:
        read_tables(path)
    assert str(refusal.value).startswith(f"{path}: ") and "\n" not in str(refusal.value)


def test_missing_trace_is_named(tmp_path: Path) -> None:
    """A path without a file is an error of the same kind."""
    with pytest.raises(TraceError, match="No such file"):
        read_tables(tmp_path / "none.json")


def test_trace_of_the_torch_profiler(tmp_path: Path) -> None:
    """A real trace gives the operators that ran, in their stages, and never more time than the steps took."""
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile, record_function

    weight = torch.ones(256, 256)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            with record_function("step[DECODE bs=2 toks=2]"), record_function("mlp"):
                torch.relu(torch.addmm(weight, weight, weight))
        with record_function("step[PREFILL bs=1 toks=16]"):
            torch.bmm(weight[None], weight[None])
    profiler.export_chrome_trace(str(tmp_path / "trace.json.gz"))
    tables = read_tables(tmp_path / "trace.json.gz")
    rows = {row["row_id"]: row for row in tables.rows}
    assert rows["decode/mlp/aten::addmm"]["count"] == 3
    assert rows["decode/mlp/aten::relu"]["count"] == 3
    assert rows["prefill/aten::bmm"]["count"] == 1
    decode = tables.stages["decode"]
    assert (decode["count"], decode["mean_batch_size"], decode["tokens"]) == (3, 2, 6)
    spent = sum(row["time_ms"] for row in tables.rows if row["stage"] == "decode")
    assert spent == pytest.approx(decode["total_ms"])
