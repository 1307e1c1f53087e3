"""``bench run``: measure any endpoint that speaks the OpenAI API, from here and now."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import add_tokens, subcommand
from sotad.cli.output import emit_json, say, table
from sotad.errors import BadInput, EngineFault

if TYPE_CHECKING:
    from sotad.loadgen.plan import Plan
    from sotad.loadgen.spec import LoadSpec

JSON = dict[str, Any]
EXAMPLES = """\
  sotactl bench run http://127.0.0.1:8000 --input-len 1000 --output-len 200 --concurrency 1 --concurrency 16
      16 and 1 requests at a time, each sent when one before it is done; the model is asked of the server
  sotactl bench run URL --request-rate 4 --arrival gamma --burstiness 0.5 --num-prompts 200 --concurrency none
      4 requests a second in bursts, as many under way as it takes
  sotactl bench run URL --dataset ShareGPT.json --tokenizer tokenizer.json --chat
      real conversations; the answers' lengths are counted with the tokenizer
  sotactl bench run URL --trace requests.jsonl --time-scale 0.5
      a recorded day at twice its pace
  sotactl bench run URL --sla max_p50_ttft_ms=500 --sla min_success_rate=0.99 --out rows.jsonl
      one result row per scenario is appended; exit status 1 when a limit does not hold

datasets are JSON Lines with prompt and output_len in each row, or a ShareGPT JSON array; traces also have a
timestamp (seconds) in each row. TTFT: sending to first token. TPOT: mean time per further token. ITL: time
between two pieces of the stream. E2E: sending to last token. goodput: requests per second that each met the
latency limits of --sla.

exit status: 0 measured, and the SLA holds; 1 a run is invalid, failed, or misses the SLA; 2 bad usage or input;
130 after Ctrl-C, with what was measured until then"""


def add(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = subcommand(commands, "run", "measure an OpenAI-compatible endpoint", EXAMPLES)
    parser.add_argument("url", metavar="URL", help="the server, as http://host:port; without /v1")
    parser.add_argument("--model", help="model to ask for (default: the one that /v1/models lists)")
    parser.add_argument("--chat", action="store_true", help="use /v1/chat/completions instead of /v1/completions")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the API key")
    _add_workload(parser.add_argument_group("what is sent"))
    _add_pace(parser.add_argument_group("how it is sent"))
    verdict = parser.add_argument_group("what becomes of it")
    what = "a limit: max_p50_ttft_ms, max_p50_tpot_ms, max_p50_e2e_ms, min_success_rate (default 1); repeatable"
    verdict.add_argument("--sla", metavar="KEY=VALUE", action="append", default=[], type=_limit, help=what)
    verdict.add_argument("--out", metavar="FILE", type=Path, help="append one result row (JSON) per scenario")
    verdict.add_argument("--name", default="cli", help="what the rows call the scenario (default: %(default)s)")
    parser.set_defaults(run=_run)


def _add_workload(group: Any) -> None:
    group.add_argument("--input-len", type=int, metavar="TOKENS", help="prompt length (default: 512)")
    group.add_argument("--output-len", type=int, metavar="TOKENS", help="answer length (default: 128)")
    group.add_argument("--shared-prefix-len", type=int, metavar="TOKENS", default=0, help="common start of all prompts")
    group.add_argument("--num-prompts", type=int, default=80, metavar="N", help="requests (default: %(default)s)")
    group.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: %(default)s)")
    add_tokens(group)
    files = group.add_mutually_exclusive_group()
    files.add_argument("--dataset", type=Path, metavar="FILE", help="prompts: JSON Lines, or .json for ShareGPT")
    files.add_argument("--trace", type=Path, metavar="FILE", help="requests with timestamps, JSON Lines or CSV")
    group.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where tokens must be counted")
    group.add_argument("--warmup", type=int, metavar="N", help="requests before it that are not measured (default: 2)")


def _add_pace(group: Any) -> None:
    what = "requests under way at most, or none for no limit; repeatable (default: 8)"
    group.add_argument("--concurrency", metavar="N", action="append", type=_concurrency, help=what)
    group.add_argument("--request-rate", type=float, metavar="PER_S", help="requests per second (default: closed loop)")
    kinds = ("closed", "poisson", "gamma", "constant", "trace")
    group.add_argument("--arrival", choices=kinds, help="default: closed, poisson with a rate, trace with --trace")
    group.add_argument("--burstiness", type=float, default=1.0, help="gamma: below 1 in bursts, above 1 more even")
    group.add_argument("--time-scale", type=float, default=1.0, help="trace: its gaps are multiplied by this")
    group.add_argument("--timeout", type=float, default=600.0, metavar="S", help="for one request (default: 600)")
    group.add_argument("--processes", type=int, metavar="N", help="that send (default: by cores and concurrency)")


def _limit(text: str) -> tuple[str, float]:
    known = ("max_p50_ttft_ms", "max_p50_tpot_ms", "max_p50_e2e_ms", "min_success_rate")
    key, _, value = text.partition("=")
    if key not in known:
        raise argparse.ArgumentTypeError(f"{key!r} is not one of {', '.join(known)}")
    try:
        return key, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=NUMBER") from None


def _concurrency(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdigit() or text == "0":
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 on nor none")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from sotad.cli.entry import INTERRUPTED

    if args.out and not args.out.parent.is_dir():
        raise BadInput(f"{args.out.parent}: no such folder", "make it, or choose another --out")
    levels = args.concurrency or [8]
    model = args.model or _only_model(args)
    specs = [_spec(args, model, level, len(levels) > 1) for level in levels]
    rows, interrupted = [], False
    for spec in specs:
        report = _measure(spec)
        rows.append(_keep(args, spec, report))
        if not args.json:
            print(_readable(spec, report, rows[-1]), flush=True)
        if interrupted := report["interrupted"]:
            say(f"stopped: {spec.scenario.name} is partial, and no result")
            break
    if args.json:
        emit_json({"rows": rows, "interrupted": interrupted})
    return INTERRUPTED if interrupted else 0 if all(map(_fine, rows)) else 1


def _fine(row: JSON) -> bool:
    return row["status"] == "ok" and not row["sla_failures"]


def _spec(args: argparse.Namespace, model: str, level: int | None, many: bool) -> LoadSpec:
    from pydantic import ValidationError

    from sotad.loadgen.spec import LoadSpec

    file = args.dataset or args.trace
    kind = "trace" if args.trace else "random" if not file else "sharegpt" if file.suffix == ".json" else "jsonl"
    scenario = {
        "name": f"{args.name}-c{level or 'none'}" if many else args.name,
        "kind": kind,
        "dataset": file,
        "tokenizer": args.tokenizer,
        "num_prompts": args.num_prompts,
        "input_len": args.input_len or (None if file else 512),
        "output_len": args.output_len or (None if file else 128),
        "shared_prefix_len": args.shared_prefix_len,
        "seed": args.seed,
        "first_token": args.tokens[0],
        "last_token": args.tokens[1],
    }
    try:
        return LoadSpec(
            base_url=args.url.rstrip("/").removesuffix("/v1"),
            endpoint="/v1/chat/completions" if args.chat else "/v1/completions",
            model=model,
            api_key_env=args.api_key_env,
            scenario=scenario,  # type: ignore[arg-type]  # pydantic makes the scenario
            request_rate=args.request_rate,
            arrival=args.arrival or ("trace" if args.trace and args.request_rate is None else None),
            burstiness=args.burstiness,
            time_scale=args.time_scale,
            max_concurrency=level,
            warmup_requests=2 if args.warmup is None else args.warmup,
            timeout_s=args.timeout,
            processes=args.processes,
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"])) or "the options"
        raise BadInput(f"{place}: {wrong['msg']}", "see `sotactl bench run --help`") from None


def _only_model(args: argparse.Namespace) -> str:
    """The model that the server lists."""
    import json
    import os
    import urllib.error
    import urllib.request

    url = args.url.rstrip("/").removesuffix("/v1") + "/v1/models"
    key = os.environ.get(args.api_key_env or "", "")
    try:
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            models = [each["id"] for each in json.loads(answer.read())["data"]]
    except urllib.error.HTTPError as error:
        raise EngineFault(f"{url} answered {error.code}", "name the model with --model") from None
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise EngineFault(f"{url}: {reason}", "check that the server runs and the URL is right") from None
    except (ValueError, KeyError, TypeError):
        raise EngineFault(f"{url}: the answer is no list of models", "name the model with --model") from None
    if len(models) != 1:
        raise BadInput(
            f"{url} lists {len(models)} models: {', '.join(map(str, models[:5]))}", "choose one with --model"
        )
    return str(models[0])


def _measure(spec: LoadSpec) -> JSON:
    from sotad.loadgen.program import BAD_INPUT, until_told_to_stop
    from sotad.loadgen.report import measure
    from sotad.loadgen.run import WorkerDied

    try:
        return until_told_to_stop(_watched(measure, spec))
    except BAD_INPUT as error:
        raise BadInput(str(error)) from None
    except WorkerDied as error:
        raise EngineFault(str(error), "look at the messages above") from None


async def _watched(measure: Any, spec: LoadSpec) -> JSON:
    """The measurement, with a line on stderr twice a second."""
    import asyncio

    watching: list[asyncio.Task[None]] = []

    def watch(plan: Plan) -> None:
        watching.append(asyncio.create_task(_show_progress(plan, spec.scenario.name)))

    try:
        report: JSON = await measure(spec, watch)
    finally:
        for task in watching:
            task.cancel()
    return report


async def _show_progress(plan: Plan, name: str) -> None:
    import asyncio

    from sotad.loadgen.plan import progress

    while True:
        await asyncio.sleep(2)
        done, failed = progress(plan)
        say(f"{name}: {done} of {len(plan.ends)} requests done" + (f", {failed} failed" if failed else ""))


def _keep(args: argparse.Namespace, spec: LoadSpec, report: JSON) -> JSON:
    """The scenario's row, appended to --out; with what the SLA, as far as it was given, finds wrong."""
    import json
    import os
    import sys

    from sotad.benchmark.metrics import errors_by_kind, make_row
    from sotad.results.scrub import scrubber
    from statemachine.ranking import sla_failures

    sla = {"min_success_rate": 1.0, **dict(args.sla)} if args.sla else {}
    about = {"candidate_id": "endpoint", "framework": "openai", "model": spec.model, "sla": sla}
    row = make_row(report, {**about, "server_command": None, "benchmark_command": sys.argv})
    failures = [failure for failure in sla_failures(row["metrics"], sla) if failure.key in sla]
    row |= {"sla_failures": [failure._asdict() for failure in failures], "errors": errors_by_kind(report)}
    row["sla"]["passed"] = bool(sla) and row["status"] == "ok" and not failures
    row["client"] = {name: value for name, value in report["client"].items() if name != "processes"}
    clean_row: JSON = scrubber(os.environ)(row)
    if args.out:
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean_row, separators=(",", ":")) + "\n")
    return clean_row


def _readable(spec: LoadSpec, report: JSON, row: JSON) -> str:
    measured, client = row["metrics"], row["client"]
    latencies = [
        (name.upper(), *(_number(measured[f"{which}_{name}_ms"]) for which in ("mean", "p50", "p90", "p95", "p99")))
        for name in ("ttft", "tpot", "itl", "e2e")
    ]
    rates = ("request_throughput", "goodput", "output_token_throughput", "total_token_throughput", "success_rate")
    sources = {each["tokens_source"] for each in report["requests"] if each["error"] is None}
    asked = f"{spec.scenario.num_prompts} requests to {spec.base_url}{spec.endpoint}"
    lines = [
        f"{spec.scenario.name}: {asked} in {report['duration_s']:.2f} s",
        table(latencies, ("ms", "MEAN", "P50", "P90", "P95", "P99")),
        table([[_number(measured.get(name)) for name in rates]], ("REQ/S", "GOODPUT", "OUT TOK/S", "TOK/S", "SUCCESS")),
        f"tokens counted by: {', '.join(sorted(sources)) or 'nobody'}; workload {report['workload_digest'][:16]}",
        f"client: sent late p99 {_number(client['late_ms_p99'])} ms, busy {_number(client['busy_share'])}, "
        f"loop lag p50 {_number(client['lag_ms_p50'])} ms",
        *(f"errors: {count} {kind}" for kind, count in row["errors"].items()),
        *(f"SLA missed: {f['key']} is {_number(f['observed'])}, limit {f['limit']}" for f in row["sla_failures"]),
    ]
    return "\n".join([*lines, *([f"NO RESULT: {row['failure_reason']}"] if row["failure_reason"] else []), ""])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"
