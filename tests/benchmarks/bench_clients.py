"""The load generator beside ``vllm bench serve``, both on one server that runs already, in turn.

Run it with ``python tests/benchmarks/bench_clients.py URL --tokenizer FOLDER --vllm-python PYTHON``. The server is the
user's: a real engine, on a GPU where there is one. A round asks each client for the same number of requests of the
same lengths at the same concurrency, in the order ours, theirs, theirs, ours, each time with prompts that were never
sent before, so that no prefix cache helps either.

"noise" is the standard deviation between the runs of ``vllm bench serve`` alone; the goal is that the two clients'
means are no further apart than twice that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from sotad.results.convert import from_vllm

METRICS = {"request_throughput": "requests/s", "p50_ttft_ms": "median TTFT, ms", "p50_tpot_ms": "median TPOT, ms"}
OURS, THEIRS = "sotad", "vllm bench serve"
TURN = (OURS, THEIRS, THEIRS, OURS)
WARMUPS = 8
LIMIT_S = 600
TRIES = 3

Row = dict[str, float]


class Scenario(NamedTuple):
    """Lengths in tokens, requests a run, and how many of them are under way at once."""

    input_len: int
    output_len: int
    num_prompts: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.input_len}/{self.output_len}, {self.num_prompts} requests, {self.concurrency} at once"


def scenario(text: str) -> Scenario:
    """``IN/OUT:REQUESTS:CONCURRENCY``."""
    try:
        lengths, requests, concurrency = text.split(":")
        return Scenario(*map(int, (*lengths.split("/"), requests, concurrency)))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not IN/OUT:REQUESTS:CONCURRENCY, as 512/64:96:16") from None


def ours(args: argparse.Namespace, load: Scenario, seed: int, folder: Path) -> Row:
    """One run of ``sotactl bench run``; what it calls invalid, as when it was kept from running, is said and redone."""
    for _ in range(TRIES):
        row = _asked(args, load, seed)
        if row["status"] == "ok":
            return _metrics(row["metrics"])
        print(f"{OURS}: {row['failure_reason']}", file=sys.stderr, flush=True)
        seed += 1_000_000
    raise SystemExit(f"{OURS} failed {TRIES} times")


def _asked(args: argparse.Namespace, load: Scenario, seed: int) -> dict[str, Any]:
    argv = [sys.executable, "-m", "sotad.cli.control", "bench", "run", args.url, "--json", "--seed", str(seed)]
    argv += ["--input-len", str(load.input_len), "--output-len", str(load.output_len), "--warmup", str(WARMUPS)]
    argv += ["--num-prompts", str(load.num_prompts), "--concurrency", str(load.concurrency)]
    argv += ["--tokens", args.tokens]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S)
    found: dict[str, Any] = json.loads(done.stdout)["rows"][0]
    return found


def theirs(args: argparse.Namespace, load: Scenario, seed: int, folder: Path) -> Row:
    """One run of ``vllm bench serve``, by its result file."""
    argv = [args.vllm_python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai"]
    argv += ["--base-url", args.url, "--endpoint", "/v1/completions", "--model", args.model]
    argv += ["--tokenizer", str(args.tokenizer), "--dataset-name", "random", "--ignore-eos", "--disable-tqdm"]
    argv += ["--random-input-len", str(load.input_len), "--random-output-len", str(load.output_len)]
    argv += ["--num-prompts", str(load.num_prompts), "--max-concurrency", str(load.concurrency)]
    argv += ["--num-warmups", str(WARMUPS), "--seed", str(seed), "--save-result", "--result-dir", str(folder)]
    argv += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--result-filename", "result.json"]
    with (folder / "log").open("w+") as log:
        if subprocess.run(argv, stdout=log, stderr=log, timeout=LIMIT_S).returncode:
            log.seek(0)
            raise SystemExit(f"{THEIRS} failed:\n{log.read()[-2000:]}")
    result = folder / "result.json"
    row = from_vllm(json.loads(result.read_bytes()), result, 0, "server")
    return _metrics(row["metrics"])


def _metrics(found: Row) -> Row:
    """The figures that are compared. Raises: SystemExit when a request failed: there is nothing to compare then."""
    if found["success_rate"] != 1:
        raise SystemExit(f"requests failed, only {found['success_rate']:.1%} were answered")
    return {name: found[name] for name in METRICS}


def compared(rows: dict[str, list[Row]], name: str) -> tuple[str, ...]:
    """A line of the table: both means, their distance, and what the rival's own runs vary by."""
    mine, other = ([row[name] for row in rows[client]] for client in (OURS, THEIRS))
    mean = statistics.mean(other)
    distance = 100 * (statistics.mean(mine) / mean - 1)
    noise = [100 * statistics.stdev(values) / statistics.mean(values) for values in (mine, other)]
    verdict = "within" if abs(distance) <= 2 * noise[1] else "BEYOND"
    means = (f"{statistics.mean(values):.2f}" for values in (mine, other))
    return METRICS[name], *means, f"{distance:+.2f}%", f"{noise[0]:.2f}%", f"{noise[1]:.2f}%", verdict


def main() -> int:
    """Measure, print a table for each scenario. Exit status 0 when every run came to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", metavar="URL", help="the server, as http://host:port; without /v1")
    parser.add_argument("--model", required=True, help="the model's name there")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder that vllm bench serve makes prompts with")
    parser.add_argument("--vllm-python", required=True, help="an interpreter that has vLLM")
    parser.add_argument("--scenario", type=scenario, action="append", metavar="IN/OUT:REQUESTS:CONCURRENCY")
    parser.add_argument("--rounds", type=int, default=3, help="four runs each (default: %(default)s)")
    parser.add_argument("--tokens", default="300,30000", help="token ids of our prompts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each further run has the next one")
    args = parser.parse_args()
    clients, seed = {OURS: ours, THEIRS: theirs}, args.seed
    for load in args.scenario or [Scenario(512, 64, 96, 16), Scenario(2048, 64, 80, 16)]:
        rows: dict[str, list[Row]] = {OURS: [], THEIRS: []}
        for client in TURN * args.rounds:
            with tempfile.TemporaryDirectory() as folder:
                rows[client].append(clients[client](args, load, seed, Path(folder)))
            print(f"{load}, seed {seed}, {client}: {rows[client][-1]}", file=sys.stderr, flush=True)
            seed += 1
        headers = ["", OURS, THEIRS, "distance", "noise of ours", "noise of theirs", "2x that (goal)"]
        print(f"{load}; {len(rows[OURS])} runs each\n")
        print(tabulate([compared(rows, name) for name in METRICS], headers, tablefmt="github", disable_numparse=True))
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
