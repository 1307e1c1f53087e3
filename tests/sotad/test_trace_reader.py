"""The trace reader: the same columns as a plain reading, whatever the layout, and clear words for bad files."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections import Counter
from dataclasses import fields
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.trace.columns import Frames, Spans, Trace, Work
from sotad.trace.errors import TraceError
from sotad.trace.reader import read

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOTAD_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "h200").is_dir(), reason="no captured traces here")

TABLES = {
    "kernel": "kernels",
    "gpu_memcpy": "copies",
    "gpu_memset": "copies",
    "cpu_op": "ops",
    "cuda_runtime": "launches",
    "cuda_driver": "launches",
    "python_function": "frames",
    "user_annotation": "marks",
    "gpu_user_annotation": "gpu_marks",
}
ON_DEVICE = ("kernels", "copies", "gpu_marks")
Row = tuple[Any, ...]


def kernel(**changes: Any) -> dict[str, Any]:
    """A kernel event; `args` are added to its own."""
    args = {"device": 0, "stream": 7, "correlation": 11, "External id": 5, **changes.pop("args", {})}
    base = {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 100.5, "dur": 2.25, "args": args}
    return {**base, **changes}


def written(folder: Path, content: Any, name: str = "t.json") -> Path:
    """A file of this text, these bytes, or the JSON of this."""
    path = folder / name
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows_of(trace: Trace) -> dict[str, list[Row]]:
    """Every table with the file's own words instead of indexes, in the table's order."""
    return {name: _rows(trace, getattr(trace, name)) for name in set(TABLES.values())}


def _rows(trace: Trace, table: Spans) -> list[Row]:
    found = []
    for i in range(len(table)):
        row: list[Any] = [int(table.begin[i]), int(table.end[i]), trace.names[table.name[i]]]
        row += [trace.threads[table.thread[i]], int(table.external[i]), int(table.correlation[i])]
        if isinstance(table, Work):
            device, stream = trace.streams[table.stream[i]]
            assert device == table.device[i]
            row += [trace.devices[device], stream]
        if isinstance(table, Frames):
            row += [int(table.identity[i]), int(table.parent[i])]
        found.append(tuple(row))
    return found


def plain_rows(text: str) -> tuple[int, dict[str, list[Row]], Counter[str]]:
    """What the format says, the slow way: origin, rows of each table, how many of each table were lost."""
    whole = json.loads(text, parse_float=Decimal)
    events = whole["traceEvents"] if isinstance(whole, dict) else whole
    times = [_ns(event["ts"]) for event in events if event["ph"] != "M" and "ts" in event]
    origin = min(times, default=0)
    tables: dict[str, list[Row]] = {name: [] for name in set(TABLES.values())}
    lost: Counter[str] = Counter()
    for event in events:
        table = TABLES.get(event.get("cat", ""))
        if table is None:
            continue
        if event["ph"] != "X" or _ns(event.get("dur", -1)) < (1 if table in ON_DEVICE else 0):
            lost[table] += 1
            continue
        args = event.get("args", {})
        begin = _ns(event["ts"]) - origin
        row: list[Any] = [begin, begin + _ns(event["dur"]), event["name"], (str(event["pid"]), str(event["tid"]))]
        row += [args.get("External id", -1), args.get("correlation", -1)]
        if table in ON_DEVICE:
            row += [str(event["pid"]), str(args.get("stream", event["tid"]))]
        if table == "frames":
            row += [args["Python id"], -1 if args["Python parent id"] is None else args["Python parent id"]]
        tables[table].append(tuple(row))
    on_device = {row[5] for name in ("kernels", "copies") for row in tables[name] if row[5] >= 0}
    tables["launches"] = [row for row in tables["launches"] if "aunch" in row[2] or row[5] in on_device]
    return origin, tables, lost


def _ns(us: Any) -> int:
    return int((Decimal(us) * 1000).to_integral_value(ROUND_HALF_EVEN))


NAMES = st.sampled_from(
    ["gemm", "aten::mm", "cudaLaunchKernel", "cudaMemcpyAsync", "a},{b", 'q"\\', "step[DECODE bs=8]", "µ"]
)
SMALL = st.integers(0, 6)
JUNK = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=6), st.sampled_from(['}]},{"ph"', "\\", "]"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ph", "ts", "x"]), inner, max_size=2),
    max_leaves=6,
)


@st.composite
def events(draw: st.DrawFn, base: int) -> dict[str, Any]:
    """An event near `base` nanoseconds; small numbers, so that ids and times coincide."""
    category = draw(st.sampled_from([*TABLES, "ac2g", "overhead", "cpu_instant_event"]))
    phase = "X" if draw(SMALL) else draw(st.sampled_from(["B", "i"]))
    event = {"ph": phase, "cat": category, "name": draw(NAMES), "pid": draw(st.sampled_from([0, 1, 4242]))}
    event |= {"tid": draw(st.sampled_from([7, 19])), "ts": Decimal(base + draw(st.integers(0, 3000))) / 1000}
    if draw(SMALL):
        event["dur"] = Decimal(draw(st.integers(-1, 2500))) / 1000
    args: dict[str, Any] = {"junk": draw(JUNK)} if draw(st.booleans()) else {}
    if draw(SMALL):
        args |= {"External id": draw(SMALL), "correlation": draw(SMALL)}
    if category == "python_function":
        args |= {"Python id": draw(SMALL), "Python parent id": draw(st.one_of(st.none(), SMALL))}
    if category in ("kernel", "gpu_memcpy", "gpu_memset"):
        args["stream"] = draw(st.sampled_from([7, 19]))
    return {**event, "args": args} if args or draw(st.booleans()) else event


def shown(whole: Any, layout: str) -> str:
    """JSON in one of the ways that exporters write it; Decimals with all their digits."""
    if layout == "lines" and isinstance(whole, dict):
        head = ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in whole.items() if k != "traceEvents")
        body = ",\n".join(shown(event, "tight") for event in whole["traceEvents"])
        return f'{{{head + ", " if head else ""}"traceEvents": [\n{body}\n]}}\n'
    options: dict[str, Any] = {"pretty": {"indent": 2}, "tight": {"separators": (",", ":")}}.get(layout, {})
    numbers: list[Decimal] = []

    def mark(value: Decimal) -> str:
        numbers.append(value)
        return f"@@{len(numbers) - 1}@@"

    text = json.dumps(whole, default=mark, **options)
    for at, value in enumerate(numbers):
        text = text.replace(f'"@@{at}@@"', str(value), 1)
    return text


FINE = 2**43 * 1000  # from here on a double of microseconds does not tell nanoseconds
BASES = st.sampled_from([1_000_000, FINE // 2, FINE - 1_500, FINE * 2, 1_790_857_026_000_123_457, 2**63 * 1000 + 7])


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_columns_are_those_of_a_plain_reading(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any events, in any layout, cut into blocks of any size, give the columns of a plain reading."""
    listed = data.draw(st.lists(events(data.draw(BASES)), max_size=12))
    listed.append({**kernel(), "ts": listed[0]["ts"]} if listed else kernel())
    before = data.draw(st.dictionaries(st.sampled_from(["schemaVersion", "deviceProperties"]), JUNK))
    after = data.draw(st.dictionaries(st.sampled_from(["traceName", "otherEvents"]), JUNK))
    bare = data.draw(st.booleans())
    whole: Any = listed if bare else {**before, "traceEvents": listed, **after}
    text = shown(whole, data.draw(st.sampled_from(["pretty", "tight", "wide", "lines"])))
    path = tmp_path_factory.mktemp("t") / "t.json"
    path.write_bytes(gzip.compress(text.encode()) if data.draw(st.booleans()) else text.encode())

    trace = read(path, block=data.draw(st.sampled_from([1, 2, 7, 60, 1 << 20])))

    origin, expected, lost = plain_rows(text)
    found = rows_of(trace)
    assert {name: sorted(rows) for name, rows in found.items()} == {k: sorted(v) for k, v in expected.items()}
    assert all([(r[0], -r[1]) for r in rows] == sorted((r[0], -r[1]) for r in rows) for rows in found.values())
    assert trace.origin_ns == origin
    assert trace.events == len(listed)
    assert sum(trace.dropped.values()) == sum(lost.values())
    assert trace.facts == ({} if bare else {**before, **after})


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_order_of_the_file_does_not_matter(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Shuffled events give the same trace, to the last index."""
    listed = [*data.draw(st.lists(events(5_000), min_size=1, max_size=12)), kernel()]
    folder = tmp_path_factory.mktemp("t")
    one = read(written(folder, shown(listed, "wide")))
    two = read(written(folder, shown(data.draw(st.permutations(listed)), "tight")), block=50)
    for name in ("names", "threads", "devices", "streams", "origin_ns", "dropped", "events"):
        assert getattr(one, name) == getattr(two, name)
    assert _columns(one) == _columns(two)


def _columns(trace: Trace) -> dict[str, list[int]]:
    tables = {name: getattr(trace, name) for name in set(TABLES.values())}
    return {
        f"{name}.{each.name}": getattr(table, each.name).tolist()
        for name, table in tables.items()
        for each in fields(table)
    }


@pytest.mark.parametrize("layout", ["pretty", "tight", "lines"])
def test_every_half_written_file_is_an_error(tmp_path: Path, layout: str) -> None:
    """A file that ends early anywhere is refused, with the number of whole events; never read in part."""
    text = shown(
        {"a": [1, {"b": "]}"}], "traceEvents": [kernel(), kernel(args={"x": [{"ph": "X"}, {"ph": "}"}]})], "z": 1},
        layout,
    )
    text = text.rstrip()
    ends = [at + 1 for at in range(len(text)) if text[at] == "}" and _whole(text[: at + 1])]
    for cut in range(1, len(text), 4 if layout == "pretty" else 1):
        with pytest.raises(TraceError, match=f" {sum(end <= cut for end in ends)} whole events") as caught:
            read(written(tmp_path, text[:cut]), block=64)
        assert "\n" not in str(caught.value)


def _whole(text: str) -> bool:
    """Whether a text ends with a whole event of the list."""
    try:
        json.loads(text + "]}")
    except ValueError:
        return False
    return text.count('"cat"') > 0


def test_truncated_gzip_is_an_error(tmp_path: Path) -> None:
    """Gzip data that ends early is refused, even where the JSON in it is whole."""
    packed = gzip.compress(json.dumps([kernel(name=f"k{i}{os.urandom(8).hex()}") for i in range(500)]).encode())
    for kept in (11, len(packed) // 2, len(packed) - 3):
        with pytest.raises(TraceError, match=r"gzip data is (cut short|damaged.*) after \d+ whole events"):
            read(written(tmp_path, packed[:kept]))
    with pytest.raises(TraceError) as found:
        read(written(tmp_path, packed[: len(packed) // 2]))
    assert 200 < int(str(found.value).split(" whole events")[0].split()[-1]) < 300


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"   ", "half-written, it ends after 0 whole events"),
        (b"hello there", "no JSON of a trace"),
        (b"\x00\x01\x02", "no JSON of a trace"),
        (b"3", "no JSON of a trace"),
        ({"model": "m", "events": [kernel()]}, "holds no list of traceEvents"),
        ({"traceEvents": {"a": 1}}, "holds no list of traceEvents"),
        ({"traceEvents": []}, "list of events is empty"),
        ([], "list of events is empty"),
        ([1, 2, 3], "none of its members is a trace event"),
        ([{"ttft": 3}], "none of its members is a trace event"),
        (b'[{"ph":"X"}] [{"ph":"X"}]', "something follows the end"),
        (b'{"traceEvents":[{"ph":"X"},{"ph" "X"}]}', "damaged JSON after"),
        (b'{"traceEvents":[{"ph":"X"}],"a":tru}', "damaged JSON"),
        (b'{"traceEvents":[{"ph":"X"}],"a":' + b"[" * 9999 + b"]" * 9999 + b"}", "damaged JSON"),
        (b'[{"ph":"X","a":' + b"[" * 9999 + b"]" * 9999 + b"}]", "damaged JSON"),
        (b'{"traceEvents":[{"ph":"X"}]]', "damaged JSON"),
    ],
)
def test_what_is_no_trace_is_said_in_one_line(tmp_path: Path, content: Any, words: str) -> None:
    """Bad files give one line that says what, where, and what to do."""
    path = written(tmp_path, content)
    for block in (1, 1 << 20):
        with pytest.raises(TraceError) as caught:
            read(path, block)
        text = str(caught.value)
        assert words in text and str(path) in text and ";" in text and "\n" not in text


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a forbidden file are said, not raised as they come."""
    forbidden = written(tmp_path, [kernel()])
    forbidden.chmod(0)
    unreadable = [] if os.access(forbidden, os.R_OK) else [forbidden]
    for path in [tmp_path / "none.json", tmp_path, *unreadable]:
        with pytest.raises(TraceError, match="give the path of a trace file"):
            read(path)


def test_odd_types_are_made_to_fit(tmp_path: Path) -> None:
    """Numbers as text, integral floats, None in any spelling, NaN, and bytes that are no UTF-8 lose no event."""
    text = (
        b'[{"ph":"X","cat":"kernel","name":"a\xff","pid":"0","tid":"7","ts":"10.5","dur":"2","args":'
        b'{"External id":"5","correlation":7.0,"stream":"7","device":0}},'
        b'{"ph":"X","cat":"kernel","name":"17\\ud800","pid":0,"tid":7,"ts":20,"dur":1e0,"args":'
        b'{"External id":"None","correlation":"","stream":7,"bandwidth":NaN}},'
        b'{"ph":"X","cat":"cpu_op","name":"op","pid":1,"tid":1,"ts":1,"dur":1,"args":"none"},'
        b'{"ph":"X","cat":"cpu_op","name":"op","pid":1,"tid":1,"ts":1,"dur":1,'
        b'"args":{"External id":18446744073709551615}},'
        b"17]"
    )
    trace = read(written(tmp_path, text), block=20)
    assert _rows(trace, trace.kernels) == [
        (9500, 11500, "a\ufffd", ("0", "7"), 5, 7, "0", "7"),
        (19000, 20000, "17?", ("0", "7"), -1, -1, "0", "7"),
    ]
    assert trace.streams == [(0, "7")]
    assert sorted(trace.ops.external.tolist()) == [-1, (2**64 - 1) % 2**62]
    assert trace.dropped == {"members of the list that are no objects": 1}


def test_unusable_events_are_counted_by_reason(tmp_path: Path) -> None:
    """Kernels whose time cannot be used are left out and counted; operators may be shorter than a nanosecond."""
    bad = [kernel(dur=0), kernel(dur=-3), kernel(dur="soon"), kernel(ts=None), kernel(ph="B"), kernel(dur=1e300)]
    missing = kernel()
    del missing["dur"]
    op = {**kernel(dur=0), "cat": "cpu_op"}
    text = json.dumps([*bad, missing, kernel(), kernel(dur=3), op]).replace('"dur": 3', '"dur": NaN')
    trace = read(written(tmp_path, text))
    assert (len(trace.kernels), len(trace.ops), trace.events) == (1, 1, 10)
    assert trace.dropped == {
        "kernels: dur 0": 1,
        "kernels: negative dur": 1,
        "kernels: no usable dur": 4,
        "kernels: no usable ts": 1,
        "kernels: phase 'B' instead of X": 1,
    }


def test_a_kernel_of_days_is_none(tmp_path: Path) -> None:
    """Durations whose sums would not fit 64 bits are damage: left out and counted."""
    trace = read(written(tmp_path, [kernel(), *[kernel(dur=1e15)] * 20, kernel(dur=3.6e9)]))
    assert (trace.kernels.end - trace.kernels.begin).tolist() == [3_600_000_000_000, 2250]
    assert trace.dropped == {"kernels: no usable dur": 20}


def test_exporters_without_the_category_kernel(tmp_path: Path) -> None:
    """Events on a stream are kernels where a file names none so; beside real kernels they are not."""
    odd = [kernel(cat="gpu_op", name="a"), kernel(cat="", name="b", args={"stream": None, "cuda_stream": 3})]
    scopes = [kernel(cat="x", name="m.py(3): f"), kernel(cat="cuda_sync"), kernel(cat="y", name="## Call z ##")]
    alone = read(written(tmp_path, [*odd, *scopes]))
    assert [(row[2], row[7]) for row in _rows(alone, alone.kernels)] == [("a", "7"), ("b", "3")]
    beside = read(written(tmp_path, [*odd, *scopes, kernel()]))
    assert [row[2] for row in _rows(beside, beside.kernels)] == ["gemm"]
    assert beside.names == ["gemm"]


def test_merged_ranks_stay_apart(tmp_path: Path) -> None:
    """Ids, devices and threads of ranks merged into one file are not each other's, although their numbers are equal."""
    launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "tid": 1, "ts": 1, "dur": 1}
    ranks = [f"[TP{rank:02}]" for rank in range(12)]
    listed = [kernel(pid=f"{rank} 0", ts=100 + number) for number, rank in enumerate(ranks)]
    listed += [{**launch, "pid": f"{rank} 77", "args": {"correlation": 11}} for rank in ranks]
    trace = read(written(tmp_path, listed))
    assert trace.devices == [f"{rank} 0" for rank in ranks]
    assert trace.kernels.device.tolist() == list(range(12))
    assert trace.kernels.correlation.tolist() == [(rank << 48) + 11 for rank in range(12)]
    assert trace.kernels.external.tolist() == [(rank << 48) + 5 for rank in range(12)]
    process = [trace.threads[thread][0] for thread in trace.launches.thread]
    assert dict(zip(process, trace.launches.correlation.tolist(), strict=True)) == {
        f"{rank} 77": (number << 48) + 11 for number, rank in enumerate(ranks)
    }


def test_one_pid_for_a_process_and_a_device(tmp_path: Path) -> None:
    """In a container the engine may be process 1 beside GPU 1: neither takes the other's events."""
    op = {"ph": "X", "cat": "cpu_op", "name": "op", "pid": 1, "tid": 1, "ts": 1, "dur": 1}
    mark = {"ph": "X", "cat": "gpu_user_annotation", "name": "step", "pid": 1, "tid": 7, "ts": 90, "dur": 50}
    trace = read(written(tmp_path, [kernel(pid=1, args={"device": 1}), kernel(pid=0), op, mark]))
    assert (trace.devices, trace.streams) == (["0", "1"], [(0, "7"), (1, "7")])
    assert trace.kernels.device.tolist() == [0, 1]
    assert trace.gpu_marks.device.tolist() == [1]
    assert len(trace.ops) == 1


def test_devices_that_only_args_tell_apart(tmp_path: Path) -> None:
    """Where all devices share one pid, `args.device` tells them apart; a stream belongs to its device."""
    trace = read(written(tmp_path, [kernel(pid=9, args={"device": 0}), kernel(pid=9, args={"device": 1})]))
    assert trace.devices == ["9 device 0", "9 device 1"]
    assert trace.streams == [(0, "7"), (1, "7")]


def test_launches_are_what_puts_work_on_a_device(tmp_path: Path) -> None:
    """Launches by name, and any other call whose correlation a kernel or copy carries."""
    call = {"ph": "X", "cat": "cuda_runtime", "pid": 1, "tid": 1, "ts": 1, "dur": 1}
    names = {"cudaGraphLaunch": 90, "cuLaunchKernelEx": 91, "cudaMemcpyAsync": 12, "cudaEventQuery": 92, "INVALID": 11}
    calls = [{**call, "name": name, "args": {"correlation": number}} for name, number in names.items()]
    hip = {**call, "cat": "hip_runtime", "name": "hipModuleLaunchKernel"}
    copy = kernel(cat="gpu_memcpy", name="Memcpy DtoH", args={"correlation": 12})
    trace = read(written(tmp_path, [kernel(), copy, *calls, hip]))
    found = [trace.names[name] for name in trace.launches.name]
    assert sorted(found) == [
        "INVALID",
        "cuLaunchKernelEx",
        "cudaGraphLaunch",
        "cudaMemcpyAsync",
        "hipModuleLaunchKernel",
    ]


def test_events_larger_than_a_block(tmp_path: Path) -> None:
    """An event with megabytes of args, looking like many events inside, is one event."""
    inside = [{"ph": "X", "cat": "kernel", "ts": 1, "dur": 1}] * 20_000
    trace = read(written(tmp_path, [kernel(args={"x": inside}), kernel(), kernel(args={"y": inside})]), block=1000)
    assert (trace.events, len(trace.kernels)) == (3, 3)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of a file of ten megabytes no more is held than its columns and a few blocks."""
    path = written(tmp_path, [kernel(ts=number, args={"x": "y" * 2000}) for number in range(5000)])
    assert path.stat().st_size > 10_000_000
    read(path, block=1 << 16)
    tracemalloc.start()
    try:
        assert len(read(path, block=1 << 16).kernels) == 5000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_trace_of_the_cpu_alone(tmp_path: Path) -> None:
    """No kernel is no error."""
    trace = read(written(tmp_path, [{**kernel(), "cat": "cpu_op"}]))
    assert (len(trace.kernels), len(trace.ops), trace.devices, trace.streams) == (0, 1, [], [])


COUNTED = {
    "vllm/traces/graph/prefill": (13_430, 1_368, 130.7),
    "vllm/traces/graph/decode": (10_712, 4_193, 42.0),
    "vllm/traces/eager/decode": (52_523, 1_680, 16.0),
    "sgl/traces/graph/prefill": (13_179, 2_039, 98.9),
    "sgl/traces/graph/decode": (10_814, 4_468, 42.5),
    "sgl/traces/eager/decode": (57_251, 1_693, 15.2),
}


@needs_data
@pytest.mark.parametrize("folder", COUNTED)
def test_captured_traces(folder: str) -> None:
    """Real traces hold what was counted in them when they were captured, and every row is that of a plain reading."""
    path = next((DATA / "h200" / folder).glob("*.json.gz"))
    trace = read(path, block=100_000)
    busy = float((trace.kernels.end - trace.kernels.begin).sum()) / 1e6
    assert (trace.events, len(trace.kernels), round(busy, 1)) == COUNTED[folder]
    origin, expected, _ = plain_rows(gzip.decompress(path.read_bytes()).decode())
    assert trace.origin_ns == origin
    assert {name: sorted(rows) for name, rows in rows_of(trace).items()} == {k: sorted(v) for k, v in expected.items()}
    assert trace.dropped == {}
    assert trace.facts["deviceProperties"][0]["name"] == "NVIDIA H200"
