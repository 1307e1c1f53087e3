"""``analyze pipeline``: forward passes, layers and kernels of a GPU trace."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sotad.cli.options import add_json
from sotad.cli.output import clean, say
from sotad.errors import BadInput

WHAT = """\
Cut a GPU trace into forward passes, the passes into layers, and say where the time goes: prefill and decode apart,
cold passes apart from steady ones, layers that run the same kernels as one cluster with its share of the pass, the
kernels of a typical layer in order, and time ranges to paste into Perfetto.

TRACE is a PyTorch profiler trace (.json, .json.gz) or a folder of ranks. Passes are taken from the engine's step
annotations, else from CUDA graph replays, else from idle gaps that recur, else by counting. Layers are counted by a
kernel that stands once in each (attention, for most models); with a config.json of the model that count is checked,
without one the most plausible is taken and its confidence shown. When the count does not fit, the report says
"layer segmentation unreliable" and how many were found, and cuts nothing.
"""
EPILOG = """\
how to read it: the line in bold is the verdict; then look at the cluster with the largest share of the pass, then at
the compute flow of the layer shown for it. "gap" is time inside a layer when the device runs nothing, "wait after"
the same between two layers, "exposed comm" communication that no other kernel hides.

examples:
  sotactl analyze pipeline decode.trace.json.gz
  sotactl analyze pipeline traces/ --config model/config.json --stage decode --out pipeline.md
  sotactl analyze pipeline trace.json --pass 4 --layer 2 --compare-layer 3
  sotactl analyze pipeline trace.json --anchor my_attention --num-layers 48
  sotactl analyze pipeline trace.json --json | jq '.clusters[] | {kind, label, share_of_pass}'

exit status: 0 the report was written, also when layers could not be told apart (.segmentation.reliable says so);
2 the trace, the config or an argument is wrong
"""


def add(commands: Any) -> None:
    """Add the command to the group's parser."""
    about = "passes, layers and kernels of a trace"
    parser = commands.add_parser("pipeline", help=about, description=WHAT, epilog=EPILOG)
    parser.add_argument("trace", metavar="TRACE", type=Path, help="trace file, or folder with one for each rank")
    parser.add_argument("--config", metavar="FILE", type=Path, help="the model's config.json (layers, types)")
    parser.add_argument("--profile", metavar="NAME", help="family of the model (default: from config or kernel names)")
    parser.add_argument("--anchor", metavar="TEXT", help="part of the name of a kernel that stands once in every layer")
    parser.add_argument("--num-layers", metavar="N", type=_positive, help="layers of the model (default: from config)")
    parser.add_argument("--pass", metavar="N", dest="pass_", type=_index, help="show this pass, not the steady ones")
    parser.add_argument("--layer", metavar="L", type=_index, help="show all kernels of this layer")
    parser.add_argument("--compare-layer", metavar="M", type=_index, help="with --layer: what sets this one apart")
    parser.add_argument("--stage", metavar="KIND", help="only passes of this kind: decode, prefill, mixed, ...")
    parser.add_argument("--format", choices=("markdown", "json"), help="default: markdown")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of to stdout")
    add_json(parser)
    parser.set_defaults(run=_pipeline)


def _positive(text: str) -> int:
    return _number(text, 1)


def _index(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def _pipeline(args: argparse.Namespace) -> int:
    from sotad.pipeline.shown import markdown

    if args.json and args.format not in (None, "json"):
        raise BadInput(f"--json and --format {args.format} exclude each other", "leave out one of them")
    if args.compare_layer is not None and args.layer is None:
        raise BadInput("--compare-layer needs the layer to compare with", "add --layer L")
    found = _found(args)
    if "warning" in found:
        say(f"warning: {found['warning']}")
    as_json = args.json or args.format == "json"
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n" if as_json else markdown(found)
    if args.out is None:
        sys.stdout.write(text if as_json else clean(text))
    else:
        args.out.write_text(text)
        state = "reliable" if found["segmentation"]["reliable"] else "unreliable"
        say(f"{args.out}: {len(found['passes'])} passes, layers {state}")
    return 0


def _found(args: argparse.Namespace) -> dict[str, Any]:
    from sotad.pipeline.document import Missing, Question, document
    from sotad.pipeline.model import BadConfig, Model, read
    from sotad.pipeline.view import NoKernels, Wish
    from sotad.trace.errors import TraceError
    from sotad.trace.files import find

    wish = Wish(args.profile, args.anchor, args.num_layers)
    kinds = (args.stage,) if args.stage else ()
    question = Question(kinds, args.pass_, args.layer, args.compare_layer, wish)
    try:
        _known(args.profile)
        model = read(args.config) if args.config else Model()
        return document([each.path for each in find(args.trace)], model, question)
    except (TraceError, NoKernels, BadConfig, Missing) as error:
        raise BadInput(str(error), "") from None


def _known(profile: str | None) -> None:
    from sotad.pipeline.profiles import named

    if profile:
        try:
            named(profile)
        except ValueError as error:
            raise BadInput(f"--profile: {error}", "") from None
