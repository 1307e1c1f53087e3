"""The kernel that stands once in every layer: the family's, or one found by how often and how regularly it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sotad.pipeline.lane import MATMUL, Lane
from sotad.pipeline.profiles import Anchor, Profile
from sotad.trace.columns import I64

FEWEST = 2  # a kernel that comes less often in a pass is no sign of layers
LIKELY = 0.25  # a family's anchor needs this share of the best count's support


@dataclass(slots=True)
class Found:
    """Where blocks open: ``at`` are positions in the lane. ``method`` says how the anchor was chosen."""

    at: I64
    text: str
    method: str
    blocks_per_layer: int = 1


@dataclass(slots=True)
class Count:
    """How many layers a pass has, with the share of kernel names that say so, and what came second."""

    layers: int | None
    confidence: float
    runner_up: int | None = None


def by_profile(lane: Lane, profile: Profile) -> Found:
    """The anchors of a family."""
    marked = lane.words.having(profile.anchor.matches)[lane.name]
    at = np.flatnonzero(marked)
    at = first_of_runs(lane, at) if profile.merge else at
    return Found(at, _named(lane, at), f"profile {profile.name}", profile.blocks_per_layer)


def by_substring(lane: Lane, text: str, blocks_per_layer: int) -> Found:
    """The kernels whose name contains a text, case ignored."""
    anchor = Anchor(any=(text.lower(),))
    at = np.flatnonzero(lane.words.having(anchor.matches)[lane.name])
    return Found(at, text, "given", blocks_per_layer)


def first_of_runs(lane: Lane, at: I64) -> I64:
    """Of anchors on one stream with no matrix product between them only the first."""
    products = lane.of_categories(*MATMUL)
    if not products.any():
        return at
    kept = []
    for stream in np.unique(lane.stream[at]):
        own = at[lane.stream[at] == stream]
        before = np.cumsum(products & (lane.stream == stream))[own]
        kept.append(own[np.concatenate(([True], before[1:] > before[:-1]))])
    return np.sort(np.concatenate(kept)) if kept else at


def counts(lane: Lane, pass_of: I64, passes: int) -> I64:
    """How often each short name comes in each pass, [passes, labels]."""
    inside = pass_of >= 0
    width = len(lane.words.labels)
    flat = np.bincount(pass_of[inside] * width + lane.label[inside], minlength=passes * width)
    return flat.reshape(passes, width)


def count_layers(table: I64, family: Sequence[int] = ()) -> Count:
    """The number of layers that most kernel names agree on, over passes as `counts` gives them.

    ``family`` are the counts per pass of the family's own anchor: its most common one wins when the names do not
    speak against it, because the first layers of a model may lack many kernels that the others have. A multiple does
    not: that anchor comes more than once in a layer.
    """
    support = _support(table)
    if not support:
        return Count(None, 0.0)
    best = max(support, key=lambda layers: (support[layers], layers))
    own = _most_common(family)
    if own % best and support.get(own, 0.0) >= LIKELY * support[best]:
        best = own
    others = {layers: weight for layers, weight in support.items() if layers != best and layers != 2 * best}
    second = max(others, key=lambda layers: (others[layers], -layers), default=None)
    told = {often: names for often, names in support.items() if often >= best / 4}  # fewer is not about layers
    agree = sum(names for often, names in told.items() if often % best == 0 or often == best - 1)  # or all but one
    return Count(best, round(agree / sum(told.values()), 3), second)


def _support(table: I64) -> dict[int, float]:
    """For each count the number of names that come so often in their typical pass."""
    found: dict[int, float] = {}
    for column in table.T:
        often = column[column >= FEWEST]
        if len(often):
            typical = _most_common(often.tolist())
            found[typical] = found.get(typical, 0.0) + 1
    return found


def _most_common(values: Sequence[int]) -> int:
    often = [value for value in values if value >= FEWEST]
    if not often:
        return 0
    distinct, number = np.unique(np.array(often), return_counts=True)
    return int(distinct[len(distinct) - 1 - np.argmax(number[::-1])])


def discover(lane: Lane, pass_of: I64, table: I64, layers: int) -> Found | None:
    """The most regular kernel that comes once in each of `layers` layers of a pass, else twice; None without one."""
    for blocks in (1, 2):
        fits = (table == layers * blocks).sum(axis=0)
        if fits.max(initial=0) * 2 >= len(table) > 0:
            names = np.flatnonzero(fits == fits.max()).tolist()
            best = _most_regular(lane, pass_of, names)
            at = np.flatnonzero((lane.label == best) & (pass_of >= 0))
            return Found(at, lane.words.labels[best], "discovered", blocks)
    return None


def regular(lane: Lane) -> Found:
    """Without passes and known kernels: of the names that come equally often and make up most kernels the most
    regular one, and there the one with most time."""
    number = np.bincount(lane.label, minlength=len(lane.words.labels))
    often, names = np.unique(number[number >= 4], return_counts=True)
    if not len(often):
        return Found(np.zeros(0, np.int64), "", "none")
    usual = np.flatnonzero(number == often[np.argmax(often * names)]).tolist()
    whole = np.zeros(len(lane), np.int64)
    best = _most_regular(lane, whole, usual)
    return Found(np.flatnonzero(lane.label == best), lane.words.labels[best], "discovered")


def _most_regular(lane: Lane, pass_of: I64, names: list[int]) -> int:
    time = np.bincount(lane.label, weights=lane.end - lane.begin).tolist()
    return min(names, key=lambda at: (_irregularity(lane, pass_of, at), -time[at], lane.words.labels[at]))


def _irregularity(lane: Lane, pass_of: I64, label: int) -> float:
    """Spread of the number of kernels from one occurrence to the next, relative to its mean."""
    at = np.flatnonzero((lane.label == label) & (pass_of >= 0))
    steps = np.diff(at)[np.diff(pass_of[at]) == 0]
    return round(float(steps.std() / steps.mean()), 1) if len(steps) else float("inf")


def _named(lane: Lane, at: I64) -> str:
    labels, number = np.unique(lane.label[at], return_counts=True)
    order = np.argsort(-number, kind="stable")[:3]
    return ", ".join(lane.words.labels[labels[i]] for i in order)
