"""Which passes are like the others: cold ones at the start and outliers, told apart by median and MAD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sotad.pipeline.passes import Pass
from sotad.trace.columns import I64

REACH = 3.0  # deviations that a steady pass may be away
FLOOR = 0.01  # of the median: equal durations must not make every small difference an outlier
TO_SIGMA = 1.4826
ENOUGH = 3
HALF = 0.5


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and median absolute deviation, in the unit of the values."""

    median: float
    mad: float


@dataclass(slots=True)
class Group:
    """Passes of one kind that may be averaged. ``state`` says for each of ``members`` `steady`, `cold`, `outlier`, or
    `other shape` (another batch than most); ``chosen`` is the steady pass nearest to the median."""

    kind: str
    members: list[int]
    state: list[str]
    spread: Spread
    chosen: int
    why: str

    @property
    def steady(self) -> list[int]:
        """Indices of the steady passes."""
        return [at for at, state in zip(self.members, self.state, strict=True) if state == "steady"]


def spread(values: Sequence[float] | I64) -> Spread:
    """Median and MAD; zero for no values."""
    if not len(values):
        return Spread(0.0, 0.0)
    array = np.asarray(values, float)
    median = float(np.median(array))
    return Spread(median, float(np.median(np.abs(array - median))))


def groups(passes: Sequence[Pass], usable: Sequence[bool]) -> list[Group]:
    """Passes by kind, most time first. Passes that are not ``usable`` (no layers) are left out as long as others of
    their kind are."""
    found = []
    for kind in dict.fromkeys(each.kind for each in passes):
        members = [each for each in passes if each.kind == kind]
        kept = [each for each in members if usable[each.index]] or members
        found.append(_group(kind, kept))
    return sorted(found, key=lambda group: -sum(passes[at].duration for at in group.members))


def _group(kind: str, members: list[Pass]) -> Group:
    alike = _alike(members)
    durations = np.array([members[at].duration for at in alike])
    whole = spread(durations)
    reach = REACH * max(TO_SIGMA * whole.mad, FLOOR * whole.median)
    state = ["other shape"] * len(members)
    leading = True
    for at, duration in zip(alike, durations.tolist(), strict=True):
        usual = abs(duration - whole.median) <= reach or len(alike) < ENOUGH
        leading = leading and not usual
        state[at] = "steady" if usual else "cold" if leading else "outlier"
    steady = [members[at] for at in alike if state[at] == "steady"]
    within = spread([each.duration for each in steady])
    chosen = min(steady, key=lambda each: (abs(each.duration - within.median), each.index))
    return Group(kind, [each.index for each in members], state, within, chosen.index, _why(members, state, within))


def _alike(members: list[Pass]) -> list[int]:
    """Positions of the passes of the commonest batch, when half of all or more have it; else of all."""
    shapes = [(each.sequences, each.tokens) for each in members]
    most = max(dict.fromkeys(shapes), key=shapes.count)
    if shapes.count(most) < HALF * len(shapes):
        return list(range(len(members)))
    return [at for at, shape in enumerate(shapes) if shape == most]


def _why(members: list[Pass], state: list[str], within: Spread) -> str:
    steady = state.count("steady")
    if len(members) < ENOUGH:
        return f"nearest to the median; {len(members)} of the kind are too few to tell cold from steady"
    left = ", ".join(f"{state.count(kind)} {kind}" for kind in ("cold", "outlier", "other shape") if kind in state)
    told = f"nearest to the median ({within.median / 1e6:.3f} ms) of {steady} steady passes"
    return f"{told}; {left} left out" if left else told
