"""Whether a trace shows what was asked for, or a server that silently did something else. Pure but for reading it.

``python -m sotad.capture.check ASKED.json``, with ``{"stage", "expected", "files"}``, prints a JSON list of problems.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sotad.analysis.stages import Stages, find_stages
from sotad.capture.plan import CaptureSpec, Expected, Stage
from sotad.trace.columns import Trace
from sotad.trace.errors import TraceError
from sotad.trace.reader import read

GRAPH_LAUNCH = re.compile(r"(cuda|hip|cu)GraphLaunch")


def judge(found: dict[str, Any], spec: CaptureSpec) -> None:
    """Note with each captured stage the ``problems`` for which its traces must not be used."""
    for stage, done in zip(spec.stages, found["stages"], strict=True):
        done["problems"] = problems([Path(file) for file in done["files"]], stage, spec.expected)


def problems(files: Sequence[Path], stage: Stage, expected: Expected) -> list[str]:
    """Why the traces of a stage cannot explain its time; empty when they can."""
    found: list[str] = []
    for file in files:
        try:
            trace = read(file)
            found += list(_problems(trace, find_stages(trace), stage, expected))
        except TraceError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def _problems(trace: Trace, stages: Stages, stage: Stage, expected: Expected) -> Iterator[str]:
    if expected.gpu and not len(trace.kernels):
        yield "the trace has no GPU kernel: the profiler saw the CPU only"
    steps = sum(1 for step in stages.steps if step.stage == stage.stage)
    if steps < min(stage.active, stage.output_len):
        yield f"{steps} {stage.stage} steps in the trace, {stage.active} were to be captured"
    elif stage.stage == "decode" and expected.graphs and expected.gpu and not _replays(trace):
        yield "decode ran without CUDA graphs, which its flags leave on: the server fell back to eager"


def _replays(trace: Trace) -> bool:
    return any(GRAPH_LAUNCH.search(trace.names[name]) for name in set(trace.launches.name.tolist()))


def main(argv: Sequence[str]) -> int:
    """Judge the files of one stage."""
    if len(argv) != 1:
        print("usage: python -m sotad.capture.check ASKED.json", file=sys.stderr)
        return 2
    asked = json.loads(Path(argv[0]).read_bytes())
    stage, expected = Stage.model_validate(asked["stage"]), Expected.model_validate(asked["expected"])
    print(json.dumps(problems([Path(name) for name in asked["files"]], stage, expected)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
