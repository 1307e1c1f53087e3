"""``simulate``: what a model needs at least on a GPU, and how near a measured step is to that."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import add_json
from sotad.cli.output import clean, say
from sotad.errors import BadInput

if TYPE_CHECKING:
    from sotad.simulate.answer import Answer
    from sotad.simulate.architecture import Model
    from sotad.simulate.gpus import Gpu
    from sotad.simulate.shapes import Batch

WHAT = """\
Compute what one forward pass of a model takes at least: shapes, FLOPs, bytes and roofline time of every operator, for
prefill and for decode, on a GPU of the table. CONFIG is a Hugging Face config.json or the folder that holds one: dense
and MoE models, MLA, sliding windows, linear-attention hybrids. What cannot be modelled is refused or said, not guessed.

With a trace or a measured time the command answers how near the step is to the limit: MFU, bandwidth use (MBU) and
the fraction of the limit, the time that no schedule can beat. Faster than that is IMPOSSIBLE: an input is wrong.
"""
EPILOG = """\
examples:
  sotactl simulate Qwen3-8B/config.json --gpu h200 --batch 8 --input-len 2048 --kv-len 1500
  sotactl simulate config.json --stage decode --batch 64 --kv-len 8192 --dtype fp8 --kv-dtype fp8 --tp 8 --ep 8 --top 0
  sotactl simulate config.json --stage decode --batch 8 --kv-len 1500 --measured-ms 5.25
  sotactl simulate config.json --kv-len 1500 --trace traces/ --calibrate peaks.json
  sotactl simulate config.json --stage decode --batch 256 --kv-len 4096 --gpus 8     every layout of 8 GPUs
  sotactl simulate config.json --json | jq .stages.decode.totals

--calibrate FILE holds peaks measured on the machine: {"gpu": "h200", "tflops": {"bf16": 790}, "bandwidth_gbs": 4300}

exit status: 0 computed; 2 the config, the trace or an argument is wrong, or the architecture cannot be modelled
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "simulate", help="least time of a model on a GPU, and how near a trace is", description=WHAT, epilog=EPILOG
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="config.json, or the folder that holds it")
    parser.add_argument("--stage", choices=("prefill", "decode", "both"), default="both", help="default: %(default)s")
    _add_load(parser)
    _add_machine(parser)
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument("--trace", metavar="PATH", type=Path, help="compare with the steps of this trace or folder")
    measured.add_argument("--measured-ms", metavar="X", type=float, help="compare with a step of X ms (one --stage)")
    parser.add_argument("--assume", action="store_true", help="model an unknown model_type by its keys, with a warning")
    parser.add_argument("--top", metavar="N", type=int, default=15, help="operators to show, 0 for all (default: 15)")
    parser.add_argument("--format", choices=("markdown", "html", "json"), help="default: markdown")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of to stdout")
    add_json(parser)
    parser.set_defaults(run=_simulate)


def _add_load(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("load")
    load.add_argument("--batch", metavar="N", type=int, help="requests in the step (default: 1, or as the trace says)")
    load.add_argument("--input-len", metavar="S", type=int, help="prompt tokens (default: 1024, or as the trace says)")
    load.add_argument("--cached", metavar="C", type=int, default=0, help="of them in the prefix cache (default: 0)")
    load.add_argument("--kv-len", metavar="L", type=int, help="context of decode, new token included (default: 1024)")
    load.add_argument(
        "--experts-touched", metavar="N", type=float, help="distinct experts that a layer reads, measured"
    )
    load.add_argument("--dtype", metavar="TYPE", help="format of the weights (default: the config's): bf16, fp8, ...")
    load.add_argument("--kv-dtype", metavar="TYPE", help="format of the KV cache (default: the activations')")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument("--gpu", metavar="NAME", default="h200", help="as in gpus.yaml (default: %(default)s)")
    machine.add_argument("--efficiency", metavar="E", type=float, default=1.0, help="share of the peaks (default: 1)")
    machine.add_argument("--calibrate", metavar="FILE", type=Path, help="peaks measured on the machine, as JSON")
    for name, what in (("tp", "tensor"), ("dp", "data"), ("ep", "expert"), ("pp", "pipeline")):
        machine.add_argument(f"--{name}", metavar="N", type=int, default=1, help=f"{what} parallel size (default: 1)")
    machine.add_argument("--gpus", metavar="N", type=int, help="also every layout of N GPUs, best first")


def _simulate(args: argparse.Namespace) -> int:
    from sotad.simulate.errors import SimulateError

    if args.json and args.format not in (None, "json"):
        raise BadInput(f"--json and --format {args.format} exclude each other", "leave out one of them")
    if args.measured_ms is not None and args.stage == "both":
        raise BadInput("--measured-ms is of one stage", "add --stage prefill or --stage decode")
    if args.measured_ms is not None and not 0 < args.measured_ms < float("inf"):
        raise BadInput(f"--measured-ms {args.measured_ms}: not a positive number", "give milliseconds of one step")
    try:
        text = _text(_answer(args), args)
    except SimulateError as error:
        what, _, advice = str(error).rpartition(": ")
        raise BadInput(what or advice, advice if what else None) from None
    if args.out is None:
        sys.stdout.write(clean(text) if args.format in (None, "markdown") and not args.json else text)
    else:
        args.out.write_text(text)
        say(f"{args.out}: written")
    return 0


def _text(answer: Answer, args: argparse.Namespace) -> str:
    if args.json or args.format == "json":
        return json.dumps(answer.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    from sotad.simulate.shown import rendered

    return rendered(answer, args.format or "markdown", max(args.top, 0)).decode()


def _answer(args: argparse.Namespace) -> Answer:
    from sotad.simulate import gpus
    from sotad.simulate.answer import Answer
    from sotad.simulate.checkpoint import checked
    from sotad.simulate.config import read
    from sotad.simulate.whatif import what_if

    model = read(args.config, args.dtype, args.assume)
    gpu = gpus.gpu(args.gpu, args.efficiency)
    if args.calibrate:
        gpu = gpus.calibrate(gpu, args.calibrate)
    answer = Answer({}, notes=checked(args.config, model) if args.dtype is None else [])
    if args.trace:
        _from_trace(answer, args, model, gpu)
    else:
        for stage in ("prefill", "decode") if args.stage == "both" else (args.stage,):
            answer.stages[stage] = _roofline(args, model, gpu, _batch(args, stage))
    if args.measured_ms is not None:
        answer.judge(args.stage, args.measured_ms, "--measured-ms", _assumed(args, args.stage))
    if args.gpus is not None:
        for stage, found in answer.stages.items():
            answer.layouts[stage] = what_if(model, found.step.batch, gpu, args.gpus, args.kv_dtype)
    return answer


def _roofline(args: argparse.Namespace, model: Model, gpu: Gpu, batch: Batch) -> Any:
    from sotad.simulate.parallel import Layout
    from sotad.simulate.roofline import roofline
    from sotad.simulate.step import forward

    layout = Layout(args.tp, args.dp, args.ep, args.pp)
    return roofline(forward(model, batch, layout, args.kv_dtype, args.experts_touched), gpu)


def _batch(args: argparse.Namespace, stage: str, sequences: int = 0, tokens: int = 0) -> Batch:
    """The load of a stage: what was asked for, else what the trace says, else the defaults."""
    from sotad.simulate.shapes import decode, prefill

    count = _chosen(args.batch, sequences, 1)
    if stage == "prefill":
        computed = tokens // (sequences or 1)
        return prefill(count, _chosen(args.input_len, computed and computed + args.cached, 1024), args.cached)
    return decode(count, _chosen(args.kv_len, 0, 1024), max(1, tokens // (sequences or 1)))


def _chosen(asked: int | None, told: int, otherwise: int) -> int:
    return asked if asked is not None else told or otherwise


def _assumed(args: argparse.Namespace, stage: str, sequences: int = 0, tokens: int = 0) -> list[str]:
    """Inputs of the shape that neither the arguments nor the trace say."""
    missing = [] if args.batch is not None or sequences else ["batch 1 (--batch)"]
    if stage == "prefill":
        return missing + ([] if args.input_len is not None or tokens else ["prompts of 1024 tokens (--input-len)"])
    return missing + ([] if args.kv_len is not None else ["a context of 1024 tokens (--kv-len)"])


def _from_trace(answer: Answer, args: argparse.Namespace, model: Model, gpu: Gpu) -> None:
    from sotad.simulate.measured import GENERATING, measure

    answer.measured = measure(args.trace)
    for stage, found in answer.measured.items():
        known = "prefill" if stage == "prefill" else "decode" if stage in GENERATING[:2] else None
        if known is None or args.stage not in ("both", known):
            answer.notes.append(f"stage {stage} of the trace ({found.steps} steps) is not compared")
            continue
        batch = _batch(args, known, found.sequences, found.tokens)
        answer.stages[stage] = _roofline(args, model, gpu, batch)
        assumed = _assumed(args, known, found.sequences, found.tokens)
        here = answer.stages[stage].step.layout.gpus
        if found.devices > here:
            assumed.append(f"{here} GPU (--tp, --dp, --ep, --pp); the trace has {found.devices}")
        answer.judge(stage, found.step_ms, str(args.trace), assumed, found.busy_ms)
    if not answer.stages:
        stages = ", ".join(answer.measured)
        raise BadInput(f"{args.trace}: none of its stages ({stages}) is asked for", "change --stage")
