"""Everything that profiler traces say, as one JSON: tables per stage over all files, ranks and devices that were read.

Each file is read by itself and let go again. Tables of the same stage are added up row by row, so that a row's share
is of all the kernel time of its stage. What cannot be added up (medians per step, overlap, fusions, pauses) is of one
file: of the first rank, the one captured for the stage, else the one with most of it. A stage's `detail` names it,
`files` says how many were added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sotad.analysis.attribution import Attribution, attribute
from sotad.analysis.cycles import kernel_side
from sotad.analysis.difference import in_order
from sotad.analysis.gaps import Bubble
from sotad.analysis.graphs import nodes_of, replaying
from sotad.analysis.joins import Tied, tied
from sotad.analysis.mapping import Mapped
from sotad.analysis.mappings import Reference, mapped, references
from sotad.analysis.operators import operator_tables
from sotad.analysis.origin import Origin, origin
from sotad.analysis.overlap import DeviceTime, sweep
from sotad.analysis.pairing import KERNELS, OPERATORS, Side, joined
from sotad.analysis.passes import operator_side
from sotad.analysis.ranks import rank_rows, rank_times
from sotad.analysis.stage_tables import added, finished, of_kernels, of_operators
from sotad.analysis.stages import Stages, find_stages
from sotad.trace.columns import I64, Trace
from sotad.trace.errors import TraceError
from sotad.trace.files import TraceFile, find
from sotad.trace.reader import read

JSON = dict[str, Any]
UNRESOLVED = 50.0  # percent of a stage's kernel time without a source line, from which on it is said how to get them
NO_LINES = "most kernels have no known source line: give --mapping a trace of the same model with stacks, graphs off"
NOT_OF_STAGE = "most kernels have no known source line: the traces of --mapping run other kernels, or lack this stage"
BUBBLES = 10  # of all files, the longest
TOTALS = ("kernels", "gpu_time_ms", "copies", "copy_ms")


@dataclass(frozen=True, slots=True)
class Request:
    """What to read and how: `paths` and `mapping` are files or folders; `stage` that of traces that mark no steps."""

    paths: Sequence[Path]
    mapping: Sequence[Path] = ()
    name: str | None = None
    framework: str = "auto"
    model: str | None = None
    tp_size: int | None = None
    min_share: float = 1.0
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """``tables`` is the JSON, ``side`` the steps of the first rank for a comparison with another capture."""

    tables: JSON
    side: Side


class _Empty(TraceError):
    """There is nothing to count in a trace."""


def analyse(request: Request) -> Analysis:
    """All that the traces of one framework say.

    Raises:
        TraceError: a path holds no trace, or one cannot be read or has nothing to count.
    """
    using = references(request.mapping)
    files = [file for path in request.paths for file in find(path)]
    parts, empty = _parts(files, request, using)
    first = min((part.rank for part in parts), key=lambda rank: (rank is None, rank or 0))
    detailed = [part for part in parts if part.rank == first]
    told = detailed[0].origin
    name = request.name or told.framework or detailed[0].path.name.split(".")[0]
    stages = {
        stage: _stage(stage, parts, first) for stage in in_order({name for part in parts for name in part.stages})
    }
    warnings = empty + [warning for part in parts for warning in part.warnings] + finished(stages, request.min_share)
    dark = [name for name, stage in stages.items() if stage["unresolved_share"] > UNRESOLVED]
    if dark:
        warnings.append(f"{', '.join(dark)}: {NOT_OF_STAGE if using else NO_LINES}")
    side = _side(name, detailed)
    for stage, found in stages.items():
        found["steps"] = _steps(side, stage)
    tables = {
        "name": name,
        "kind": side.kind,
        "framework": told.framework,
        "model": told.model,
        "tp_size": told.tp_size,
        **{key: sum(found[key] for found in stages.values()) for key in TOTALS},
        "min_share": request.min_share,
        "stages": stages,
        "files": [part.about for part in parts],
        "detail": list(dict.fromkeys(stage["detail"] for stage in stages.values())),
        "devices": [device for part in parts for device in part.devices],
        "bubbles": _longest([bubble for part in parts for bubble in part.bubbles]),
        "ranks": rank_rows([row for part in parts for row in part.ranks]),
        **{key: _counted([part.about[key] for part in parts]) for key in ("flows", "cuda_graphs", "dropped")},
        "warnings": warnings,
    }
    return Analysis(tables, side)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one file says; ``stages`` holds whole tables, not yet cut."""

    path: Path
    rank: int | None
    stage: str | None
    about: JSON
    origin: Origin
    side: Side
    stages: dict[str, JSON]
    devices: list[JSON]
    bubbles: list[JSON]
    ranks: list[JSON]
    warnings: list[str]


def _stage(name: str, parts: Sequence[_Part], first: int | None) -> JSON:
    """The tables of one stage over all files that have it."""

    def order(part: _Part) -> tuple[bool, bool, float]:
        return part.rank != first, part.stage != name, -part.stages[name]["gpu_time_ms"]

    having = sorted((part for part in parts if name in part.stages), key=order)
    return {**added([part.stages[name] for part in having]), "detail": str(having[0].path), "files": len(having)}


def _parts(files: Sequence[TraceFile], request: Request, using: Sequence[Reference]) -> tuple[list[_Part], list[str]]:
    """What each file says, and why some say nothing; a front end traces itself beside its engine."""
    parts: list[_Part] = []
    empty: list[_Empty] = []
    for file in files:
        try:
            parts.append(_part(file, request, using))
        except _Empty as nothing:
            empty.append(nothing)
    if not parts:
        raise empty[0]
    return parts, [f"left out: {nothing}" for nothing in empty]


def _part(file: TraceFile, request: Request, using: Sequence[Reference]) -> _Part:
    trace = read(file.path)
    stages = find_stages(trace, request.stage or file.stage)
    told = _origin(request, origin(trace, file.path))
    about: JSON = {"path": str(file.path), "rank": file.rank, "events": trace.events, "kernels": len(trace.kernels)}
    about |= {"flows": _flows(trace), "cuda_graphs": _graphs(trace, None), "dropped": dict(trace.dropped)}
    if not len(trace.kernels) and not len(trace.copies):
        return _of_operators(file, trace, stages, told, about)
    overlap = sweep(trace, stages)
    sources = attribute(trace)
    place = {"path": str(file.path), "rank": file.rank}
    known = mapped(trace, stages, sources, using) if using else None
    about["cuda_graphs"] = _graphs(trace, sources)
    return _Part(
        path=file.path,
        rank=file.rank,
        stage=file.stage,
        about=about,
        origin=told,
        side=kernel_side("", trace, stages, overlap),
        stages=of_kernels(trace, stages, overlap, sources, known, told, request.min_share),
        devices=[{**place, "device": trace.devices[time.device], **_device(time)} for time in overlap.devices],
        bubbles=[{**place, "device": trace.devices[each.device], **_bubble(each)} for each in overlap.bubbles],
        ranks=rank_times(file, trace, stages, overlap),
        warnings=[*_warnings(file, trace, stages), *_doubts(file, about["flows"], known)],
    )


def _flows(trace: Trace) -> JSON:
    """Events of flows, and the kernels and copies they tie to a launch: in `all`, `alone` where ids do not, `against`
    what ids say."""
    both = [tied(work, trace) for work in (trace.kernels, trace.copies)]
    sums = {key: sum(getattr(each, key) for each in both) for key in Tied._fields}
    return {"events": len(trace.flows), **sums}


def _graphs(trace: Trace, sources: Attribution | None) -> JSON:
    """Launches of CUDA graphs, the kernels these replayed, and of how many nodes the trace says which."""
    launches = int(replaying(trace)[trace.launches.name].sum())
    nodes = nodes_of(trace.kernels)
    kernels = nodes >= 0
    if sources is not None:
        kernels |= np.array([site.replay for site in sources.sites], np.bool_)[sources.kernel_site]
    return {"launches": launches, "kernels": int(kernels.sum()), "nodes": len(np.unique(nodes[nodes >= 0]))}


def _doubts(file: TraceFile, flows: JSON, known: Mapped | None) -> Iterator[str]:
    if flows["against"]:
        yield (
            f"{file.path}: the flow of {flows['against']} kernels and copies comes from another launch than their"
            " correlation: the correlation was believed"
        )
    if known is not None and known.disputed:
        yield (
            f"{file.path}: {known.disputed} kernels are of CUDA graph nodes whose replays match different lines:"
            " unresolved"
        )


def _origin(request: Request, told: Origin) -> Origin:
    framework = told.framework if request.framework == "auto" else request.framework
    return Origin(framework, request.model or told.model, request.tp_size or told.tp_size)


def _of_operators(file: TraceFile, trace: Trace, stages: Stages, told: Origin, about: JSON) -> _Part:
    tables = operator_tables(trace, stages)
    if not tables.rows:
        what = "no kernel, no copy and no operator" if trace.events else "no events"
        raise _Empty(f"{file.path}: {what} in it; capture while the server works, with CPU or CUDA activity on")
    warnings = [f"{file.path}: no GPU work in it: times are of operators on the CPU", *_warnings(file, trace, stages)]
    side, found = operator_side("", trace, stages), of_operators(tables)
    return _Part(file.path, file.rank, file.stage, about, told, side, found, [], [], [], warnings)


def _device(time: DeviceTime) -> JSON:
    return {
        "busy_ms": time.busy_ns / 1e6,
        "single_stream_ms": time.single_stream_ns / 1e6,
        "multi_stream_ms": time.multi_stream_ns / 1e6,
        "idle_ms": time.idle_ns / 1e6,
        "idle_in_steps_ms": time.idle_in_steps_ns / 1e6,
        "idle_outside_steps_ms": (time.idle_ns - time.idle_in_steps_ns) / 1e6,
        "max_streams": time.max_streams,
    }


def _bubble(bubble: Bubble) -> JSON:
    """`stage` is None between steps; `begin_ms` counts from the first event of the trace."""
    return {
        "stage": bubble.stage,
        "begin_ms": bubble.begin / 1e6,
        "duration_ms": bubble.duration_ns / 1e6,
        "after": bubble.after,
        "before": bubble.before,
    }


def _longest(bubbles: Sequence[JSON]) -> list[JSON]:
    return sorted(bubbles, key=lambda bubble: -bubble["duration_ms"])[:BUBBLES]


def _warnings(file: TraceFile, trace: Trace, stages: Stages) -> list[str]:
    told = []
    if not stages.steps:
        told.append(f"{file.path}: no step annotation: everything is stage {stages.names[0]}, nothing is per step")
    if stages.guessed_ns:
        told.append(f"{file.path}: {stages.guessed_ns / 1e6:.2f} ms of kernel time are in a step by guess only")
    told += [f"{file.path}: {count} events not used: {reason}" for reason, count in trace.dropped.items() if count]
    return told


def _counted(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    reasons = sorted({reason for each in parts for reason in each})
    return {reason: sum(each.get(reason, 0) for each in parts) for reason in reasons}


def _side(name: str, parts: Sequence[_Part]) -> Side:
    """The steps of all files of a rank; files without a device count only where no file has one."""
    kind = KERNELS if any(part.side.kind == KERNELS for part in parts) else OPERATORS
    sides = [part.side for part in parts if part.side.kind == kind]
    stages = dict.fromkeys(stage for side in sides for stage in side.stages)
    return Side(name, kind, {s: joined([side.stages[s] for side in sides if s in side.stages]) for s in stages})


def _steps(side: Side, stage: str) -> JSON:
    """How many steps, of what size and length; length with the pause until the next one where that is known."""
    steps = side.stages.get(stage)
    if steps is None or not len(steps):
        return {"count": 0, "sequences": None, "tokens": None, "median_ms": None}
    whole = steps.take(steps.closed) if steps.closed.any() else steps
    spread = {key: _spread(getattr(steps, key)) for key in ("sequences", "tokens")}
    return {"count": len(steps), **spread, "median_ms": float(np.median(whole.times.sum(axis=1)))}


def _spread(values: I64) -> JSON | None:
    """None where a step does not tell it."""
    if not values.all():
        return None
    return {"median": float(np.median(values)), "min": int(values.min()), "max": int(values.max())}
