"""What reading and analysing a profiler trace costs: CPU time and peak memory of whole processes.

    python tests/benchmarks/bench_trace.py [--quick] [--rounds N]

Traces are generated (trace_maker.py) one after the other, the largest with a million kernels (260 MB), in a
temporary folder that is removed. Each figure is the median over rounds of a process of its own, from `wait4`: user
and system time with the interpreter's start and all imports, and the largest resident set. Rivals, once each
(they are slow): `json.load`, which only parses, and HolisticTraceAnalysis, loading and breaking down, which is
looked for in ~/.cache/sotad/hta: `python3 -m venv ~/.cache/sotad/hta && ~/.cache/sotad/hta/bin/pip install
HolisticTraceAnalysis 'pandas<3'`.

Goals for the million kernels: less CPU time than json.load and less than 400 MB; .gz at most 1.3 times plain;
mapping + formal at most twice single; ten times as many events, ten times the CPU time. Exit status 1 when one is
missed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.trace_maker import Shape, write

ROOT = Path(__file__).resolve().parents[2]
HTA_PYTHON = Path.home() / ".cache" / "sotad" / "hta" / "bin" / "python"
TIMED_OUT = 124
PYTHON = [sys.executable, "-c"]
TRACE_READ = "import sys; from pathlib import Path; from sotad.trace.reader import read; read(Path(sys.argv[1]))"
JSON_LOAD = "import json, sys; json.load(open(sys.argv[1]))"
ANALYZE = "import sys; from sotad.cli.control import main; sys.exit(main())"
BREAK_DOWN = (
    "import sys, pathlib; from hta.trace_analysis import TraceAnalysis;"
    "found = TraceAnalysis(trace_dir=str(pathlib.Path(sys.argv[1]).parent));"
    "print(found.get_gpu_kernel_breakdown(visualize=False)[0])"
)
OURS, SINGLE, PAIR, JSON, HTA = "read", "analyze trace", "analyze trace, mapping + formal", "json.load", "HTA"
MISSED = 1


@dataclass(frozen=True)
class Case:
    """A trace, and which commands meet it."""

    name: str
    shape: Shape
    what: tuple[str, ...]
    packed: bool = False


@dataclass(frozen=True)
class Cost:
    """One command: seconds of CPU time and MB of resident memory at most; or why it has none."""

    cpu: float = 0.0
    peak: float = 0.0
    failure: str = ""


def cases(large: int, middle: int) -> list[Case]:
    """The traces: up to so many kernels alone, and up to so many with what launched them."""
    ours = (OURS, SINGLE)
    return [
        Case("small", Shape(large // 100), ours),
        Case("tenth", Shape(large // 10), ours),
        Case("kernels", Shape(large), (*ours, PAIR, JSON, HTA)),
        Case("kernels, .gz", Shape(large), ours, packed=True),
        Case("kernels, steps", Shape(large, steps=True), (*ours, PAIR, JSON, HTA)),
        Case("host", Shape(middle, steps=True, host=True), (*ours, PAIR, JSON, HTA)),
        Case("host, flows", Shape(middle, steps=True, host=True, flows=True), ours),
        Case("host, half in frames", Shape(middle, steps=True, host=True, framed="half"), (*ours, PAIR, JSON)),
        Case("host, half, tenth", Shape(middle // 10, steps=True, host=True, framed="half"), ours),
    ]


def commands(path: Path) -> dict[str, list[str]]:
    """What is measured, for a trace in `path`."""
    trace = [*PYTHON, ANALYZE, "analyze", "trace"]
    return {
        OURS: [*PYTHON, TRACE_READ, str(path)],
        SINGLE: [*trace, str(path), "--json"],
        PAIR: [*trace, str(path), "--mapping", str(path), "--json"],
        JSON: [*PYTHON, JSON_LOAD, str(path)],
        HTA: [str(HTA_PYTHON), "-W", "ignore", "-c", BREAK_DOWN, str(path)],
    }


def absent() -> dict[str, str]:
    """The commands that this machine cannot run, with the reason."""
    probe = subprocess.run([*PYTHON, ANALYZE, "analyze", "trace", "--help"], cwd=ROOT, capture_output=True)
    missing = dict.fromkeys((SINGLE, PAIR), "no such command") if probe.returncode else {}
    return missing if HTA_PYTHON.exists() else {**missing, HTA: f"not installed: no {HTA_PYTHON}"}


def cost(argv: list[str], limit: int) -> Cost:
    """Run a command to its end, at most `limit` seconds."""
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(["timeout", str(limit), *argv], stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
    failed = "" if child.returncode == 0 else f"not in {limit} s" if child.returncode == TIMED_OUT else said[-1][:70]
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, failed)


def measure(case: Case, folder: Path, rounds: int, limit: int, skipped: dict[str, str]) -> dict[str, Cost]:
    """Every command of a case on its trace, which is made for it and removed."""
    folder.mkdir()
    path = folder / "rank0.json"
    write(path, case.shape)
    size = path.stat().st_size / 1e6
    print(f"{case.name}: {case.shape.kernels:,} kernels, {size:.0f} MB", file=sys.stderr, flush=True)
    if case.packed:
        path = _packed(path)
    found = {}
    for what in case.what:
        argv = commands(path)[what]
        times = 1 if what in (JSON, HTA) else rounds
        found[what] = (
            Cost(failure=skipped[what]) if what in skipped else _median([cost(argv, limit) for _ in range(times)])
        )
    shutil.rmtree(folder)
    return found


def _packed(path: Path) -> Path:
    packed = path.with_suffix(".json.gz")
    with path.open("rb") as plain, gzip.open(packed, "wb", 6) as out:
        shutil.copyfileobj(plain, out, 1 << 20)
    path.unlink()
    return packed


def _median(costs: list[Cost]) -> Cost:
    failed = next((each for each in costs if each.failure), None)
    return failed or Cost(statistics.median(each.cpu for each in costs), max(each.peak for each in costs))


Table = dict[str, dict[str, Cost]]


def goals(found: Table) -> Iterator[tuple[str, float, float]]:
    """Each goal that could be judged: what it is, the figure, the limit."""

    def cpu(case: str, what: str) -> float:
        each = found[case].get(what, Cost())
        return 0.0 if each.failure else each.cpu

    for what in (OURS, SINGLE):
        for case in ("kernels", "kernels, steps", "host"):
            yield f"{what} / json.load, CPU: {case}", _ratio(cpu(case, what), cpu(case, JSON)), 1.0
            yield f"{what}, MB: {case}", found[case][what].peak, 400.0
        yield f"{what}, .gz / plain, CPU", _ratio(cpu("kernels, .gz", what), cpu("kernels", what)), 1.3
        for case, tenth in (("kernels", "tenth"), ("host, half in frames", "host, half, tenth")):
            yield f"{what}, ten times as many, CPU: {case}", _ratio(cpu(case, what), cpu(tenth, what)), 10.0
    for case in ("kernels", "kernels, steps", "host", "host, half in frames"):
        yield f"mapping + formal / single, CPU: {case}", _ratio(cpu(case, PAIR), cpu(case, SINGLE)), 2.0


def _ratio(above: float, below: float) -> float:
    return above / below if above > 0 and below > 0 else 0.0


def main() -> int:
    """Measure, print the tables, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the kernels, one round: a look, not a figure to quote"
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes per figure of ours (default: 3)")
    parser.add_argument("--limit", type=int, default=300, help="seconds that one process may take (default: 300)")
    args = parser.parse_args()
    skipped = absent()
    for what, reason in skipped.items():
        print(f"skipped: {what}: {reason}")
    scale, rounds = (10, 1) if args.quick else (1, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            case.name: measure(case, Path(folder) / str(number), rounds, args.limit, skipped)
            for number, case in enumerate(cases(1_000_000 // scale, 200_000 // scale))
        }
    return _show(found, judged=not args.quick)


def _show(found: Table, judged: bool) -> int:
    rows = [
        [
            case,
            what,
            "-" if each.failure else f"{each.cpu:.2f}",
            "-" if each.failure else f"{each.peak:.0f}",
            each.failure,
        ]
        for case, costs in found.items()
        for what, each in costs.items()
    ]
    print(
        tabulate(
            rows,
            ["trace", "command", "CPU s", "peak MB", ""],
            disable_numparse=True,
            colalign=("left", "left", "right", "right"),
        )
    )
    if not judged:
        print("the goals are judged at full size only")
        return 0
    met = [(goal, figure, most, "met" if figure <= most else "MISSED") for goal, figure, most in goals(found) if figure]
    print(tabulate(met, ["goal", "", "at most", ""], floatfmt=".2f"))
    return MISSED if any(figure > most for _, figure, most, _ in met) else 0


if __name__ == "__main__":
    sys.exit(main())
