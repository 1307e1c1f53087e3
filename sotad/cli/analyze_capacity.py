"""``analyze capacity``: a server's start-up log as memory breakdown, KV capacity, request capacity and remedies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import add_json
from sotad.cli.output import clean, emit_json
from sotad.errors import BadInput

if TYPE_CHECKING:
    from sotad.capacity.concurrency import Length

WHAT = """\
Read a server's start-up log: where the GPU's memory went, how many tokens the KV cache holds, how many requests of a
length fit at once, what could be changed, and, if the server ran out of memory, in which phase and what helps.

LOG is what SGLang, vLLM, TensorRT-LLM or TokenSpeed print from their start on (.gz too), with all ranks, colours and
progress bars. Each number is read from a line, which is named, or derived by a formula, which is shown; what the log
does not say is unknown (null in JSON). If the file holds several starts, the last complete one is shown.
"""
EPILOG = """\
examples:
  sotactl analyze capacity server.log
  sotactl analyze capacity server.log --request-tokens 2048,1000+500 --config model/config.json
  nvidia-smi --query-gpu=index,memory.used,memory.free,memory.total --format=csv > smi.csv
  sotactl analyze capacity server.log --nvidia-smi smi.csv --rank 1 --json | jq .kv_cache_tokens

GiB and GB are both 2**30 bytes here: the engines divide by that, whichever of the two they print.

exit status: 0 the log was understood, also in part (then .warnings says what is missing); 2 no line about memory was
recognised, or an argument is wrong
"""


def add(commands: Any) -> None:
    """Add the command to the group's parser."""
    parser = commands.add_parser(
        "capacity",
        help="memory, KV tokens and request capacity from a server's start-up log",
        description=WHAT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", metavar="LOG", type=Path, help="the server's whole output, from its start")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="the model's config.json: bytes for a token, windows"
    )
    parser.add_argument(
        "--nvidia-smi", metavar="FILE", type=Path, help="its CSV, its table, or -q, while the server runs"
    )
    parser.add_argument(
        "--request-tokens",
        metavar="N,N",
        type=_lengths,
        default="4096,6144,8192",
        help="lengths of requests, or input+output as 1000+500 (default: %(default)s)",
    )
    parser.add_argument("--rank", metavar="N", help="TP rank to show, or a place such as DP1TP3 (default: the first)")
    parser.add_argument(
        "--session", metavar="N", type=int, help="which start in the file, from 1 (default: last complete)"
    )
    parser.add_argument("--format", choices=("markdown", "json"), help="default: markdown")
    add_json(parser)
    parser.set_defaults(run=_capacity)


def _lengths(text: str) -> list[Length]:
    from sotad.capacity.concurrency import parse_lengths

    try:
        return parse_lengths(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _capacity(args: argparse.Namespace) -> int:
    from sotad.capacity.errors import CapacityError
    from sotad.capacity.report import Asked, analyse
    from sotad.capacity.shown import markdown

    if args.json and args.format == "markdown":
        raise BadInput("--json and --format markdown exclude each other", "leave out one of them")
    asked = Asked(args.request_tokens, args.config, args.nvidia_smi, args.rank, args.session)
    try:
        report = analyse(args.log, asked)
    except CapacityError as error:
        raise BadInput(str(error), "") from None
    if args.json or args.format == "json":
        emit_json(report)
    else:
        sys.stdout.write(clean(markdown(report)))
    return 0
