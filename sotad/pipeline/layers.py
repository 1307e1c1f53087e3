"""The layers of every pass of a lane, with their times. One row per layer of a pass, everything in arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sotad.pipeline.anchors import Found
from sotad.pipeline.bounds import Bounds, refined
from sotad.pipeline.lane import COMMUNICATION, Lane
from sotad.pipeline.passes import Passes
from sotad.trace.columns import I64

HEAD, TAIL, OUTSIDE = -1, -2, -3  # before the first layer, after the last, in no pass or in one without layers
_NORM = re.compile(r"norm", re.IGNORECASE)


@dataclass(slots=True)
class Check:
    """Whether a pass could be cut into layers: anchors found on its main stream and anchors expected."""

    count: int
    expected: int
    layers: int
    stream: int
    note: str = ""

    @property
    def reliable(self) -> bool:
        """The counts agree."""
        return self.layers > 0


@dataclass(slots=True)
class Layers:
    """Rows are layers of passes, in order of pass and layer; times in ns.

    ``layer_of`` and ``row_of`` say for every kernel of the lane its layer (or `HEAD`, `TAIL`, `OUTSIDE`) and row
    (-1). ``begin`` to ``end`` is the wall time, from the first to the last kernel on the main stream; ``busy`` is what
    any kernel of the device covers of that, ``exposed`` what only communication covers, ``wait`` the time from the
    end to the next layer (0 after the last). ``total`` adds up the durations of the layer's own kernels on all streams
    and ``by_category`` parts it.
    """

    layer_of: I64
    row_of: I64
    pass_: I64
    layer: I64
    begin: I64
    end: I64
    wait: I64
    busy: I64
    exposed: I64
    kernels: I64
    total: I64
    by_category: I64
    first_row: I64
    checks: list[Check]
    opened_by: str

    @property
    def wall(self) -> I64:
        """ns."""
        return self.end - self.begin

    def rows(self, pass_: int) -> slice:
        """The rows of a pass."""
        return slice(int(self.first_row[pass_]), int(self.first_row[pass_ + 1]))


@dataclass(slots=True)
class _Cut:
    """Layers of one pass as positions in the lane: their first kernels, and one past the end of the last."""

    main: I64
    starts: I64


def segment(lane: Lane, passes: Passes, anchors: Found, expected: I64) -> Layers:
    """Cut every pass into layers where the number of its anchors is ``expected`` [passes]; other passes have none."""
    members = np.argsort(passes.of, kind="stable")
    edges = np.searchsorted(passes.of[members], np.arange(len(passes.list) + 1))
    marked = np.zeros(len(lane), bool)
    marked[anchors.at] = True
    norms = {at for at, label in enumerate(lane.words.labels) if _is_norm(lane, at, label)}
    known: dict[bytes, Bounds] = {}
    layer_of, row_of = np.full(len(lane), OUTSIDE, np.int64), np.full(len(lane), -1, np.int64)
    checks, cuts, first_row = [], [], [0]
    for number in range(len(passes.list)):
        own = members[edges[number] : edges[number + 1]]
        check, main, at = _check(lane, own, marked, int(expected[number]), anchors.blocks_per_layer)
        checks.append(check)
        if check.reliable:
            bounds = _bounds(known, lane.label[main].astype(np.int64), at, anchors.blocks_per_layer, norms)
            layer = _assign(lane, own, main, bounds.starts)
            layer_of[own] = layer
            row_of[own[layer >= 0]] = first_row[-1] + layer[layer >= 0]
            cuts.append(_Cut(main, bounds.starts))
        first_row.append(first_row[-1] + check.layers)
    opened = _opener(lane, [bounds.opener for bounds in known.values()])
    return _measured(lane, layer_of, row_of, cuts, np.array(first_row, np.int64), checks, opened)


def _is_norm(lane: Lane, at: int, label: str) -> bool:
    return bool(_NORM.search(label)) or _category_of_label(lane, at) == "norm"


def _category_of_label(lane: Lane, label: int) -> str:
    first = int(np.argmax(lane.words.label == label))
    return str(lane.words.categories[lane.words.category[first]])


def _opener(lane: Lane, told: list[int | None]) -> str:
    """What opens a layer most often, by name."""
    if not told:
        return ""
    most = max(dict.fromkeys(told), key=told.count)
    return "anchor" if most is None else lane.words.labels[most]


def _check(lane: Lane, own: I64, marked: I64, expected: int, blocks: int) -> tuple[Check, I64, I64]:
    """The check of a pass, its kernels on the main stream (the one with most anchors) and the anchors among them."""
    hits = own[marked[own]]
    streams, number = np.unique(lane.stream[hits if len(hits) else own], return_counts=True)
    best = int(streams[np.argmax(number)])
    main = own[lane.stream[own] == best]
    at = np.flatnonzero(marked[main])
    agrees = expected > 0 and len(at) == expected and not expected % blocks
    note = "interleaved: anchors on several streams" if len(hits) - len(at) > len(hits) / 4 else ""
    return Check(len(at), expected, expected // blocks if agrees else 0, best, note), main, at


def _bounds(known: dict[bytes, Bounds], labels: I64, at: I64, blocks: int, norms: set[int]) -> Bounds:
    """Passes of equal kernels, as all replays of one graph are, are cut alike."""
    key = labels.tobytes() + b"|" + at.tobytes()
    if key not in known:
        known[key] = refined(labels, at, blocks, norms)
    return known[key]


def _assign(lane: Lane, own: I64, main: I64, starts: I64) -> I64:
    """The layer of each kernel of a pass: by position on the main stream, by begin on the others."""
    position = np.searchsorted(main, own)
    on_main = (position < len(main)) & (main[np.minimum(position, len(main) - 1)] == own)
    layer = np.searchsorted(starts, position, side="right") - 1
    opening = lane.begin[main[np.minimum(starts, len(main) - 1)]]
    opening[starts >= len(main)] = np.iinfo(np.int64).max
    layer = np.where(on_main, layer, np.searchsorted(opening, lane.begin[own], side="right") - 1)
    return np.where(layer >= len(starts) - 1, TAIL, np.where(layer < 0, HEAD, layer))


def _measured(
    lane: Lane, layer_of: I64, row_of: I64, cuts: list[_Cut], first_row: I64, checks: list[Check], opened: str
) -> Layers:
    empty = [np.zeros(0, np.int64)]
    begin = np.concatenate([lane.begin[cut.main[cut.starts[:-1]]] for cut in cuts] or empty)
    end = np.maximum(begin, np.concatenate([lane.end[cut.main[cut.starts[1:] - 1]] for cut in cuts] or empty))
    wait = np.append(begin[1:], 0) - end
    wait[first_row[1:][np.diff(first_row) > 0] - 1] = 0  # after the last layer of a pass
    rows, width = len(begin), len(lane.words.categories)
    inside = row_of >= 0
    busy = lane.busy().within(begin, end)
    compute = lane.busy(~lane.of_categories(COMMUNICATION)).within(begin, end)
    by_category = np.zeros((rows, width), np.int64)
    np.add.at(by_category, (row_of[inside], lane.category[inside]), (lane.end - lane.begin)[inside])
    sizes = np.diff(first_row)
    return Layers(
        layer_of,
        row_of,
        np.repeat(np.arange(len(sizes)), sizes),
        np.arange(rows) - np.repeat(first_row[:-1], sizes),
        begin,
        end,
        np.maximum(0, wait),
        busy,
        busy - compute,
        np.bincount(row_of[inside], minlength=rows),
        by_category.sum(axis=1),
        by_category,
        first_row,
        checks,
        opened,
    )
