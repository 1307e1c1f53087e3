"""The kernels of one layer: in order, by heat, by category, over all steady passes; and two layers compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sotad.pipeline.steady import spread
from sotad.pipeline.view import View
from sotad.trace.columns import I64

Row = dict[str, Any]
Origin = Callable[[int], tuple[str | None, str | None]]


def nowhere(row: int) -> tuple[None, None]:
    """The origin of kernels in a trace that does not tell it."""
    return None, None


def members(view: View, pass_: int, layer: int) -> I64:
    """The kernels of a layer of a pass, as positions in the lane; none when there is no such layer."""
    rows, each = view.layers.rows(pass_), view.passes.list[pass_]
    if not 0 <= layer < rows.stop - rows.start:
        return np.zeros(0, np.int64)
    first, last = np.searchsorted(view.lane.begin, [each.begin, each.end + 1])
    found: I64 = np.flatnonzero(view.layers.row_of[first:last] == rows.start + layer) + first
    return found


def flow(view: View, group: Sequence[int], pass_: int, layer: int, origin: Origin = nowhere) -> list[Row]:
    """The kernels of a layer in order of time.

    Durations are medians and MADs over the passes of ``group`` whose layer runs the same kernels; ``ts_rel_us`` is
    the begin from the layer's own, in ``pass_``. ``hot`` is the rank by duration. ``origin`` tells the CPU
    operator and source line of each row of the trace's kernels.
    """
    own = members(view, pass_, layer)
    if not len(own):
        return []
    lane, words = view.lane, view.lane.words
    times = _durations(view, group, own, layer)
    middle = np.median(times, axis=0)
    total = float(middle.sum()) or 1.0
    hot = np.empty(len(own), np.int64)
    hot[np.lexsort((np.arange(len(own)), lane.begin[own], -middle))] = np.arange(1, len(own) + 1)
    halves = _halves(view, own)
    return [
        {
            "idx": at,
            "hot": int(hot[at]),
            "half": halves[at],
            "category": words.categories[lane.category[kernel]],
            "name": words.names[lane.name[kernel]],
            "simplified": words.labels[lane.label[kernel]],
            "dur_us": _spread_us(times[:, at]),
            "share": round(100 * float(middle[at]) / total, 2),
            "ts_rel_us": _us(lane.begin[kernel] - lane.begin[own[0]]),
            "stream": lane.streams[lane.stream[kernel]],
            **dict(zip(("cpu_op", "py"), origin(int(lane.row[kernel])), strict=True)),
        }
        for at, kernel in enumerate(own.tolist())
    ]


def _durations(view: View, group: Sequence[int], own: I64, layer: int) -> I64:
    """[passes, kernels]: durations of the layer's kernels in every pass that runs the same ones."""
    lane = view.lane
    alike = [own]
    for other in group:
        found = members(view, other, layer)
        if len(found) == len(own) and found[0] != own[0] and (lane.label[found] == lane.label[own]).all():
            alike.append(found)
    at = np.stack(alike)
    return np.asarray(lane.end[at] - lane.begin[at], np.int64)


def _halves(view: View, own: I64) -> list[str]:
    """The part of the layer that each kernel is in, for families with several blocks in a layer."""
    names = view.profile.halves
    if len(names) < 2:
        return list(names) * len(own)
    marks = np.isin(own, view.anchors.at)
    opens = bool(marks[0])  # a layer that begins with its anchor changes its part at the next one, others after theirs
    seen = np.cumsum(marks) - 1 if opens else np.cumsum(marks) - marks
    return [names[min(int(at), len(names) - 1)] for at in seen]


def layer_report(view: View, pass_: int, layer: int, ratio: int = -1) -> Row:
    """One layer of one pass: wall and summed time in us, time by category, kernels by heat. None of it averaged."""
    rows = view.layers.rows(pass_)
    row = rows.start + layer
    kernels = flow(view, (), pass_, layer)
    summary: dict[str, Row] = {}
    for each in kernels:
        entry = summary.setdefault(each["category"], {"dur_us": 0.0, "count": 0})
        entry["dur_us"] = round(entry["dur_us"] + each["dur_us"]["median"], 3)
        entry["count"] += 1
    return {
        "metadata": {
            "layer_id": layer,
            "fwd_pass": pass_,
            "kind": view.passes.list[pass_].kind,
            "compress_ratio": ratio,
            "num_layers": rows.stop - rows.start,
            "wall_us": _us(view.layers.wall[row]),
            "busy_us": _us(view.layers.busy[row]),
            "gap_us": _us(view.layers.wall[row] - view.layers.busy[row]),
            "exposed_comm_us": _us(view.layers.exposed[row]),
            "total_dur_us": _us(view.layers.total[row]),
            "num_kernels": int(view.layers.kernels[row]),
        },
        "category_summary": dict(sorted(summary.items(), key=lambda item: -item[1]["dur_us"])),
        "kernels": [_kernel(each) for each in sorted(kernels, key=lambda each: int(each["hot"]))],
    }


def _kernel(row: Row) -> Row:
    return {
        "name": row["name"],
        "simplified_name": row["simplified"],
        "dur_us": row["dur_us"]["median"],
        "share": row["share"],
        "category": row["category"],
        "half": row["half"],
        "ts": row["ts_rel_us"],
        "order": row["idx"],
        "stream": row["stream"],
    }


def compare(first: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """What two flows spend on each kernel name, biggest difference first; ``delta_us`` is second minus first.

    The deltas add up to the difference of the layers' summed kernel time.
    """
    sides = [_by_name(first), _by_name(second)]
    rows = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        (count_a, us_a), (count_b, us_b) = (side.get(name, (0, 0.0)) for side in sides)
        where = "both" if count_a and count_b else "first only" if count_a else "second only"
        told = {"name": name, "in": where, "count": [count_a, count_b], "us": [round(us_a, 3), round(us_b, 3)]}
        rows.append({**told, "delta_us": round(us_b - us_a, 3)})
    return sorted(rows, key=lambda row: (-abs(row["delta_us"]), row["name"]))


def _by_name(rows: Sequence[Row]) -> dict[str, tuple[int, float]]:
    found: dict[str, tuple[int, float]] = {}
    for row in rows:
        count, us = found.get(row["simplified"], (0, 0.0))
        found[row["simplified"]] = (count + 1, us + row["dur_us"]["median"])
    return found


def _spread_us(values: I64) -> Row:
    told = spread(values)
    return {"median": _us(told.median), "mad": _us(told.mad)}


def _us(ns: float) -> float:
    return round(float(ns) / 1000, 3)
