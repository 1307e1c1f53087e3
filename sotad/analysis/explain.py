"""The traces of two sides in, one explanation out: where the target spends more, and how near it is to the limit.

``python -m sotad.analysis.explain ASKED.json OUT.json`` runs in a process of its own, because traces are large. ASKED
has for ``target`` and ``leader`` the ``files`` of each by the stage that they were captured for ("": all stages), and
where they are known a ``log`` of its server; ``request`` (tokens of one request by stage: prompt tokens in prefill,
output tokens in decode), ``waited_ms`` (by how much longer a measured request of the target waited, by stage),
``lengths`` (of requests, as ``analyze capacity`` takes them), ``config`` (path of the model's config.json), ``gpu``,
``tp`` and ``context`` (tokens that a decode step of the capture looks back on).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sotad.analysis.cause import explain
from sotad.analysis.difference import difference
from sotad.analysis.pairing import KERNELS, Refused, Side, Steps
from sotad.analysis.triage import Analysis, Request, analyse
from sotad.trace.errors import TraceError

JSON = dict[str, Any]


def explained(asked: JSON) -> JSON:
    """What `sotad.analysis.cause.explain` finds, with the tables, the layers and the limit beside it.

    Raises:
        TraceError: a trace cannot be used.
        Refused: the two cannot be compared.
    """
    captures = {side: _captures(asked[side]["files"], side) for side in ("target", "leader")}
    target, leader = (_side(captures[side], side) for side in ("target", "leader"))
    found = explain(target, leader, asked.get("request"), asked.get("waited_ms"))
    notes: list[str] = []
    with_kernels = target.kind == KERNELS
    return {
        **found,
        "difference": difference(target, leader),
        "tables": {side: {stage: each.tables for stage, each in found.items()} for side, found in captures.items()},
        "layers": _layers(asked, notes) if with_kernels else None,
        "limit": _limit(asked, found["stage"], notes) if with_kernels else None,
        "capacity": _capacity(asked, notes),
        "notes": notes,
    }


def _captures(files: dict[str, list[str]], side: str) -> dict[str, Analysis]:
    return {stage: analyse(Request([Path(file) for file in paths], name=side)) for stage, paths in files.items()}


def _side(captures: dict[str, Analysis], name: str) -> Side:
    """Each stage's steps from the capture that was made for it: others may be in it, of another shape."""
    stages: dict[str, Steps] = {}
    for wanted, capture in captures.items():
        stages |= {stage: steps for stage, steps in capture.side.stages.items() if wanted in ("", stage)}
    return Side(name, next(iter(captures.values())).side.kind, stages)


def _paths(files: dict[str, list[str]], stage: str | None = None) -> list[Path]:
    return [Path(file) for each, paths in files.items() if stage in (None, "", each) or not each for file in paths]


def _layers(asked: JSON, notes: list[str]) -> JSON:
    """Passes, layers and kernels of each side; what cannot be told is a note."""
    from sotad.pipeline.document import Missing, Question, document
    from sotad.pipeline.model import BadConfig, Model, read
    from sotad.pipeline.view import NoKernels

    found: JSON = {}
    for side in ("target", "leader"):
        try:
            model = read(Path(asked["config"])) if asked.get("config") else Model()
            found[side] = {
                stage: document([Path(file) for file in files], model, Question((stage,) if stage else ()))
                for stage, files in asked[side]["files"].items()
            }
        except (TraceError, NoKernels, BadConfig, Missing) as error:
            notes.append(f"no layers of the {side}: {error}")
    return found


def _capacity(asked: JSON, notes: list[str]) -> JSON:
    """Where the memory of each side's server went, as its log says; a log that does not say is a note."""
    from sotad.capacity.concurrency import parse_lengths
    from sotad.capacity.errors import CapacityError
    from sotad.capacity.report import Asked, analyse

    found: JSON = {}
    for side in ("target", "leader"):
        if log := asked[side].get("log"):
            config = Path(asked["config"]) if asked.get("config") else None
            try:
                found[side] = analyse(Path(log), Asked(parse_lengths(asked["lengths"]), config))
            except CapacityError as error:
                notes.append(f"no capacity of the {side}: {error}")
    return found


def _limit(asked: JSON, stage: str, notes: list[str]) -> JSON | None:
    """How near the target's slow stage is to what the hardware allows; None, with a note, when nobody can tell."""
    from sotad.simulate.errors import SimulateError

    if not asked.get("config") or not asked.get("gpu"):
        notes.append("no limit: the model's config.json or the GPU is not known")
        return None
    try:
        found = _headroom(asked, stage)
    except (SimulateError, ValueError) as error:
        notes.append(f"no limit: {error}")
        return None
    if found["status"] != "ok":
        notes.append(
            f"the limit of {stage} proves nothing ({found['status']}): {'; '.join(found['inputs']['assumed'])}"
        )
        return None
    keys = ("stage", "limit_ms", "measured_ms", "bound")
    return {**{key: found[key] for key in keys}, "fraction": round(found["fraction_of_limit"], 4)}


def _headroom(asked: JSON, stage: str) -> JSON:
    from sotad.simulate.config import read
    from sotad.simulate.errors import SimulateError
    from sotad.simulate.gpus import gpu
    from sotad.simulate.limit import headroom
    from sotad.simulate.measured import measure
    from sotad.simulate.parallel import Layout
    from sotad.simulate.roofline import roofline
    from sotad.simulate.shapes import decode, prefill
    from sotad.simulate.step import forward

    measured = {name: each for file in _paths(asked["target"]["files"], stage) for name, each in measure(file).items()}
    if stage not in ("prefill", "decode") or stage not in measured:
        raise SimulateError(f"{stage} is no stage that the model can tell")
    seen, context = measured[stage], asked.get("context")
    batch = max(1, seen.sequences)
    assumed = [] if seen.sequences else ["batch 1"]
    if stage == "prefill":
        if not seen.tokens:
            raise SimulateError("the capture does not tell the tokens of a prefill step")
        shape = prefill(batch, max(1, seen.tokens // batch))
    else:
        shape = decode(batch, context or 1)
        assumed += [] if context else ["the context of a decode step"]
    layout = Layout(tp=asked.get("tp") or 1)
    found = roofline(forward(read(Path(asked["config"])), shape, layout, asked.get("kv_dtype")), gpu(asked["gpu"]))
    return headroom(found, stage, seen.step_ms, "the target's capture", assumed, seen.busy_ms)


def main(argv: list[str]) -> int:
    """Exit 0 with OUT written, 1 when the traces cannot be used, 2 on bad usage."""
    if len(argv) != 2:
        print("usage: python -m sotad.analysis.explain ASKED.json OUT.json", file=sys.stderr)
        return 2
    try:
        found = explained(json.loads(Path(argv[0]).read_bytes()))
    except (TraceError, Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    Path(argv[1]).write_text(json.dumps(found, sort_keys=True, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
