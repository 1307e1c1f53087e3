"""`analyze trace`: what it counts, what it shows, what it refuses, over traces written here."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sotad.cli import analyze
from sotad.cli.entry import Parser
from sotad.cli.entry import main as enter

DATA = Path(os.environ.get("SOTAD_DATA") or Path(__file__).parents[3] / "shared" / "data") / "h200"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no captured traces here")
GEMM, NORM, SAMPLE = "nvjet_tst_64x8", "rms_norm_kernel", "gumbel_sample_kernel"
Event = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]


def event(category: str, name: str, begin: float, length: float, **args: Any) -> Event:
    tid = args.get("stream", 7)
    return {"ph": "X", "cat": category, "name": name, "pid": 0, "tid": tid, "ts": begin, "dur": length, "args": args}


def kernel(name: str, begin: float, length: float, stream: int = 7) -> Event:
    return event("kernel", name, begin, length, device=0, stream=stream)


def mark(name: str, begin: float, length: float) -> Event:
    return event("gpu_user_annotation", name, begin, length, device=0, stream=7)


def decode(steps: int, gemm: float = 100, norm: float = 20, name: str = "step[DECODE bs=8]", pause: float = 30) -> Any:
    """Steps of a GEMM and a norm inside the annotation, sampling of 10 us after it, and a pause before the next."""
    events, now = [], 1000.0
    for i in range(steps):
        jitter = 0.1 * (i % 3)
        inside = [kernel(GEMM, now, gemm + jitter), kernel(NORM, now + gemm + 1, norm)]
        events += [*inside, mark(name, now, gemm + 1 + norm), kernel(SAMPLE, now + gemm + norm + 2, 10)]
        now += gemm + norm + 12 + pause
    return events


def written(path: Path, events: Any, **facts: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"traceEvents": events, **facts})
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`sotactl analyze trace ...` in this process: exit status, stdout, stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        parser = Parser(prog="sotactl")
        analyze.add(parser.add_subparsers(metavar="COMMAND", required=True))
        try:
            status = enter(parser, ["analyze", "trace", *argv])
        except SystemExit as left:  # how argparse ends
            status = int(left.code or 0)
        found = capsys.readouterr()
        return status, found.out, found.err

    return call


def read(run: Run, *argv: str) -> Any:
    status, out, err = run(*argv, "--json")
    assert status == 0, err
    return json.loads(out)


def test_kernels_and_their_time_are_all_counted(run: Run, tmp_path: Path) -> None:
    """Over all stages; what stands below the share is told, and shares add up to 100 with it."""
    path = written(tmp_path / "a-TP-0.trace.json.gz", decode(5))
    found = read(run, path, "--min-share", "10")
    assert (found["kernels"], found["gpu_time_ms"]) == (15, pytest.approx(0.6504))
    stage = found["stages"]["decode"]
    assert [row["name"] for row in stage["kernel_rows"]] == [GEMM, NORM]
    assert stage["left_out"]["rows"] == 1 and stage["left_out"]["time_ms"] == pytest.approx(0.05)
    assert sum(row["share"] for row in stage["kernel_rows"]) + stage["left_out"]["share"] == pytest.approx(100)
    assert stage["steps"]["count"] == 5 and stage["steps"]["sequences"]["median"] == 8


def test_the_order_of_events_does_not_matter(run: Run, tmp_path: Path) -> None:
    """Shuffled, the trace says the same."""
    events = decode(6)
    shuffled = [events[(7 * i) % len(events)] for i in range(len(events))]
    paths = [written(tmp_path / name / "x-TP-0.trace.json", each) for name, each in (("a", events), ("b", shuffled))]
    first, second = (read(run, path)["stages"]["decode"] for path in paths)
    assert first.pop("detail") != second.pop("detail") and first == second


def test_the_row_that_is_slower_explains_the_difference(run: Run, tmp_path: Path) -> None:
    """A norm of 20 us more per step is what one framework loses, whatever its annotations leave out."""
    ours = written(tmp_path / "ours.trace.json", decode(8, norm=40))
    theirs = written(tmp_path / "theirs.trace.json", decode(8, name="execute_context_0(0)_generation_8(8)"))
    found = read(run, ours, "--against", theirs, "--names", "ours,theirs")
    stage = found["difference"]["stages"]["decode"]
    assert found["difference"]["slower"] == "decode"
    assert stage["extra_ms"] == pytest.approx(0.020, abs=1e-6)
    assert sum(row["extra_ms"] for row in stage["rows"]) == pytest.approx(stage["extra_ms"], abs=1e-12)
    assert stage["rows"][0]["category"] == "norm" and stage["rows"][0]["cumulated_percent"] == pytest.approx(100)
    cited = stage["rows"][0]["kernels"][0]["row_id"]
    assert cited in {row["row_id"] for row in found["stages"]["decode"]["kernel_rows"]}
    assert found["against"]["kernels"] == 24


def test_work_after_the_annotation_is_part_of_the_step(run: Run, tmp_path: Path) -> None:
    """An annotation that leaves sampling out does not make its framework faster: steps are as long as their period."""
    path = written(tmp_path / "a.trace.json", decode(6, pause=0))
    longer = [each for each in decode(6, pause=0) if each["cat"] == "kernel"]
    longer += [mark("step[DECODE bs=8]", 1000 + 132 * i, 132) for i in range(6)]
    found = read(run, path, "--against", written(tmp_path / "b.trace.json", longer), "--names", "a,b")
    stage = found["difference"]["stages"]["decode"]
    assert stage["target_ms"] == pytest.approx(0.132) and stage["extra_ms"] == pytest.approx(0, abs=1e-9)


def test_batch_8_against_batch_1_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    """The command succeeds and says why nothing is compared."""
    a, b = (written(tmp_path / f"{n}.trace.json", decode(4, name=f"step[DECODE bs={n}]")) for n in (8, 1))
    status, out, _ = run(a, "--against", b, "--names", "a,b")
    assert status == 0 and "not comparable, decode at batch 8 against 1" in out


def test_two_captures_of_one_thing_do_not_differ(run: Run, tmp_path: Path) -> None:
    """The same file on both sides: nothing is slower, and the sides have different names."""
    path = written(tmp_path / "a.trace.json", decode(6))
    found = read(run, path, "--against", path)["difference"]
    assert found["slower"] is None and found["target"] != found["leader"]
    assert "no difference beyond the noise" in found["statement"]


def test_ranks_are_added_up_and_the_straggler_named(run: Run, tmp_path: Path) -> None:
    """Kernels of both ranks count; the rank that computes longer is the straggler, the other one waits."""
    for rank, norm in ((0, 20), (1, 60)):
        collective = [kernel("ncclDevKernel_AllReduce", 900, 100 - norm)]
        written(tmp_path / f"x-TP-{rank}.trace.json.gz", [*decode(5, norm=norm), *collective])
    found = read(run, str(tmp_path), "--min-share", "0")
    assert found["kernels"] == 32 and len(found["files"]) == 2
    assert sum(row["count"] for stage in found["stages"].values() for row in stage["kernel_rows"]) == 32
    ranks = {row["rank"]: row for row in found["ranks"] if row["stage"] == "decode"}
    assert (ranks[0]["straggler"], ranks[1]["straggler"]) == (False, True)
    assert "straggler" in run(str(tmp_path))[1]


def test_prefill_and_decode_files_together(run: Run, tmp_path: Path) -> None:
    """Each keeps its own stage, also when neither marks steps."""
    paths = [written(tmp_path / stage / "t.trace.json", [kernel(GEMM, 10, 50)]) for stage in ("prefill", "decode")]
    found = read(run, *paths)
    assert {name: stage["kernels"] for name, stage in found["stages"].items()} == {"prefill": 1, "decode": 1}
    assert any("no step annotation" in warning for warning in found["warnings"])


def test_names_cannot_break_the_tables(run: Run, tmp_path: Path) -> None:
    """A kernel named like markup or with a newline stays one cell of one row, in Markdown and HTML."""
    nasty = "a|b\n<script>alert(1)</script> gemm"
    path = written(tmp_path / "a.trace.json", [kernel(nasty, 10, 50), mark("step[DECODE bs=1]", 10, 50)])
    lines = [line for line in run(path)[1].splitlines() if "script" in line]
    assert lines and all(line.startswith("| decode/a") and "<script" not in line for line in lines)
    page = run(path, "--format", "html")[1]
    assert "<script" not in page and "<svg" in page


def test_a_trace_of_the_cpu_alone_shows_operators(run: Run, tmp_path: Path) -> None:
    """Their self time by annotation, compared like kernels; kernels count 0."""
    paths = []
    for name, length in (("a", 80), ("b", 50)):
        events = []
        for i in range(4):
            at = 1000 * i
            events += [event("user_annotation", "step[DECODE bs=2 toks=2]", at, 40 + length)]
            events += [
                event("user_annotation", "mlp", at + 5, length + 10),
                event("cpu_op", "aten::mm", at + 6, length),
            ]
        paths.append(written(tmp_path / f"{name}.trace.json", events))
    found = read(run, paths[0], "--against", paths[1], "--names", "a,b")
    assert (found["kernels"], found["kind"]) == (0, "operators")
    assert found["stages"]["decode"]["operator_rows"][0]["row_id"] == "decode/mlp/aten::mm"
    rows = found["difference"]["stages"]["decode"]["rows"]
    assert rows[0]["category"] == "mlp" and rows[0]["extra_ms"] == pytest.approx(0.030)
    status, out, _ = run(*paths)
    assert status == 0 and "no GPU work in it" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere.json"], "nowhere.json"),
        (["empty.json"], "empty.json"),
        (["half.json"], "half.json"),
        (["cut.json.gz"], "cut.json.gz"),
        (["good.json", "--names", "a,b"], "--against"),
        (["good.json", "--against-mapping", "good.json"], "--against PATH"),
        (["good.json", "--mapping", "nowhere.json"], "nowhere.json"),
        (["good.json", "--json", "--format", "html"], "exclude"),
        (["good.json", "--min-share", "half"], "percent"),
        (["good.json", "--names", "one"], "sglang,vllm"),
        (["good.json", "--tp-size", "0"], "from 1 on"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    """Exit status 2, the place, the next step, no traceback."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "good.json", decode(3))
    written(tmp_path / "empty.json", [])
    (tmp_path / "half.json").write_text(json.dumps({"traceEvents": decode(3)})[:200])
    whole = gzip.compress(json.dumps({"traceEvents": decode(300)}).encode())
    (tmp_path / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    status, out, err = run(*argv)
    told = err + out
    assert status == 2 and said in told and "Traceback" not in told
    assert len(err.strip().splitlines()) <= 1


def test_out_writes_a_page_and_keeps_stdout_empty(run: Run, tmp_path: Path) -> None:
    """The file is complete and self-contained: nothing is loaded from elsewhere."""
    path = written(tmp_path / "a.trace.json", decode(4))
    status, out, err = run(path, "--against", path, "--format", "html", "--out", str(tmp_path / "t.html"))
    page = (tmp_path / "t.html").read_text()
    assert status == 0 and out == "" and "12 kernels" in err
    assert page.rstrip().endswith("</html>") and "<script" not in page and 'src="' not in page and "<link" not in page


def test_help_of_the_command_line_loads_nothing_heavy() -> None:
    """numpy comes with the analysis, not with the parser."""
    code = "import sys; from sotad.cli import analyze; sys.exit('numpy' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


PREFILL, DECODE = "step[EXTEND bs=1 toks=64]", "step[DECODE bs=8]"


def launched(text: str, line: int) -> list[Event]:
    """A step without CUDA graphs: every kernel has a launch, from this line of one file."""
    events = [mark(text, 1000, 130), event("user_annotation", text, 500, 400)]
    for i, (name, begin, length) in enumerate(((GEMM, 1000, 100), (NORM, 1101, 20))):
        frame = f"/x/sglang/srt/layers/linear.py({line + i}): apply"
        events += [
            event("python_function", frame, 600 + 50 * i, 40, **{"Python id": i}),
            event("cuda_runtime", "cudaLaunchKernel", 610 + 50 * i, 5, correlation=i + 1),
            event("kernel", name, begin, length, device=0, stream=7, correlation=i + 1),
        ]
    return events


def replayed(text: str, at: float) -> list[Event]:
    """The same step as a CUDA graph ran it."""
    return [mark(text, at, 130), kernel(GEMM, at, 100), kernel(NORM, at + 101, 20)]


def test_each_stage_is_mapped_by_the_trace_made_for_it(run: Run, tmp_path: Path) -> None:
    """Of a folder with a mapping trace per stage, and of both files; overlap rows know the lines as well."""
    paths = []
    for stage, text, line in (("prefill", PREFILL, 10), ("decode", DECODE, 20)):
        paths.append(written(tmp_path / "eager" / stage / "e-TP-0.trace.json", launched(text, line)))
    graph = written(tmp_path / "g.trace.json", [*replayed(PREFILL, 1000), *replayed(DECODE, 3000)])
    for mapping in ([str(tmp_path / "eager")], paths):
        stages = read(run, graph, "--mapping", *mapping)["stages"]
        for stage, line in (("prefill", 11), ("decode", 21)):
            rows = {row["name"]: row["locations"][0]["location"] for row in stages[stage]["kernel_rows"]}
            assert rows[NORM].endswith(f"linear.py:{line} apply")
            assert stages[stage]["overlap_rows"][0]["python_scope"] == rows[NORM]
            assert stages[stage]["unresolved_share"] == 0
    found = read(run, graph, "--mapping", paths[1], "--against", graph, "--against-mapping", *paths)
    assert found["stages"]["prefill"]["unresolved_share"] == 100
    assert any("prefill: most kernels" in warning for warning in found["warnings"])
    assert found["against"]["stages"]["prefill"]["unresolved_share"] == 0


def test_source_lines_of_several_files_add_up(run: Run, tmp_path: Path) -> None:
    """A kernel that one file places and another one does not is half unresolved, whichever comes first."""
    paths = [
        written(tmp_path / "e.trace.json", launched(DECODE, 10)),
        written(tmp_path / "g.trace.json", decode(1, norm=20)),
    ]
    for order in (paths, paths[::-1]):
        stage = read(run, *order)["stages"]["decode"]
        places = next(row["locations"] for row in stage["kernel_rows"] if row["name"] == NORM)
        assert [(place["matched"], pytest.approx(place["share"])) for place in places] == [("direct", 50), ("none", 50)]
        assert stage["unresolved_share"] == pytest.approx(100 * 130 / 250)


def test_what_two_captures_may_differ_by_makes_no_stage_slower(run: Run, tmp_path: Path) -> None:
    """Half a percent is told as a number, without percents of it, and no stage is called slower."""
    paths = [written(tmp_path / f"{n}.trace.json", decode(8, gemm=n)) for n in (101, 100)]
    found = read(run, paths[0], "--against", paths[1], "--names", "a,b")["difference"]
    stage = found["stages"]["decode"]
    assert found["slower"] is None and stage["below_capture_noise"] and stage["extra_ms"] == pytest.approx(0.001)
    assert "No stage of a is slower" in found["statement"] and "0.001 ms (0.6%) slower" in found["statement"]
    assert {row["cumulated_percent"] for row in stage["rows"]} == {None}
    assert "Cumulated %" not in run(paths[0], "--against", paths[1], "--names", "a,b")[1]


def test_idle_time_is_told_with_its_place(run: Run, tmp_path: Path) -> None:
    """Steps that wait for launches: inside and outside of steps, by the pairs of kernels, and the longest one."""
    events = []
    for at in (1000, 2000, 3000):
        kernels = [kernel(name, at + 100 * i, 40) for i, name in enumerate((GEMM, NORM, GEMM, NORM))]
        events += [mark(DECODE, at, 340), *kernels]
    path = written(tmp_path / "a.trace.json", events)
    found = read(run, path)
    stage, device = found["stages"]["decode"], found["devices"][0]
    assert stage["launch_bound"] and stage["launch_gaps"]["between"][0]["total_ms"] == pytest.approx(0.360)
    assert device["idle_in_steps_ms"] == pytest.approx(0.540) and device["idle_outside_steps_ms"] == pytest.approx(
        1.320
    )
    longest = found["bubbles"][0]
    assert (longest["stage"], longest["after"], longest["before"]) == (None, NORM, GEMM)
    assert longest["duration_ms"] == pytest.approx(0.660)
    out = run(path)[1]
    assert "launches set the pace" in out and "| in no step | 0.660 |" in out


def test_copies_outside_of_steps_are_shown(run: Run, tmp_path: Path) -> None:
    """A stage of copies alone is not empty, and says what it copied."""
    copy = event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 500, 50, device=0, stream=7)
    out = run(written(tmp_path / "a.trace.json", [copy, *decode(3)]))[1]
    assert "outside: no kernels, 1 copies and fills, 0.05 ms" in out and "Nothing was recorded" not in out
    assert "copies and fills: 1, 0.05 ms (Memcpy HtoD (Pinned -> Device) 0.05 ms)" in out


def test_what_does_not_add_up_names_its_file(run: Run, tmp_path: Path) -> None:
    """Two files of one stage and rank: counts of both, the rest of the larger one, and the reader is told."""
    paths = [written(tmp_path / f"{n}.trace.json", decode(n)) for n in (3, 6)]
    stage = read(run, *paths)["stages"]["decode"]
    assert (stage["kernels"], stage["files"], stage["detail"]) == (27, 2, paths[1])
    assert stage["kernel_rows"][0]["steps"] == 6 and stage["overlap_rows"][0]["count"] == 6
    assert "are of 2 files; overlap, fusions and pauses only of 6.trace.json" in run(*paths)[1]


@needs_data
def test_real_decode_of_two_frameworks(run: Run) -> None:
    """Periods, attention and busy time as counted by hand from the raw events of both captures."""
    sides = [str(DATA / name / "traces/graph/decode") for name in ("sgl", "vllm")]
    found = read(run, sides[0], "--against", sides[1])
    stage = found["difference"]["stages"]["decode"]
    assert (found["kernels"], found["against"]["kernels"]) == (4468, 4193)
    assert stage["target_ms"] == pytest.approx(5.5263, abs=0.001)
    assert stage["leader_ms"] == pytest.approx(5.5551, abs=0.001)
    rows = {row["category"]: row["extra_ms"] for row in stage["rows"]}
    assert rows["attention"] == pytest.approx(-0.110, abs=0.002)
    assert stage["below_capture_noise"] and found["difference"]["target"] == "sglang"


@needs_data
def test_real_eager_trace_names_the_lines_of_a_graph(run: Run) -> None:
    """With a mapping trace most of the kernel time gets its source line."""
    folder = DATA / "vllm/traces"
    alone = read(run, str(folder / "graph/decode"))["stages"]["decode"]
    mapped = read(run, str(folder / "graph/decode"), "--mapping", str(folder / "eager/decode"))["stages"]["decode"]
    assert alone["unresolved_share"] > 90 and mapped["unresolved_share"] < 10


def test_a_trace_with_nothing_to_count_beside_another_is_left_out(run: Run, tmp_path: Path) -> None:
    """A front end that traces itself has no operators; it does not cost the engine's tables."""
    engine = written(tmp_path / "engine.json", decode(3))
    front = written(tmp_path / "front.json", [event("user_annotation", "request", 0, 10)])
    found = read(run, engine, front)
    assert found["kernels"] == 9 and any(
        "left out" in warning and "front.json" in warning for warning in found["warnings"]
    )
