"""One device's pipeline as JSON: what `sotactl analyze pipeline --json` prints and its Markdown is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sotad.pipeline.flow import Origin, nowhere
from sotad.pipeline.layers import HEAD, OUTSIDE, TAIL
from sotad.pipeline.model import Model
from sotad.pipeline.part import Part
from sotad.pipeline.passes import Pass
from sotad.pipeline.period import SURE
from sotad.pipeline.steady import Group, spread
from sotad.pipeline.verdict import bottleneck
from sotad.pipeline.view import View
from sotad.trace.columns import Trace

Row = dict[str, Any]


def report(
    view: View,
    trace: Trace,
    model: Model,
    origin: Origin = nowhere,
    only: Sequence[str] = (),
    pass_: int | None = None,
) -> Row:
    """Everything about one device. ``origin`` tells where each kernel of the trace comes from, ``only`` limits the
    tables to these kinds of pass, ``pass_`` to one pass."""
    parts = [Part(view, trace, model, group, origin) for group in chosen(view, only, pass_)]
    return {
        "trace": trace.path,
        "device": view.lane.device,
        "gpu": _gpu(trace, view.lane.device),
        "parallel": _parallel(trace),
        "config": model.path,
        "architecture": dict(model.summary),
        "profile": {"name": view.profile.name, "source": view.profile_source, "about": view.profile.about},
        "anchor": _anchor(view),
        "segmentation": _segmentation(view),
        "passes": [row for row in _passes(view) if not only or row["kind"] in only],
        "steady": {part.group.kind: part.steady for part in parts},
        "layers": [row for part in parts for row in part.layer_rows()],
        "clusters": [row for part in parts for row in part.cluster_rows],
        "flow": [row for part in parts for row in part.flow_rows()],
        "perfetto": [row for part in parts for row in part.ranges()],
        "bottleneck": {part.group.kind: bottleneck(part.steady, part.cluster_rows) for part in parts},
        "notes": view.notes,
    }


def chosen(view: View, only: Sequence[str], pass_: int | None) -> list[Group]:
    """The groups to show; a pass that was asked for stands alone."""
    if pass_ is None:
        return [group for group in view.groups if not only or group.kind in only]
    each = view.passes.list[pass_]
    return [Group(each.kind, [pass_], ["steady"], spread([each.duration]), pass_, "asked for with --pass")]


def _gpu(trace: Trace, device: str) -> str | None:
    listed = trace.facts.get("deviceProperties")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    own = [row for row in rows if str(row.get("id")) == device] or rows[:1]
    return str(own[0].get("name")) if own and own[0].get("name") else None


def _parallel(trace: Trace) -> Row | None:
    told = trace.facts.get("distributedInfo")
    if not isinstance(told, dict):
        return None
    return {key: told[key] for key in ("rank", "world_size", "backend") if key in told}


def _anchor(view: View) -> Row:
    held = [check.count for check in view.layers.checks]
    expected = [check.expected for check in view.layers.checks if check.expected]
    return {
        "substr": view.anchors.text,
        "method": view.anchors.method,
        "count": len(view.anchors.at),
        "per_pass": sorted(set(held)),
        "expected": max(expected, default=None),
        "blocks_per_layer": view.anchors.blocks_per_layer,
    }


def _segmentation(view: View) -> Row:
    lane, layers = view.lane, view.layers
    bad = [at for at, check in enumerate(layers.checks) if check.count and not check.reliable]
    good = [at for at, check in enumerate(layers.checks) if check.reliable]
    time = lane.end - lane.begin
    return {
        "method": view.passes.method,
        "reliable": bool(good) and not bad and _sure(view),
        "layers": view.expected,
        "layers_source": _layers_source(view),
        "confidence": view.count.confidence,
        "runner_up": view.count.runner_up,
        "seen_layers": view.count.layers,
        "layer_opens_at": layers.opened_by,
        "passes": len(layers.checks),
        "passes_with_layers": len(good),
        "unreliable_passes": bad,
        "message": _message(view, bad, good),
        "kernels": len(lane),
        "kernels_in_layers": int((layers.row_of >= 0).sum()),
        "head_us": _us(time[layers.layer_of == HEAD].sum()),
        "tail_us": _us(time[layers.layer_of == TAIL].sum()),
        "outside_us": _us(time[layers.layer_of == OUTSIDE].sum()),
    }


def _layers_source(view: View) -> str:
    if view.known:
        return "given"
    return "anchor" if view.anchors.method == "given" else "kernel names" if view.count.layers else "none"


def _sure(view: View) -> bool:
    """Whether the number of layers is given, or the trace speaks for it."""
    return bool(view.known) or view.count.confidence >= SURE


def _message(view: View, bad: list[int], good: list[int]) -> str | None:
    if not good and not bad and len(view.anchors.at) > 1:
        told = f"{len(view.anchors.at)} anchors ({view.anchors.text})"
        return f"{told}, but nothing says how many layers a pass has: give --config or --num-layers"
    if not bad and good and not _sure(view):
        return f"layer segmentation unreliable: {view.expected} layers is a guess, nothing confirms it; give --config"
    if not bad:
        return None if good else "no pass with layers was found: name a kernel of every layer with --anchor"
    number = sorted({view.layers.checks[at].count for at in bad})
    wanted = view.layers.checks[bad[0]].expected or "unknown"
    where = f"{len(bad)} of {len(bad) + len(good)} passes"
    return f"layer segmentation unreliable in {where}: {', '.join(map(str, number))} anchors found, {wanted} expected"


def _passes(view: View) -> list[Row]:
    all_ = view.passes.list
    begin, end = np.array([each.begin for each in all_], np.int64), np.array([each.end for each in all_], np.int64)
    busy = view.lane.busy().within(begin, end).tolist() if all_ else []
    states = {at: state for group in view.groups for at, state in zip(group.members, group.state, strict=True)}
    return [_pass(view, each, busy[each.index], states.get(each.index, "no layers")) for each in all_]


def _pass(view: View, each: Pass, busy: int, state: str) -> Row:
    rows = view.layers.rows(each.index)
    walls = view.layers.wall[rows]
    return {
        "idx": each.index,
        "kind": each.kind,
        "method": each.method,
        "text": each.text,
        "sequences": each.sequences or None,
        "tokens": each.tokens or None,
        "start_us": _us(each.begin),
        "end_us": _us(each.end),
        "dur_us": _us(each.duration),
        "busy_us": _us(busy),
        "idle_us": _us(each.duration - busy),
        "kernels": each.kernels,
        "layers": len(walls),
        "avg_layer_us": _us(walls.mean()) if len(walls) else None,
        "first_layer_us": _us(walls[0]) if len(walls) else None,
        "state": state,
        "note": each.note,
    }


def _us(ns: float) -> float:
    return round(float(ns) / 1000, 3)
