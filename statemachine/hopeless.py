"""Whether a candidate of the search can still win a scenario, by tests whose wrong stops are counted beforehand.

Values are natural logarithms in percent, 100 ln x, so that differences are relative ones. A candidate's runs are
compared with the runs of the same numbers (the same prompts) of the best candidate of its own framework. What
decides is the chance that it is nevertheless the better one, Student's t for the noise of the runs that were seen.
It is below its share of ``wrong_stop`` or nothing is stopped; the shares (Bonferroni) add up over every comparison
that the search can make, so that in a whole campaign the truly best candidate of a framework is stopped on some
scenario with a chance of at most ``wrong_stop``. docs/sweeps.md has the formulas and what was simulated.

Pure: the same runs give the same answer on every machine; numbers are rounded before they are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from statemachine.boundaries import normal_tail, student_tail

DIGITS = 6
FEWEST_DF = 3
"""Noise is not judged by fewer degrees of freedom than this."""


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a candidate's further runs on a scenario are not worth it; fixed before anything is measured.

    ``wrong_stop``: the chance, per campaign, to stop the truly best candidate of a framework somewhere.
    ``launch_noise_pct``: standard deviation between launches of one command; the search launches each once and so
    cannot see it. ``noise_pct``: the one between runs of a launch when it is known beforehand, None: as seen.
    ``runs`` per scenario, ``candidates`` of each framework at most, ``scenarios``, ``frameworks`` and SLA ``limits``
    say how many comparisons share ``wrong_stop``.
    """

    wrong_stop: float
    launch_noise_pct: float
    noise_pct: float | None
    runs: int
    candidates: int
    scenarios: int
    frameworks: int
    limits: int

    @property
    def _looks(self) -> int:
        """How often a candidate is judged in a campaign's search: after every run but the last, everywhere."""
        return max(1, self.runs - 1) * self.scenarios * self.frameworks

    @property
    def slower_bound(self) -> float:
        """The chance below which a candidate counts as slower: half the error, over all rivals and looks."""
        return self.wrong_stop / 2 / (self._looks * max(1, self.candidates - 1))

    @property
    def sla_bound(self) -> float:
        """The chance below which a limit counts as out of reach: the other half, over all limits and looks."""
        return self.wrong_stop / 2 / (self._looks * max(1, self.limits))


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation between runs of a launch, percent; ``df`` None: known, not estimated."""

    sd_pct: float
    df: int | None


@dataclass(frozen=True, slots=True)
class Chance:
    """How far behind, percent; its standard error; the chance that it is not behind; the bound for that."""

    behind_pct: float
    se_pct: float
    df: int | None
    chance: float
    bound: float

    @property
    def hopeless(self) -> bool:
        """Whether going on is not worth it."""
        return self.chance < self.bound


def percent(value: float) -> float:
    """100 ln value."""
    return 100.0 * math.log(value)


def noise_of(launches: Sequence[Sequence[float]], rule: StopRule) -> Noise | None:
    """The noise between runs, pooled over launches of at least two runs each; None while too little is seen."""
    if rule.noise_pct is not None:
        return Noise(rule.noise_pct, None)
    several = [runs for runs in launches if len(runs) > 1]
    df = sum(len(runs) - 1 for runs in several)
    if df < FEWEST_DF:
        return None
    pooled = sum(variance(runs) * (len(runs) - 1) for runs in several) / df
    return Noise(round(math.sqrt(pooled), DIGITS), df)


def slower(mine: Sequence[float], best: Sequence[float], noise: Noise, rule: StopRule) -> Chance:
    """Whether runs ``mine`` (100 ln of the rate) are those of a slower candidate than the runs ``best``.

    The sides are two launches; both have the same number of runs, made with the same prompts in the same order.
    """
    behind = fmean(best) - fmean(mine)
    spread = 2 * rule.launch_noise_pct**2 + 2 * noise.sd_pct**2 / len(mine)
    return _chance(behind, math.sqrt(spread), noise.df, 1, rule.slower_bound)


def out_of_reach(mine: Sequence[float], limit: float, noise: Noise, rule: StopRule) -> Chance:
    """Whether the runs that are left can meet a limit that ``mine`` (100 ln of a latency) all missed."""
    left = rule.runs - len(mine)
    spread = rule.launch_noise_pct**2 + noise.sd_pct**2 * (1 + 1 / len(mine))
    return _chance(fmean(mine) - percent(limit), math.sqrt(spread), noise.df, left, rule.sla_bound)


def _chance(behind: float, se: float, df: int | None, tries: int, bound: float) -> Chance:
    behind, se = round(behind, DIGITS), round(se, DIGITS)
    if behind <= 0:
        return Chance(behind, se, df, 1.0, bound)
    t = behind / se if se else math.inf
    tail = 0.0 if math.isinf(t) else normal_tail(t) if df is None else student_tail(t, df)
    return Chance(behind, se, df, float(f"{min(1.0, tries * tail):.3g}"), float(f"{bound:.3g}"))
