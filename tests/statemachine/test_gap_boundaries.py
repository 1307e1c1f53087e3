"""The boundaries: published quantiles of t, error spent as planned, and an independent simulation."""

from __future__ import annotations

import math
import random
import time
from statistics import NormalDist

import pytest

from statemachine.boundaries import PowerSpending, normal_tail, student_critical, student_tail, z_boundary
from statemachine.gap import Block, GapRule, decide_gap


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 4.0, 31.8])
def test_student_tails_agree_with_their_closed_forms(t) -> None:
    """One and two degrees of freedom have elementary distribution functions."""
    assert student_tail(t, 1.0) == pytest.approx(0.5 - math.atan(t) / math.pi, rel=1e-11)
    assert student_tail(t, 2.0) == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)), rel=1e-9)


@pytest.mark.parametrize(
    ("df", "error", "t"),
    [(3, 0.01, 4.5407), (6, 0.005, 3.7074), (10, 0.025, 2.2281), (19, 0.01, 2.5395), (120, 0.05, 1.6577)],
)
def test_student_quantiles_agree_with_printed_tables(df, error, t) -> None:
    """Four digits after the point, as in any table of t."""
    assert student_critical(NormalDist().inv_cdf(1 - error), df) == pytest.approx(t, abs=6e-5)


def test_many_degrees_of_freedom_are_the_normal() -> None:
    """The t value approaches z from above."""
    assert 2.5 < student_critical(2.5, 1e5) < 2.5002


def test_one_look_is_the_plain_quantile() -> None:
    """Without interim looks the boundary is the normal quantile."""
    (z,) = z_boundary(PowerSpending(2.0), 0.01, 7, 7)
    assert z == pytest.approx(NormalDist().inv_cdf(0.99), abs=1e-9)


def test_the_first_look_spends_what_its_spending_function_says() -> None:
    """The tail at the first look is alpha (4/20)^rho."""
    for rho in (0.3, 2.0):
        z = z_boundary(PowerSpending(rho), 0.01, 4, 20)
        assert normal_tail(z[0]) == pytest.approx(0.01 * 0.2**rho, rel=1e-9)


def test_a_published_boundary_is_reproduced() -> None:
    """Two looks at half and full information, Pocock's constant 2.178 for 5% two-sided (Pocock 1977)."""
    pocock = 2.178
    joint = 0.025

    class Equal:
        def share(self, t: float) -> float:
            return 1.0 if t == 1.0 else normal_tail(pocock) / joint

    assert z_boundary(Equal(), joint, 1, 2) == pytest.approx((pocock, pocock), abs=2e-3)


@pytest.mark.parametrize("rho", [0.3, 2.0])
def test_simulated_sums_cross_as_often_as_planned(rho) -> None:
    """20,000 random walks: 10% planned, one standard deviation is 0.2%."""
    z = z_boundary(PowerSpending(rho), 0.1, 4, 12)
    rng = random.Random(1)
    crossed = 0
    for _ in range(20_000):
        total = rng.gauss(0.0, 2.0)
        for n in range(4, 13):
            if total > z[n - 4] * math.sqrt(n):
                crossed += 1
                break
            total += rng.gauss(0.0, 1.0)
    assert crossed / 20_000 == pytest.approx(0.1, abs=0.007)


@pytest.mark.parametrize("arguments", [(0.01, 0, 5), (0.01, 6, 5), (0.0, 4, 5), (0.5, 4, 5)])
def test_impossible_looks_or_errors_are_refused(arguments) -> None:
    """The message repeats what was asked for."""
    with pytest.raises(ValueError, match="boundary: need"):
        z_boundary(PowerSpending(2.0), *arguments)


def test_the_first_decision_is_quick() -> None:
    """All four boundaries and the first decision in far less than a launch: 50 ms on an idle core."""
    best = math.inf
    for attempt in range(5):
        rule = GapRule(alpha=0.01 + attempt * 1e-6)
        started = time.process_time()
        decide_gap([Block((50.0, 51.0 + attempt), (52.0, 53.0))] * 4, rule)
        best = min(best, time.process_time() - started)
    assert best < 0.1
