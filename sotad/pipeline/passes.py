"""Forward passes on one device: by annotated steps, else by graph replays, else by recurring gaps, else by counting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sotad.analysis.stages import Step
from sotad.pipeline.anchors import Found
from sotad.pipeline.lane import Lane
from sotad.pipeline.period import Period
from sotad.trace.columns import I64

UNKNOWN = "unknown"
SHORTEST_GAP_NS = 20_000
FACTORS = (
    1,
    2,
    4,
    8,
    16,
    32,
    64,
    0.5,
    0.25,
)  # gaps of eager decoding inside a step can be as long as those between steps
AGREE = 0.8
MAINLY = 2 / 3  # of all anchors are in whole passes
DRAFTS = 3  # shorter passes that come this often are another model's
FEWEST = 4  # anchors in a trace of one pass
PREFILL = re.compile(r"prefill|ragged|context_attention|chunk_|varlen_fwd|extend", re.IGNORECASE)
DECODE = re.compile(r"decode|combine|splitkv|paged_attention|recurrent|state_update|grouped_kernel", re.IGNORECASE)


@dataclass(slots=True)
class Pass:
    """One forward pass. ``begin`` and ``end`` are those of its kernels, ns; ``sequences`` and ``tokens`` are 0 where
    nothing says them."""

    index: int
    kind: str
    method: str
    begin: int
    end: int
    kernels: int
    text: str = ""
    sequences: int = 0
    tokens: int = 0
    note: str = ""

    @property
    def duration(self) -> int:
        """ns."""
        return self.end - self.begin


@dataclass(slots=True)
class Passes:
    """``of`` is the pass of every kernel of a lane, -1 where it is in none."""

    of: I64
    list: list[Pass]
    method: str


def find_passes(lane: Lane, steps: Sequence[Step], anchors: Found, expected: int | None, period: Period) -> Passes:
    """The passes of a lane.

    ``expected`` is the number of anchors in a pass where that is known, ``period`` the layers to count by when neither
    annotations nor graphs nor gaps part the passes.
    """
    in_pass = expected or period.layers * anchors.blocks_per_layer
    if (lane.step >= 0).any():
        return _by_steps(lane, steps)
    graphs = _by_graphs(lane, anchors)
    if graphs is not None:
        return graphs
    gaps = _by_gaps(lane, anchors.at, expected or (in_pass if period.sure else None))
    if gaps is not None:
        return _numbered(lane, gaps, "gaps")
    counted = by_counting(lane, anchors.at, in_pass, period.phase)
    if (counted < 0).all() and _alone(lane, anchors.at):
        return _numbered(lane, np.zeros(len(lane), np.int64), "whole trace")
    return _numbered(lane, counted, "anchor count")


def _alone(lane: Lane, anchors: I64) -> bool:
    """Whether the trace may be a single pass: it has layers, and kernels that are in none of them."""
    number = np.bincount(lane.label)
    return len(anchors) >= FEWEST and bool((number[number > 0] <= len(anchors) / 4).any())


def _by_steps(lane: Lane, steps: Sequence[Step]) -> Passes:
    found = _numbered(lane, lane.step, "annotation")
    for each, step in zip(found.list, _first_values(lane.step, found.of), strict=True):
        told = steps[step]
        each.kind, each.text = told.stage, told.text
        each.sequences, each.tokens = told.sequences, told.tokens
    return found


def _first_values(values: I64, of: I64) -> list[int]:
    """The value that each pass was made from."""
    inside = np.flatnonzero(of >= 0)
    _, first = np.unique(of[inside], return_index=True)
    return [int(values[inside[at]]) for at in first]


def _numbered(lane: Lane, group: I64, method: str) -> Passes:
    """Passes of any group numbers (negative: none), numbered by their first kernel."""
    inside = np.flatnonzero(group >= 0)
    of = np.full(len(lane), -1, np.int64)
    if not len(inside):
        return Passes(of, [], method)
    _, first, index = np.unique(group[inside], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    of[inside] = rank[index.reshape(-1)]
    count = len(first)
    end = np.zeros(count, np.int64)
    np.maximum.at(end, of[inside], lane.end[inside])
    begin, number = lane.begin[inside[np.sort(first)]], np.bincount(of[inside], minlength=count)
    kinds = _kinds(lane, of, count)
    rows = zip(kinds, begin.tolist(), end.tolist(), number.tolist(), strict=True)
    return Passes(of, [Pass(at, kind, method, *rest) for at, (kind, *rest) in enumerate(rows)], method)


def _kinds(lane: Lane, of: I64, count: int) -> list[str]:
    """Prefill or decode as the names of attention kernels say; `mixed` when both kinds of them run."""
    attention = lane.of_categories("attention", "linear_attn") & (of >= 0)
    seen = [np.zeros(count, bool), np.zeros(count, bool)]
    for mark, words in zip(seen, (PREFILL, DECODE), strict=True):
        chosen = np.array([bool(words.search(name)) for name in lane.words.names], bool)[lane.name]
        mark[of[attention & chosen]] = True
    table = {(True, True): "mixed", (True, False): "prefill", (False, True): "decode", (False, False): UNKNOWN}
    return [table[bool(a), bool(b)] for a, b in zip(*seen, strict=True)]


def _by_graphs(lane: Lane, anchors: Found) -> Passes | None:
    """One replay of a graph is a pass, unless graphs hold single layers; what ran between replays is split off when
    it has anchors of its own."""
    inside = lane.graph >= 0
    if not inside.any():
        return None
    replays, index = np.unique(lane.graph[inside], return_inverse=True)
    marked = np.isin(np.flatnonzero(inside), anchors.at)
    held = np.bincount(index.reshape(-1)[marked], minlength=len(replays))
    full = held >= 2 if len(anchors.at) else held >= 0
    if 2 * held[full].sum() < len(anchors.at):
        return None
    group = np.where(np.isin(lane.graph, replays[full]), lane.graph, -1)
    eager = _between(group, anchors.at)
    found = _numbered(lane, np.where(eager >= 0, eager + replays.max() + 1, group), "graph replay")
    for each, value in zip(found.list, _first_values(np.where(eager >= 0, -1, group), found.of), strict=True):
        if value >= 0 and each.kind == UNKNOWN:
            each.kind = "decode"
        elif value < 0:
            each.method = "between graph replays"
    return found


def _between(group: I64, anchors: I64) -> I64:
    """Number stretches outside every group that hold at least two anchors; -1 elsewhere."""
    outside = group < 0
    opens = outside & np.concatenate(([True], ~outside[:-1]))
    stretch = np.where(outside, np.cumsum(opens) - 1, -1)
    held = np.bincount(stretch[anchors][stretch[anchors] >= 0], minlength=int(opens.sum()) + 1)
    return np.where(outside & (held[stretch] >= 2), stretch, -1)


def _by_gaps(lane: Lane, anchors: I64, expected: int | None) -> I64 | None:
    """Segments between gaps that recur, when most segments with anchors hold equally many (or as many as expected);
    without anchors, equally many kernels."""
    reach = np.maximum.accumulate(lane.end)
    gap = np.concatenate(([0], lane.begin[1:] - reach[:-1]))
    waits = gap[gap > 0]
    if not len(waits):
        return None
    base = max(SHORTEST_GAP_NS, 5 * int(np.median(waits)))
    for factor in FACTORS:
        segment = np.cumsum(gap > base * factor)
        held = np.bincount(segment[anchors]) if len(anchors) else np.bincount(segment)
        if _agree(held[held > 0], expected):
            return np.where(np.append(held, np.zeros(segment[-1] + 1 - len(held), int))[segment] > 0, segment, -1)
    return None


def _agree(held: I64, expected: int | None) -> bool:
    """Whether most segments hold equally many anchors (or as many as expected), those of a draft model aside, which are
    fewer than half as many and come again and again."""
    if len(held) < 2:
        return False
    number = np.bincount(held)
    most = expected or int((number * np.arange(len(number))).argmax())
    draft = (held < most / 2) & (number[held] >= DRAFTS)
    whole = held == most
    enough = float(held[whole].sum()) >= MAINLY * float(held.sum())
    return most >= 2 and enough and float(np.mean(whole | draft)) >= AGREE


def by_counting(lane: Lane, anchors: I64, in_pass: int, phase: int = 0) -> I64:
    """Every `in_pass` anchors are a pass; the last one may end with the trace instead of with the next anchor. The
    first `phase` anchors are the rest of a pass that began before the trace, and in none.

    Two passes part at the longest gap between the last anchor of the one and the first of the other.
    """
    group = np.full(len(lane), -1, np.int64)
    passes = (len(anchors) - phase) // in_pass if in_pass else 0
    if passes <= 0:
        return group
    cuts = [] if phase else [0]
    for at in range(phase or in_pass, phase + passes * in_pass, in_pass):
        last, first = int(anchors[at - 1]), int(anchors[at])
        gap = lane.begin[last + 1 : first + 1] - np.maximum.accumulate(lane.end[last:first])
        cuts.append(last + 1 + int(np.argmax(gap)) if gap.max() > gap.min() else first)
    end = phase + passes * in_pass
    cuts.append(int(anchors[end]) if end < len(anchors) else len(lane))
    for number in range(passes):
        group[cuts[number] : cuts[number + 1]] = number
    return group
