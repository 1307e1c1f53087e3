"""``analyze trace``: where the time of a profiler trace goes, and what one framework spends more than another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import add_json
from sotad.cli.output import clean, say
from sotad.errors import BadInput

if TYPE_CHECKING:
    from sotad.analysis.shown import Format
    from sotad.analysis.triage import Analysis, Request

WHAT = """\
Explain profiler traces: kernels by stage, what could run beside or be fused with what, and where time is lost.

PATH is a Chrome trace of torch.profiler (.json or .json.gz) of SGLang, vLLM or another engine, or a folder of them:
ranks are added up, prefill and decode kept apart. Give --mapping traces of the same model with CUDA graphs off to
name the Python lines of the kernels in a trace with CUDA graphs: files, or a folder with one for each stage.

With --against, a second framework's trace is read too: which stage is slower, by how many milliseconds per step, and
which rows explain it. A step is its kernels, its copies and the pauses until the next one, so the rows add up to the
difference. Steps are compared at equal batch sizes, prompts per token; what cannot be compared is refused with the
reason. Differences that the noise of the steps explains are marked.

Every row has an id that stays the same from trace to trace, so that a root cause can cite it.
"""
EPILOG = """\
examples:
  sotactl analyze trace profiles/decode-TP-0.trace.json.gz
  sotactl analyze trace sglang/decode --against vllm/decode --names sglang,vllm
  sotactl analyze trace served.trace.json.gz --mapping eager.trace.json.gz --format html --out triage.html
  sotactl analyze trace prefill.json.gz decode.json.gz --json | jq '.stages.decode.kernel_rows[0]'

exit status: 0 the traces were read, also when they turn out not to be comparable (the output says so); 2 a trace or
an argument is wrong
"""
FRAMEWORKS = ("auto", "sglang", "vllm", "trtllm", "tokenspeed", "reference")


def add(commands: Any) -> None:
    """Add the command to the group's parser."""
    parser = commands.add_parser(
        "trace", help="tables of a profiler trace, and the difference of two", description=WHAT, epilog=EPILOG
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="trace file or folder of traces")
    parser.add_argument(
        "--mapping", metavar="PATH", type=Path, nargs="+", default=[], help="traces without CUDA graphs, for lines only"
    )
    parser.add_argument(
        "--against", metavar="PATH", type=Path, nargs="+", help="traces of the framework to compare with"
    )
    parser.add_argument(
        "--against-mapping", metavar="PATH", type=Path, nargs="+", default=[], help="the same for those of --against"
    )
    parser.add_argument("--names", metavar="A,B", type=_names, help="what to call the two sides (default: as detected)")
    parser.add_argument(
        "--framework", choices=FRAMEWORKS, default="auto", help="which fusions to look for (default: as detected)"
    )
    parser.add_argument("--model", metavar="NAME", help="model, for fusions that only some models have")
    parser.add_argument("--tp-size", metavar="N", type=_positive, help="tensor parallel size (default: as recorded)")
    parser.add_argument(
        "--min-share", metavar="PERCENT", type=_share, default=1.0, help="leave out smaller rows (default: 1.0)"
    )
    parser.add_argument(
        "--stage", metavar="STAGE", default="auto", help="prefill, decode, ...: of a trace that marks no steps"
    )
    parser.add_argument("--format", choices=("markdown", "html", "json"), help="default: markdown")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of to stdout")
    add_json(parser)
    parser.set_defaults(run=_analyze)


def _names(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: give two different names, as in sglang,vllm")
    return names[0], names[1]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: give percent, 0 to 100")
    return value


def _analyze(args: argparse.Namespace) -> int:
    from sotad.analysis.shown import report

    if args.json and args.format not in (None, "json"):
        raise BadInput(f"--json and --format {args.format} exclude each other", "leave out one of them")
    if args.names and not args.against:
        raise BadInput("--names is for two sides", "add --against PATH, or leave it out")
    kind: Format = "json" if args.json else args.format or "markdown"
    if args.against_mapping and not args.against:
        raise BadInput("--against-mapping is for a second side", "add --against PATH, or leave it out")
    target, leader = _read(args)
    text = report(target, leader).rendered(kind)
    if args.out is None:
        shown = text.decode()
        sys.stdout.write(clean(shown) if kind == "markdown" else shown)
    else:
        args.out.write_bytes(text)
        say(f"{args.out}: {target.tables['kernels']} kernels explained")
    return 0


def _read(args: argparse.Namespace) -> tuple[Analysis, Analysis | None]:
    from sotad.analysis.triage import Request
    from sotad.trace.errors import TraceError

    def request(paths: Sequence[Path], mapping: Sequence[Path], name: str | None) -> Request:
        stage = None if args.stage == "auto" else args.stage
        return Request(paths, mapping, name, args.framework, args.model, args.tp_size, args.min_share, stage)

    names = args.names or (None, None)
    try:
        target = _one(request(args.paths, args.mapping, names[0]))
        leader = _one(request(args.against, args.against_mapping, names[1])) if args.against else None
    except TraceError as error:
        text, _, advice = str(error).rpartition("; ")
        raise BadInput(text or advice, advice if text else "") from None
    return target, leader


def _one(request: Request) -> Analysis:
    from sotad.analysis.triage import analyse

    return analyse(request)
