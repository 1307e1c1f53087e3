"""``analyze capture``: profile a running server, prefill and decode apart."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sotad.cli.options import add_json, add_tokens
from sotad.cli.output import emit_json, say
from sotad.errors import BadInput

WHAT = """\
Make a running server write profiler traces, one of prefill and one of decode, at the shape of the traffic you care
about. Prefill: 10 warm-up requests of one output token, then 5 under the profiler. Decode: CONCURRENCY streams at
once; the profiler is armed when each has 10 tokens and stopped after 5 more. No prompt comes twice, so no cache helps.

FOLDER is where the server writes. vLLM takes it when it is started only, so it must be the torch_profiler_dir of its
--profiler-config; SGLang and TokenSpeed are told. A trace that shows something else than was asked for (no kernels, no
CUDA graphs, another batch size) ends the command with the reason.
"""
EPILOG = """\
examples:
  sotactl analyze capture http://127.0.0.1:30000 --framework sglang --folder /tmp/traces --input-len 1000 \\
      --concurrency 16
  sotactl analyze capture http://127.0.0.1:8000 --framework vllm --folder /tmp/traces --model qwen --cpu

exit status: 0 the traces are there and usable, 1 they are not, 2 an argument is wrong
"""


def add(commands: Any) -> None:
    """Add the command to the group's parser."""
    parser = commands.add_parser(
        "capture", help="profile a running server, prefill and decode apart", description=WHAT, epilog=EPILOG
    )
    parser.add_argument("url", metavar="URL", help="base URL of the server")
    parser.add_argument("--framework", required=True, choices=("sglang", "vllm", "tokenspeed"))
    parser.add_argument("--folder", required=True, type=Path, help="where the server writes its traces")
    parser.add_argument("--model", metavar="NAME", help="model name in requests (default: the first it lists)")
    parser.add_argument("--input-len", type=int, default=1000, help="prompt tokens (default: %(default)s)")
    parser.add_argument("--output-len", type=int, default=2048, help="tokens a decode stream may take (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=16, help="decode streams (default: %(default)s)")
    add_tokens(parser)
    parser.add_argument("--seed", type=int, default=0, help="another seed sends other prompts (default: %(default)s)")
    parser.add_argument("--stacks", action="store_true", help="with Python stacks: for --mapping, not for times")
    parser.add_argument("--eager", action="store_true", help="the server runs without CUDA graphs on purpose")
    parser.add_argument("--cpu", action="store_true", help="the server runs on the CPU: expect no kernels")
    add_json(parser)
    parser.set_defaults(run=_capture)


def _capture(args: argparse.Namespace) -> int:
    import asyncio

    from sotad.capture.check import judge
    from sotad.capture.session import CaptureFailed, capture

    spec = _spec(args)
    say(f"capturing prefill and decode of {spec.model} at {spec.base_url}")
    try:
        found = asyncio.run(capture(spec))
    except CaptureFailed as failed:
        say(str(failed))
        return 1
    judge(found, spec)
    if args.json:
        emit_json(found)
    else:
        for stage in found["stages"]:
            print(*(f"{stage['stage']}: {line}" for line in stage["files"] + stage["problems"]), sep="\n")
    return 1 if any(stage["problems"] for stage in found["stages"]) else 0


def _spec(args: argparse.Namespace) -> Any:
    from pydantic import ValidationError

    from sotad.capture.plan import Call, CaptureSpec, Expected, Stage
    from sotad.frameworks import FRAMEWORKS
    from sotad.frameworks.help import Help

    how = FRAMEWORKS[args.framework].profiler(str(args.folder.resolve()), Help({}), stacks=args.stacks)
    assert how and how.start and how.stop, "the frameworks of --framework are started and stopped"
    shape = {"input_len": args.input_len}
    try:
        return CaptureSpec(
            base_url=args.url.rstrip("/"),
            model=args.model or _listed(args.url),
            folder=str(args.folder.resolve()),
            start=Call(path=how.start.path, body=_plain(how.start.body)),
            stop=Call(path=how.stop.path, body=_plain(how.stop.body)),
            files=how.files,
            settle_s=how.settle_s,
            stages=[
                Stage(stage="prefill", output_len=1, streams=1, **shape),
                Stage(stage="decode", output_len=args.output_len, streams=args.concurrency, **shape),
            ],
            expected=Expected(gpu=not args.cpu, graphs=not args.eager),
            seed=args.seed,
            first_token=args.tokens[0],
            last_token=args.tokens[1],
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BadInput(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None


def _plain(body: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if body is None else dict(body)


def _listed(url: str) -> str:
    """The first model that the server lists."""
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url.rstrip("/") + "/v1/models", timeout=10) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except (URLError, OSError, ValueError, KeyError, IndexError) as error:
        raise BadInput(f"{url}: cannot list its models ({error}); is it up? Or name the model with --model") from None
