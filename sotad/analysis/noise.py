"""How sure a difference of two means is, from the spread of the single steps on each side.

The interval is Student's t with Welch's degrees of freedom (1947); several rows at once are corrected with Holm's
step-down (1979). What differs between two captures as wholes (clocks, other load) is not in the spread of their steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statemachine.boundaries import student_critical, student_tail

F64 = NDArray[np.float64]
LEVEL = 0.05  # error of an interval, and of all rows of one family together
Z = 1.959963984540054  # the normal quantile of LEVEL, two-sided
FAR = 3.5 * 1.4826  # times the median absolute deviation: what lies further out is no ordinary step
APART = 0.1  # of the median: what lies nearer is an ordinary step, however alike the others are
MOST_LEFT_OUT = 0.25  # of the steps; when more lie far out, they are part of the load


@dataclass(frozen=True, slots=True)
class Stratum:
    """Steps that may be compared with each other, one row a step and one column a part; weights add up to 1."""

    weight: float
    target: F64
    leader: F64


@dataclass(frozen=True, slots=True)
class Estimate:
    """Means per part, their difference, and its 95% interval and p value, nan where a side has fewer than two steps."""

    target: F64
    leader: F64
    extra: F64
    low: F64
    high: F64
    p: F64


def ordinary(lengths: F64) -> NDArray[np.bool_]:
    """Which steps are of ordinary length: a profiler that starts, or a pause of the host, makes others."""
    if not len(lengths):
        return np.zeros(0, dtype=bool)
    middle = float(np.median(lengths))
    away = np.abs(lengths - middle)
    kept: NDArray[np.bool_] = away <= max(FAR * float(np.median(away)), APART * middle)
    return kept if kept.mean() >= 1 - MOST_LEFT_OUT else np.ones_like(kept)


def estimate(strata: Sequence[Stratum]) -> Estimate:
    """The weighted difference target - leader of every column, and how sure it is."""
    target: F64 = sum((s.weight * s.target.mean(axis=0) for s in strata), np.zeros(strata[0].target.shape[1]))
    leader: F64 = sum((s.weight * s.leader.mean(axis=0) for s in strata), np.zeros(strata[0].target.shape[1]))
    errors = [(s.weight**2 * _variance(side) / len(side), len(side)) for s in strata for side in (s.target, s.leader)]
    variance: F64 = sum((error for error, _ in errors), np.zeros_like(target))
    squares: F64 = sum((error**2 / max(1, n - 1) for error, n in errors), np.zeros_like(target))
    extra = target - leader
    judged = [_judge(*each) for each in zip(extra, variance, squares, strict=True)]
    low, high, p = (np.array([each[i] for each in judged]) for i in range(3))
    return Estimate(target, leader, extra, low, high, p)


def _variance(side: F64) -> F64:
    return side.var(axis=0, ddof=1) if len(side) > 1 else np.full(side.shape[1], np.nan)


def _judge(extra: float, variance: float, squares: float) -> tuple[float, float, float]:
    """Interval and two-sided p value of one difference."""
    if math.isnan(variance):
        return math.nan, math.nan, math.nan
    error = math.sqrt(variance)
    if error <= 1e-12 * abs(extra) or squares == 0.0:
        return extra, extra, 1.0 if extra == 0.0 else 0.0
    freedom = variance**2 / squares
    reach = error * student_critical(Z, freedom)
    return extra - reach, extra + reach, min(1.0, 2 * student_tail(abs(extra) / error, freedom))


def holm(p: F64) -> F64:
    """The p values corrected for their number; nan stays nan and does not count."""
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return corrected
