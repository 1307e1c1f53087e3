"""``bench compare``: rows of any origin, ranked, with what makes the comparison fair or not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import add_json
from sotad.cli.output import clean, say
from sotad.errors import BadInput
from sotad.results.sla import LIMITS, limit

if TYPE_CHECKING:
    from sotad.results.shown import Format

WHAT = """\
Compare benchmark results: the best command of each framework, all frameworks side by side for each scenario, what
failed and why, and whether the comparison is fair.

ROWS are files or folders with one JSON object a line, as campaigns, `sotactl bench run` and others write them. What
`vllm bench serve --save-result` and `sglang.bench_serving --output-file` write is read too; where such a file does
not say which server it measured, put the framework's name before it: vllm=result.json.

A row can win if it ran and its metrics meet its SLA; that is recomputed, whatever the row says. The first key is
requests per second, then output tokens per second, TTFT, TPOT and fewer GPUs. Runs at different request rates or
concurrency are never ranked together. A row that cannot be true (NaN, p50 above p99, seconds for milliseconds, the
same candidate twice) ends the command with a line that says where; nothing is left out silently.
"""
EPILOG = """\
examples:
  sotactl bench compare benchmark/candidates.jsonl
  sotactl bench compare runs/ --format html --out compare.html
  sotactl bench compare vllm=vllm.json sglang=sglang.jsonl --sla max_p50_ttft_ms=1500 --sla max_p50_tpot_ms=30 \\
      --sla min_success_rate=0.99
  sotactl bench compare rows.jsonl --target sglang --json | jq .handoff

exit status: 0 the rows were compared, also when they turn out not to be comparable (the output says so, as does
.comparable in the JSON); 2 a row or an argument is wrong
"""


def add(commands: Any) -> None:
    """Add the command to the group's parser."""
    parser = commands.add_parser(
        "compare", help="rank result rows and say whether that is fair", description=WHAT, epilog=EPILOG
    )
    parser.add_argument("rows", metavar="ROWS", nargs="+", help="file or folder, or NAME=FILE to name its framework")
    parser.add_argument("--target", metavar="NAME", help="framework to optimise: note what to profile where it lost")
    parser.add_argument(
        "--sla",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_limit,
        help=f"limit in place of the rows' own, repeatable: {', '.join(LIMITS)}",
    )
    parser.add_argument(
        "--by",
        choices=("request_throughput", "output_token_throughput"),
        default="request_throughput",
        help="what to rank by first (default: %(default)s)",
    )
    parser.add_argument("--format", choices=("markdown", "csv", "html", "json"), help="default: markdown")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of to stdout")
    add_json(parser)
    parser.set_defaults(run=_compare)


def _limit(text: str) -> tuple[str, float]:
    try:
        return limit(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _compare(args: argparse.Namespace) -> int:
    from sotad.results.files import read
    from sotad.results.shown import report

    if args.json and args.format not in (None, "json"):
        raise BadInput(f"--json and --format {args.format} exclude each other", "leave out one of them")
    kind: Format = "json" if args.json else args.format or "markdown"
    found = read(args.rows)
    frameworks = sorted({row["framework"] for row in found.rows})
    if args.target and frameworks and args.target not in frameworks:
        raise BadInput(f"--target {args.target}: no row is of that framework", f"there is: {', '.join(frameworks)}")
    text = report(found, args.target, dict(args.sla), args.by).rendered(kind)
    if args.out is None:
        _print(text, kind)
    else:
        args.out.write_bytes(text)
        say(f"{args.out}: {len(found.rows)} rows compared")
    return 0


def _print(text: bytes, kind: Format) -> None:
    shown = text.decode()
    sys.stdout.write(clean(shown) if kind in ("markdown", "csv") else shown)
