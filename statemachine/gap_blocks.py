"""What was measured for a decision: blocks of one launch a side, and which of them count.

A launch is one piece of evidence: its value is the mean of the logarithms of its runs, in percent. Runs
inside a launch are not independent of each other, so they only describe the noise within it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median, variance

_LIMITS = (
    53.3,
    61.6,
    26.1,
    27.8,
    18.4,
    19.1,
    14.8,
    15.2,
    13.0,
    13.2,
    11.6,
    11.9,
    10.9,
    11.0,
    10.3,
    10.3,
    9.9,
)
"""How far the farthest of 4, 5, ... 20 normal values lies from their median in 1 case of 500, in median
deviations (finite-sample Hampel identifier, Davies and Gather 1993). ``bench_gap.py --limits`` has them."""

MOST_SET_ASIDE = 4
"""At most one block in this many may be set aside; with more, nothing is called."""


@dataclass(frozen=True, slots=True)
class Block:
    """One launch of each side on the same GPUs: the primary metric of each run, higher is better, any unit.

    Raises: ValueError when a side has no runs, the sides have unequal runs, or a value is not a finite
    number above 0.
    """

    target: tuple[float, ...]
    leader: tuple[float, ...]

    def __post_init__(self) -> None:
        for side in ("target", "leader"):
            object.__setattr__(self, side, tuple(getattr(self, side)))
            _check_runs(side, getattr(self, side))
        if len(self.target) != len(self.leader):
            raise ValueError(
                f"block: the target has {len(self.target)} runs, the leader {len(self.leader)}: "
                "measure both sides equally often"
            )


def _check_runs(side: str, runs: tuple[float, ...]) -> None:
    if not runs:
        raise ValueError(f"block: the {side} has no runs: leave an unfinished launch out of the decision")
    for number, value in enumerate(runs, start=1):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ValueError(
                f"block: run {number} of the {side} is {value!r}: the metric must be finite and above 0; "
                "a failed run makes the launch unusable"
            )


@dataclass(frozen=True, slots=True)
class Launches:
    """Blocks as launch values: 100 x mean ln of the runs (percent), and the variance between a launch's
    runs (percent squared).

    ``target_noise`` and ``leader_noise`` are None with one run a launch. All four run parallel over the
    blocks.
    """

    target: tuple[float, ...]
    leader: tuple[float, ...]
    target_noise: tuple[float, ...] | None
    leader_noise: tuple[float, ...] | None
    runs: int

    @property
    def gaps(self) -> tuple[float, ...]:
        """Per block, how far the target lies behind, percent."""
        return tuple(b - a for a, b in zip(self.target, self.leader, strict=True))

    def keep(self, kept: Sequence[int]) -> Launches:
        """Only the blocks with these positions."""
        noise = (self.target_noise, self.leader_noise)
        target_noise, leader_noise = (tuple(v[i] for i in kept) if v is not None else None for v in noise)
        target, leader = (tuple(v[i] for i in kept) for v in (self.target, self.leader))
        return Launches(target, leader, target_noise, leader_noise, self.runs)


def launches(blocks: Sequence[Block]) -> Launches:
    """The launch values of ``blocks``. Raises: ValueError for none, or blocks with unequal runs."""
    if not blocks:
        raise ValueError("no blocks: measure at least one launch of each side before deciding")
    runs = {len(block.target) for block in blocks}
    if len(runs) > 1:
        raise ValueError(f"blocks with {sorted(runs)} runs a launch: every launch needs the same number of runs")
    sides = [[[100.0 * math.log(v) for v in runs] for runs in side] for side in _sides(blocks)]
    means = [tuple(fmean(logs) for logs in side) for side in sides]
    count = runs.pop()
    noise = [tuple(variance(logs) for logs in side) if count > 1 else None for side in sides]
    return Launches(means[0], means[1], noise[0], noise[1], count)


def _sides(blocks: Sequence[Block]) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    return [block.target for block in blocks], [block.leader for block in blocks]


def disturbed(measured: Launches) -> dict[int, str]:
    """Position and reason of each block that is far from all others: its gap, or one of its launches.

    The measure is the distance from the median in median deviations, which half of the blocks would have
    to agree to fool. Blind to which side gains. None among fewer than 4 blocks, and none when it would be
    more than half of them: then there is nothing usual to differ from.
    """
    found: dict[int, str] = {}
    series = (("gap", measured.gaps), ("target launch", measured.target), ("leader launch", measured.leader))
    for what, values in series:
        for position, text in _far(values):
            found.setdefault(position, f"its {what} lies {text}")
    return found if 2 * len(found) <= len(measured.gaps) else {}


def _far(values: tuple[float, ...]) -> list[tuple[int, str]]:
    if len(values) < 4:
        return []
    middle = median(values)
    limit = _LIMITS[min(len(values), 20) - 4] * median(abs(v - middle) for v in values)
    if limit < 1e-6:  # equal values, but for rounding: there is no noise to measure a distance in
        return []
    return [
        (i, f"{abs(v - middle):.3g}% from the median of its kind, the limit is {limit:.3g}%")
        for i, v in enumerate(values)
        if abs(v - middle) > limit
    ]


def noise(measured: Launches) -> float:
    """The usual noise of the host, percent: between runs of a launch or between launches, whichever is
    larger.

    Standard deviations from medians, so that a few disturbed blocks do not count: the median variance of
    a launch over that of the chi-squared distribution (Wilson and Hilferty 1931), and the median
    deviation of the gaps, a launch's part.
    """
    gaps = measured.gaps
    middle = median(gaps)
    launch = median(abs(v - middle) for v in gaps) / NormalDist().inv_cdf(0.75) / math.sqrt(2.0)
    if measured.target_noise is None or measured.leader_noise is None:
        return launch
    typical = median((*measured.target_noise, *measured.leader_noise))
    return max(launch, math.sqrt(typical / (1.0 - 2.0 / (9.0 * (measured.runs - 1))) ** 3))
