"""The load generator against a loopback server of known behaviour, side by side with a rival, in turn.

Run it with ``python tests/benchmarks/bench_loadgen.py [--quick] [--vllm-python PYTHON]``. The server
(``bench_loadgen_server``) is a process of its own and stamps every event before it writes it. Three loads:

requests    8 tokens each, written as fast as they go: the highest request rate
tokens      128 tokens each, likewise: the highest token rate
paced       40 tokens, one every 50 ms, as serving does it: what the client adds to the times

"TTFT +" is the time from the server's stamp of the first event to the client's, "ITL ±" the difference between
a gap at the client and the same gap at the server; p50 and p99, ms. "us/event" is CPU of the client per token.
The rival is ``vllm bench serve`` under PYTHON, whose results have no absolute times: its "TTFT +" is all of the
TTFT that it reports. Without PYTHON it is an aiohttp client of the usual kind (``bench_loadgen_aiohttp``).

Goals: at least twice the rival's rates; TTFT + at p99 at most half of the rival's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT_S = 300


class Load(NamedTuple):
    """`requests` for so many streams, `tokens` each, `pause_ms` apart."""

    name: str
    tokens: int
    pause_ms: float
    requests: Callable[[int], int]


LOADS = (
    Load("requests", 8, 0, lambda streams: max(1000, 2 * streams)),
    Load("tokens", 128, 0, lambda streams: max(200, streams)),
    Load("paced", 40, 50, lambda streams: max(3, streams)),
)


class Figures(NamedTuple):
    """One client under one load; None where it does not tell."""

    requests_s: float
    tokens_s: float
    us_per_event: float | None
    ttft_p50: float
    ttft_p99: float
    itl_p50: float | None
    itl_p99: float | None


Seen = dict[str, tuple[int, list[int]]]  # prompt to when it was sent, and when its tokens were seen
Client = Callable[[str, Path, Load, int, int], tuple[Seen, float, float]]


@contextmanager
def server(folder: Path, pause_ms: float) -> Iterator[tuple[str, Path]]:
    """A server and the file in which it leaves its stamps when the block is over."""
    stamps = folder / "stamps.json"
    argv = [sys.executable, str(HERE / "bench_loadgen_server.py"), str(pause_ms), str(stamps)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", stamps
    finally:
        process.terminate()
        process.wait(60)


def ours(url: str, folder: Path, load: Load, streams: int, count: int) -> tuple[Seen, float, float]:
    """What our load generator saw, its wall and its CPU time in seconds."""
    rows = [{"prompt": f"p{i}", "output_len": load.tokens, "metadata": {"p": f"p{i}"}} for i in range(count)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scenario = {"name": "bench", "kind": "jsonl", "dataset": str(folder / "rows.jsonl"), "num_prompts": count}
    spec = {"base_url": url, "model": "m", "scenario": scenario, "max_concurrency": streams}
    (folder / "spec.json").write_text(json.dumps(spec))
    argv = [sys.executable, "-m", "sotad.loadgen", str(folder / "spec.json"), str(folder / "out.json")]
    subprocess.run(argv, cwd=ROOT, check=True, timeout=LIMIT_S)
    report = json.loads((folder / "out.json").read_bytes())
    begin, seen = report["begin_ns"], {}
    for each in report["requests"]:
        assert each["error"] is None, each["error"]
        seen[each["metadata"]["p"]] = (begin + each["sent_ns"], [begin + when for when in each["chunk_ns"]])
    return seen, report["duration_s"], report["client"]["cpu_share"] * report["duration_s"]


def aiohttp_client(url: str, folder: Path, load: Load, streams: int, count: int) -> tuple[Seen, float, float]:
    """The same of the stand-in."""
    fixed = {"model": "m", "max_tokens": load.tokens, "temperature": 0.0, "ignore_eos": True, "stream": True}
    fixed |= {"stream_options": {"include_usage": True}}
    job = {"at_once": streams, "bodies": [{**fixed, "prompt": f"p{i}"} for i in range(count)]}
    (folder / "job.json").write_text(json.dumps(job))
    target = f"{url}/v1/completions"
    argv = [sys.executable, str(HERE / "bench_loadgen_aiohttp.py"), target, str(folder / "job.json")]
    subprocess.run([*argv, str(folder / "out.json")], check=True, timeout=LIMIT_S)
    out = json.loads((folder / "out.json").read_bytes())
    assert all(each["tokens"] == load.tokens for each in out["requests"])
    seen = {each["prompt"]: (each["sent_ns"], each["chunk_ns"]) for each in out["requests"]}
    return seen, out["wall_s"], out["cpu_s"]


def compared(client: Client, folder: Path, load: Load, streams: int) -> Figures:
    """One client, held against the server's stamps."""
    count = load.requests(streams)
    with server(folder, load.pause_ms) as (url, stamps):
        seen, wall_s, cpu_s = client(url, folder, load, streams, count)
    sent: dict[str, list[int]] = json.loads(stamps.read_bytes())
    events = count * load.tokens
    ttft = [(times[0] - sent[prompt][1]) / 1e6 for prompt, (_, times) in seen.items()]
    itl = [
        abs((after - before) - (s_after - s_before)) / 1e6
        for prompt, (_, times) in seen.items()
        for (before, after), (s_before, s_after) in zip(pairwise(times), pairwise(sent[prompt][1:]), strict=True)
    ]
    quantiles = (p(ttft, 50), p(ttft, 99), p(itl, 50), p(itl, 99))
    return Figures(count / wall_s, events / wall_s, cpu_s / events * 1e6, *quantiles)


def p(values: list[float], percent: int) -> float:
    """A percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def tokenizer(folder: Path) -> Path:
    """A folder with a tokenizer: vLLM's client makes its random prompts with one."""
    sys.path.insert(0, str(HERE.parent / "engines"))
    from make_model import make

    return make(folder / "model")


def vllm(python: str) -> Callable[[Path, Load, int], Figures]:
    """`vllm bench serve`, by what it reports."""

    def run(folder: Path, load: Load, streams: int) -> Figures:
        count = load.requests(streams)
        with server(folder, load.pause_ms) as (url, _):
            argv = [python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai"]
            argv += ["--base-url", url, "--model", "m", "--tokenizer", str(tokenizer(folder))]
            argv += [
                "--dataset-name",
                "random",
                "--random-input-len",
                "8",
                "--random-output-len",
                str(load.tokens),
                "--ignore-eos",
            ]
            argv += ["--num-prompts", str(count), "--max-concurrency", str(streams), "--disable-tqdm"]
            argv += ["--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "vllm.json"]
            quiet = {"check": True, "timeout": LIMIT_S, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(argv, **quiet)  # type: ignore[call-overload]
        out: dict[str, Any] = json.loads((folder / "vllm.json").read_bytes())
        ttft = [1e3 * each for each in out["ttfts"]]
        rate = out["request_throughput"]
        return Figures(rate, rate * load.tokens, None, p(ttft, 50), p(ttft, 99), None, None)

    return run


def middle(rounds: list[Figures]) -> Figures:
    """The median of each figure."""
    columns = zip(*rounds, strict=True)
    return Figures(*(None if None in column else statistics.median(column) for column in columns))  # type: ignore[arg-type]


def main() -> int:
    """Measure, print the table, judge. Exit status 0 when both sides ran to the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, fewer streams: a look, not a figure to quote")
    parser.add_argument("--vllm-python", help="an interpreter that has vLLM")
    args = parser.parse_args()
    rival = "vllm bench serve" if args.vllm_python else "aiohttp (stand-in)"
    against = vllm(args.vllm_python) if args.vllm_python else lambda *a: compared(aiohttp_client, *a)
    sides = {"sotad": lambda *a: compared(ours, *a), rival: against}
    rows, verdicts = [], []
    for load in LOADS:
        for streams in (1, 64) if args.quick else (1, 64, 512, 2048):
            found = _measured(sides, load, streams, 1 if args.quick else 3)
            rows += [(load.name, streams, side, *figures) for side, figures in found.items()]
            verdicts.append(_verdict(load, streams, found["sotad"], found[rival]))
            print(*verdicts[-1], file=sys.stderr, flush=True)
    headers = ["load", "streams", "client", "req/s", "tok/s", "us/event"]
    headers += ["TTFT + p50", "p99", "ITL ± p50", "p99"]
    formats = ("", "", "", ".0f", ".0f", ".1f", ".3f", ".3f", ".3f", ".3f")
    print(tabulate(rows, headers, floatfmt=formats, missingval="-"))
    print()
    print(tabulate(verdicts, ["load", "streams", "rate / rival's (goal 2)", "TTFT + p99 / rival's (goal 0.5)", ""]))
    return 0


def _measured(
    sides: dict[str, Callable[[Path, Load, int], Figures]], load: Load, streams: int, rounds: int
) -> dict[str, Figures]:
    """Both sides in turn, so that the machine's mood meets them alike."""
    found: dict[str, list[Figures]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                found[side].append(run(Path(folder), load, streams))
    return {side: middle(each) for side, each in found.items()}


def _verdict(load: Load, streams: int, our: Figures, rival: Figures) -> tuple[str, int, str, str, str]:
    """A paced load has the server's rate, whoever asks."""
    rate, late = our.requests_s / rival.requests_s, our.ttft_p99 / rival.ttft_p99
    met = late <= 0.5 and (load.pause_ms > 0 or rate >= 2)
    said = "-" if load.pause_ms else f"{rate:.2f}"
    return load.name, streams, said, f"{late:.2f}", "met" if met else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
