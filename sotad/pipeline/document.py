"""All devices and ranks of a trace in one document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sotad.pipeline.flow import Origin, compare, layer_report, members, nowhere
from sotad.pipeline.model import Model, compress_ratios
from sotad.pipeline.part import Part
from sotad.pipeline.report import chosen, report
from sotad.pipeline.view import NoKernels, View, Wish, views
from sotad.trace.columns import Trace

Row = dict[str, Any]


class Missing(ValueError):
    """A pass or layer that was asked for is not there; the text says what there is."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to show: one kind of pass, one pass, one layer, another to compare it with."""

    kinds: tuple[str, ...] = ()
    pass_: int | None = None
    layer: int | None = None
    other: int | None = None
    wish: Wish = field(default_factory=Wish)


def document(paths: Sequence[Path], model: Model, question: Question) -> Row:
    """The report of the busiest device, with those of the others under ``other_devices``.

    Raises:
        sotad.trace.errors.TraceError: a file cannot be read.
        NoKernels: no file holds a GPU kernel.
        Missing: the pass or layer asked for does not exist.
    """
    found: list[Row] = []
    empty: list[str] = []
    for path in paths:
        try:
            found += _file(path, model, question, first=not found)
        except NoKernels as error:
            empty.append(str(error))
    if not found:
        raise NoKernels(empty[0])
    first, *others = found
    return {**first, "other_devices": others, "rank_skew": rank_skew(found), "not_used": empty}


def _file(path: Path, model: Model, question: Question, first: bool) -> list[Row]:
    from sotad.analysis.categories import categorize
    from sotad.analysis.stages import find_stages
    from sotad.trace.reader import read

    trace = read(path)
    seen = views(trace, find_stages(trace), categorize, model, question.wish)
    origin = origins(trace)
    return [_device(view, trace, model, question, origin, first and view is seen[0]) for view in seen]


def origins(trace: Trace) -> Origin:
    """The CPU operator and source line of each kernel, None where they are not known for sure."""
    if not len(trace.ops):
        return nowhere
    from sotad.analysis.attribution import UNRESOLVED, attribute

    found = attribute(trace)

    def origin(row: int) -> tuple[str | None, str | None]:
        site, op = found.sites[found.kernel_site[row]], int(found.kernel_op[row])
        if site.replay:  # who replays a graph says nothing about its kernels
            return None, None
        return trace.names[op] if op >= 0 else None, None if site.location == UNRESOLVED else site.location

    return origin


def _device(view: View, trace: Trace, model: Model, question: Question, origin: Origin, asked: bool) -> Row:
    pass_ = question.pass_
    if pass_ is not None and not 0 <= pass_ < len(view.passes.list):
        if asked:
            there = _span(len(view.passes.list))
            raise Missing(f"{trace.path}: no pass {pass_} on device {view.lane.device}; it has {there}")
        pass_ = None
    found = report(view, trace, model, origin, question.kinds, pass_)
    if asked and question.kinds and not found["steady"]:
        there = ", ".join(sorted({each.kind for each in view.passes.list})) or "no pass at all"
        raise Missing(f"{trace.path}: no {question.kinds[0]} pass on device {view.lane.device}; there is {there}")
    if asked and question.layer is not None:
        found |= _layers(view, trace, model, question, origin)
    return found


def _span(number: int) -> str:
    return f"passes 0 to {number - 1}" if number else "no passes"


def _layers(view: View, trace: Trace, model: Model, question: Question, origin: Origin) -> Row:
    """The layer that was asked for, and what sets it apart from the other one."""
    groups = chosen(view, question.kinds, question.pass_)
    if not groups:
        raise Missing(f"{trace.path}: no layer {question.layer} on device {view.lane.device}; it has no passes")
    group = groups[0]
    part = Part(view, trace, model, group, origin)
    at, layer = group.chosen, question.layer or 0
    if not len(members(view, at, layer)):
        told = f"layers 0 to {part.number - 1}" if part.number else "no layers that could be told apart"
        raise Missing(f"{trace.path}: no layer {layer} in {group.kind} pass {at}; it has {told}")
    ratios = compress_ratios(model.config, model.layers)
    found: Row = {"layer": layer_report(view, at, layer, ratios[layer] if layer < len(ratios) else -1)}
    if question.other is None:
        return found
    if not len(members(view, at, question.other)):
        return {**found, "warning": f"no layer {question.other} in {group.kind} pass {at} to compare with"}
    return found | {"comparison": _comparison(part, layer, question.other)}


def _comparison(part: Part, first: int, second: int) -> Row:
    rows = compare(part.flow_of(first), part.flow_of(second))
    sums = [round(sum(row["us"][side] for row in rows), 3) for side in (0, 1)]
    where = [row["in"] for row in rows]
    return {
        "layers": [first, second],
        "us": sums,
        "delta_us": round(sums[1] - sums[0], 3),
        "common": where.count("both"),
        "only": [where.count("first only"), where.count("second only")],
        "kernels": rows,
    }


def rank_skew(devices: Sequence[Row]) -> list[Row]:
    """How far apart the devices of one trace begin and end each pass; nothing where they do not have equally many.

    Only devices of one file share a clock.
    """
    first = devices[0]
    own = [each for each in devices if each["trace"] == first["trace"]]
    alike = [each for each in own if len(each["passes"]) == len(first["passes"])]
    if len(alike) < 2:
        return []
    times = np.array([[(row["start_us"], row["end_us"]) for row in each["passes"]] for each in alike])
    start, end = np.ptp(times[:, :, 0], axis=0), np.ptp(times[:, :, 1], axis=0)
    return [
        {"idx": row["idx"], "start_skew_us": round(float(a), 3), "end_skew_us": round(float(b), 3)}
        for row, a, b in zip(first["passes"], start, end, strict=True)
    ]
