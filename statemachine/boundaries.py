"""Boundaries for a test that looks after every block: how far out an estimate must lie at each look.

A boundary is computed, not looked up: the error that a look may spend is given by a spending function,
and the value that spends exactly this much follows from the density of the running sum over the paths
that no earlier look has stopped (recursive numerical integration, Armitage, McPherson and Rowe 1969;
error spending, Lan and DeMets 1983). Unknown variance is met by carrying the tail probability of the
boundary over to Student's t (the significance level approach, Jennison and Turnbull, Group Sequential
Methods, 2000, section 4.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

_REACH = 6.0
"""Paths more than this many standard deviations on the far side never come back: they are cut off."""


class Spending(Protocol):
    """How much of the error may be spent by which share of the largest number of blocks. Hashable."""

    def share(self, t: float) -> float:
        """The share of the error that is spent by ``t``: 0 at 0, 1 at 1, never falling."""


@dataclass(frozen=True, slots=True)
class PowerSpending:
    """Kim and DeMets 1987: t ** rho. Below 1 it spends early, above 1 late."""

    rho: float

    def share(self, t: float) -> float:
        """The share of the error that is spent by ``t`` in 0 to 1."""
        return float(t**self.rho)


def normal_tail(z: float) -> float:
    """P(Z > z) of the standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def _density(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


@lru_cache(maxsize=64)
def z_boundary(spending: Spending, alpha: float, first: int, cap: int) -> tuple[float, ...]:
    """Critical values for a standard normal mean after ``first``, ``first + 1``, ... ``cap`` blocks, one-
    sided.

    The chance of ever crossing is ``alpha`` when the true mean is 0. Raises: ValueError when the looks or
    ``alpha`` make no sense.
    """
    if not (1 <= first <= cap and 0.0 < alpha < 0.5):
        raise ValueError(f"boundary: need 1 <= first <= cap and 0 < alpha < 0.5, got {first}, {cap}, {alpha}")
    nodes = _legendre(max(24, math.ceil(7 * math.sqrt(cap))))
    points: tuple[float, ...] = (0.0,)
    masses: tuple[float, ...] = (1.0,)
    critical: list[float] = []
    spent, step = 0.0, first
    for n in range(first, cap + 1):
        due = alpha * spending.share(n / cap)
        edge = _edge(points, masses, step, due - spent)
        points, masses = _survivors(points, masses, step, -_REACH * math.sqrt(n), edge, nodes)
        critical.append(edge / math.sqrt(n))
        spent, step = due, 1
    return tuple(critical)


def _edge(points: tuple[float, ...], masses: tuple[float, ...], step: int, error: float) -> float:
    """The sum beyond which the next step puts exactly ``error`` (Newton, on the logarithm of the tail)."""
    scale = math.sqrt(step)
    edge = 3.0 * math.sqrt(step) if len(points) == 1 else points[-1]
    for _ in range(100):
        tail = sum(m * normal_tail((edge - x) / scale) for x, m in zip(points, masses, strict=True))
        slope = sum(m * _density((edge - x) / scale) for x, m in zip(points, masses, strict=True)) / scale
        move = tail * math.log(tail / error) / slope
        edge += max(-2.0 * scale, min(2.0 * scale, move))
        if abs(move) < 1e-10:
            break
    return edge


def _survivors(
    points: tuple[float, ...],
    masses: tuple[float, ...],
    step: int,
    low: float,
    high: float,
    nodes: tuple[tuple[float, float], ...],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Points and masses of the running sum after one more step, where it stayed under ``high``."""
    half, middle, scale = (high - low) / 2.0, (high + low) / 2.0, math.sqrt(step)
    there = tuple(middle + half * node for node, _ in nodes)
    pairs = tuple(zip(points, masses, strict=True))
    exp, factor = math.exp, half / (scale * math.sqrt(2.0 * math.pi))
    arrived = tuple(
        factor * weight * sum(m * exp(-0.5 * ((y - x) / scale) ** 2) for x, m in pairs)
        for y, (_, weight) in zip(there, nodes, strict=True)
    )
    return there, arrived


@lru_cache(maxsize=8)
def _legendre(size: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of Gauss and Legendre's rule on [-1, 1], rising (Newton from the cosine guess)."""
    rule: list[tuple[float, float]] = []
    for i in range(size, 0, -1):
        x = math.cos(math.pi * (i - 0.25) / (size + 0.5))
        for _ in range(50):
            before, value = 1.0, x
            for k in range(2, size + 1):
                before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
            slope = size * (x * value - before) / (x * x - 1.0)
            x -= value / slope
            if abs(value / slope) < 1e-15:
                break
        rule.append((x, 2.0 / ((1.0 - x * x) * slope * slope)))
    return tuple(rule)


def student_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with ``df`` > 0 degrees of freedom (real), for t >= 0."""
    return 0.5 * _incomplete_beta(df / (df + t * t), df / 2.0, 0.5)


@lru_cache(maxsize=4096)
def student_critical(z: float, df: float) -> float:
    """The t value with ``df`` degrees of freedom whose tail is that of ``z`` > 0 under the normal.

    Newton on the logarithm of the tail over that of t: falling and concave, so that it cannot run away.
    """
    error, t = normal_tail(z), z
    scale = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(df * math.pi)
    for _ in range(50):
        tail = student_tail(t, df)
        density = math.exp(scale - 0.5 * (df + 1.0) * math.log1p(t * t / df))
        move = tail * math.log(tail / error) / (t * density)
        t *= math.exp(move)
        if abs(move) < 1e-11:
            break
    return t


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function by its continued fraction (DLMF 8.17.22)."""
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(1.0 - x, b, a)
    if x <= 0.0:
        return 0.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), forwards, by the ratios of successive numerators and denominators."""
    value = ahead = 1.0
    behind = 0.0
    for i in range(1, 400):
        m = i // 2
        if i % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        behind = 1.0 / (1.0 + d * behind)
        ahead = 1.0 + d / ahead
        value *= ahead * behind
        if abs(ahead * behind - 1.0) < 1e-15:
            break
    return value
