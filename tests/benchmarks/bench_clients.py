"""The load generator beside ``vllm bench serve``, both on one server that runs already, in turn.

Run it with ``python tests/benchmarks/bench_clients.py URL --tokenizer FOLDER --vllm-python PYTHON``. The server is the
user's: a real engine, on a GPU where there is one. A round asks each client for requests of the same lengths at the
same concurrency, in the order ours, theirs, theirs, ours. Each run has a file of new prompts, so that no prefix cache
helps; both clients read such a file, send its text, and ask for greedy answers. (By itself ``vllm bench serve`` leaves
the temperature to the server, which then samples, and ours sends token ids, which the server need not tokenize.)

"noise" is the standard deviation between the runs of ``vllm bench serve`` alone; the goal is that the two clients'
means are no further apart than twice that.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from sotad.benchmark.tokens import load_tokenizer, text_of_length
from sotad.results.convert import from_vllm

METRICS = {"request_throughput": "requests/s", "p50_ttft_ms": "median TTFT, ms", "p50_tpot_ms": "median TPOT, ms"}
OURS, THEIRS = "sotad", "vllm bench serve"
TURN = (OURS, THEIRS, THEIRS, OURS)
WARMUPS = 8
LIMIT_S = 600
TRIES = 3

Row = dict[str, float]


class Scenario(NamedTuple):
    """Lengths in tokens, requests a run, and how many of them are under way at once. Answers' lengths are spread
    evenly from the first of ``output_len`` to the last, in random order."""

    input_len: int
    output_len: tuple[int, int]
    num_prompts: int
    concurrency: int

    def __str__(self) -> str:
        low, high = self.output_len
        answer = f"{low}" if low == high else f"{low} to {high}"
        return f"{self.input_len}/{answer}, {self.num_prompts} requests, {self.concurrency} at once"


def scenario(text: str) -> Scenario:
    """``IN/OUT:REQUESTS:CONCURRENCY``, OUT a number or ``LOW-HIGH``."""
    try:
        lengths, requests, concurrency = text.split(":")
        prompt, answer = lengths.split("/")
        low, _, high = answer.partition("-")
        return Scenario(int(prompt), (int(low), int(high or low)), int(requests), int(concurrency))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not IN/OUT:REQUESTS:CONCURRENCY, as 512/64:96:16") from None


def write_prompts(args: argparse.Namespace, load: Scenario, seed: int, path: Path) -> None:
    """The rows of one run: a text of exactly ``input_len`` tokens, and the answer's length as each client calls it."""
    tokenizer, draw = load_tokenizer(args.tokenizer), random.Random(f"{seed} {load}")
    first, last = map(int, args.tokens.split(","))
    low, high = load.output_len
    lengths = [low + index * (high - low) // max(1, load.num_prompts - 1) for index in range(load.num_prompts)]
    draw.shuffle(lengths)
    with path.open("w") as file:
        for length in lengths:
            text = text_of_length(tokenizer, [draw.randint(first, last) for _ in range(load.input_len)])
            file.write(json.dumps({"prompt": text, "output_len": length, "output_tokens": length}) + "\n")


def ours(args: argparse.Namespace, load: Scenario, seed: int, folder: Path) -> Row:
    """One run of ``sotactl bench run``; what it calls invalid, as when it was kept from running, is said and redone."""
    for turn in range(TRIES):
        row = _asked(args, load, seed + turn * 1_000_000, folder / "prompts.jsonl")
        if row["status"] == "ok":
            return _metrics(row["metrics"])
        print(f"{OURS}: {row['failure_reason']}", file=sys.stderr, flush=True)
    raise SystemExit(f"{OURS} failed {TRIES} times")


def _asked(args: argparse.Namespace, load: Scenario, seed: int, prompts: Path) -> dict[str, Any]:
    write_prompts(args, load, seed, prompts)
    argv = [sys.executable, "-m", "sotad.cli.control", "bench", "run", args.url, "--json", "--seed", str(seed)]
    argv += ["--dataset", str(prompts), "--warmup", str(WARMUPS)]
    argv += ["--num-prompts", str(load.num_prompts), "--concurrency", str(load.concurrency)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S)
    found: dict[str, Any] = json.loads(done.stdout)["rows"][0]
    return found


def theirs(args: argparse.Namespace, load: Scenario, seed: int, folder: Path) -> Row:
    """One run of ``vllm bench serve``, by its result file."""
    prompts = folder / "prompts.jsonl"
    write_prompts(args, load, seed, prompts)
    argv = [args.vllm_python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai"]
    argv += ["--base-url", args.url, "--endpoint", "/v1/completions", "--model", args.model]
    argv += ["--tokenizer", str(args.tokenizer), "--dataset-name", "custom", "--dataset-path", str(prompts)]
    argv += ["--custom-output-len", "-1", "--skip-chat-template", "--disable-tqdm"]
    argv += ["--temperature", "0", "--ignore-eos"]
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
    parser.add_argument("--tokenizer", type=Path, required=True, help="the model's folder, with tokenizer.json")
    parser.add_argument("--vllm-python", required=True, help="an interpreter that has vLLM")
    parser.add_argument("--scenario", type=scenario, action="append", metavar="IN/OUT:REQUESTS:CONCURRENCY")
    parser.add_argument("--rounds", type=int, default=3, help="four runs each (default: %(default)s)")
    parser.add_argument("--tokens", default="300,30000", help="token ids of prompts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each further run has the next one")
    args = parser.parse_args()
    clients, seed = {OURS: ours, THEIRS: theirs}, args.seed
    for load in args.scenario or [Scenario(512, (64, 64), 96, 16), Scenario(2048, (64, 64), 80, 16)]:
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
