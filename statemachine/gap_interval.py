"""Bounds for the gap that may be looked at after every block, each wrong in at most ``alpha`` of campaigns.

Two valid bounds are computed from the same blocks, and the tighter one counts; each has its own part of
the error, so that the parts add up (union bound):

launches    Target and leader launches as two samples with unequal variances (Welch 1947): up to twice the
            degrees of freedom. What both launches of a block share only makes it wider.
pairs       One difference a block: what both launches of a block share cancels.

The lower bound spends its error early, so that a large gap is seen within a few launches. The upper
bound, which carries the claim of being at par, spends it late, as most of that evidence comes late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, variance

from statemachine.boundaries import PowerSpending, student_critical, z_boundary
from statemachine.gap_blocks import Launches

LOWER = PowerSpending(0.3)
UPPER = PowerSpending(2.0)
LOWER_PAIRS, UPPER_PAIRS = 0.1, 0.2
"""The part of the error that the bound over pairs gets; the bound over launches gets the rest."""
USED = 0.85
"""The part of ``alpha`` that is spent: Student's t and Welch's degrees of freedom are a bit generous."""
RUNS_WEIGHT = 3
"""Degrees of freedom with which the noise between runs enters the ratio of the two sides' variances."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """An estimate of the gap with its bounds, all in percent, and the numbers that they come from.

    ``se`` and ``df`` belong to the launches bound. ``z_lower`` and ``z_upper`` are the boundaries for
    known variance, ``lower_by`` and ``upper_by`` say which of the two bounds was tighter.
    """

    g: float
    low: float
    high: float
    se: float
    df: float
    launch_sd: float
    z_lower: float
    z_upper: float
    lower_by: str
    upper_by: str


def bounds(measured: Launches, alpha: float, first: int, cap: int) -> Bounds:
    """The bounds after ``measured``, which has at least ``first`` (>= 2) and at most ``cap`` blocks."""
    n = len(measured.target)
    g = fmean(measured.gaps)
    spread = [variance(side) for side in (measured.target, measured.leader)]
    se, pairs_se = math.sqrt(sum(spread) / n), math.sqrt(variance(measured.gaps) / n)
    df = _freedom(measured, spread, n)
    errors = {"launches": (se, df), "pairs": (pairs_se, n - 1.0)}
    z_below = _boundaries(LOWER, LOWER_PAIRS, alpha, first, cap, n)
    z_above = _boundaries(UPPER, UPPER_PAIRS, alpha, first, cap, n)
    below = {by: error * student_critical(z_below[by], freedom) for by, (error, freedom) in errors.items()}
    above = {by: error * student_critical(z_above[by], freedom) for by, (error, freedom) in errors.items()}
    lower_by, upper_by = min(below, key=below.__getitem__), min(above, key=above.__getitem__)
    low, high = g - below[lower_by], g + above[upper_by]
    launch_sd, z = math.sqrt(fmean(spread)), (z_below["launches"], z_above["launches"])
    return Bounds(g, low, high, se, df, launch_sd, *z, lower_by, upper_by)


def _boundaries(shape: PowerSpending, pairs: float, alpha: float, first: int, cap: int, n: int) -> dict[str, float]:
    """The boundary of each bound after ``n`` blocks, for known variance."""
    parts = {"launches": USED * alpha * (1.0 - pairs), "pairs": USED * alpha * pairs}
    return {by: z_boundary(shape, part, first, cap)[n - first] for by, part in parts.items()}


def _freedom(measured: Launches, spread: list[float], n: int) -> float:
    """Welch and Satterthwaite's degrees of freedom, n - 1 to 2n - 2.

    The ratio of the two variances is steadied by the noise between runs, which is far better known after
    few launches.
    """
    ratio = spread
    if measured.target_noise is not None and measured.leader_noise is not None:
        noise = [fmean(side) / measured.runs for side in (measured.target_noise, measured.leader_noise)]
        weights = zip(spread, noise, strict=True)
        ratio = [((n - 1) * between + RUNS_WEIGHT * within) / (n - 1 + RUNS_WEIGHT) for between, within in weights]
    squares = sum(v * v for v in ratio)
    if squares == 0.0:
        return n - 1.0
    return (n - 1) * sum(ratio) ** 2 / squares
