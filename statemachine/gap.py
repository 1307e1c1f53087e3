"""Is the target behind? Decisions after every block that still keep their error rates.

g = 100 (ln leader - ln target), percent of the primary metric: above 0 the target is behind. A wrong call
happens in at most ``alpha`` of all campaigns: ``behind`` when g <= 0, ``par_or_better`` when g >= tau,
``ahead`` when g >= 0. Several scenarios share ``alpha``. docs/decision.md has the formulas, their
sources, and what was measured.

Pure: the same blocks give the same decision on every machine. Numbers are rounded to 6 digits before
anything is compared, so that the last bits of a machine's logarithm cannot turn a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import Literal

from statemachine.gap_blocks import MOST_SET_ASIDE, Block, Launches, disturbed, launches, noise
from statemachine.gap_interval import Bounds, bounds

__all__ = [
    "Block",
    "GapDecision",
    "GapRule",
    "Verdict",
    "check_aa",
    "combine",
    "decide_gap",
    "decide_improvement",
]

Verdict = Literal[
    "behind", "ahead", "par_or_better", "more", "undecided", "untrusted", "same", "accept", "regress", "flat"
]

DIGITS = 6
FEWEST = 4
"""The fewest launches a side that any call may rest on."""
MOST = 100
PATIENCE = 2
"""Noise over the limit ends a decision after this many times the first look: before, it may be bad luck."""


@dataclass(frozen=True, slots=True)
class GapRule:
    """How a campaign decides, recorded before anything is measured.

    ``tau_pct``: the gap that matters, percent. ``alpha``: the chance of each kind of wrong call, per
    campaign. ``first_look`` and ``cap``: blocks before the first call and at most. ``noise_limit_pct``:
    with more noise than this (standard deviation between runs or launches) nothing is called.
    ``scenarios``: how many decisions share ``alpha``.

    Raises: ValueError for a value outside its range.
    """

    tau_pct: float = 1.0
    alpha: float = 0.01
    first_look: int = 4
    cap: int = 20
    noise_limit_pct: float = 5.0
    scenarios: int = 1

    def __post_init__(self) -> None:
        _require("tau_pct", self.tau_pct, self.tau_pct > 0, "above 0")
        _require("alpha", self.alpha, 1e-6 <= self.alpha < 0.5, "from 0.000001 to below 0.5")
        _require("first_look", self.first_look, self.first_look >= FEWEST, f"at least {FEWEST} launches a side")
        _require("cap", self.cap, self.first_look <= self.cap <= MOST, f"from first_look to {MOST}")
        _require("noise_limit_pct", self.noise_limit_pct, self.noise_limit_pct > 0, "above 0")
        _require("scenarios", self.scenarios, 1 <= self.scenarios <= 1000, "from 1 to 1000")


def _require(name: str, value: float, holds: bool, wanted: str) -> None:
    if not (math.isfinite(value) and holds):
        raise ValueError(f"decision rule: {name} is {value}, it must be {wanted}")


@dataclass(frozen=True, slots=True)
class GapDecision:
    """A verdict with its reasons. Percent of the primary metric; None where the blocks are too few.

    ``n`` of ``blocks`` count, ``set_aside`` are the others (numbered from 1). ``noise_pct`` is what the
    limit applies to; ``launch_sd_pct`` is the standard deviation between launches of a side,
    ``run_cv_pct`` the one between runs. ``z_lower`` and ``z_upper`` are the boundaries of this look for
    known variance, ``df`` the degrees of freedom that widen them. ``tau_effective_pct`` is the smallest
    gap that this measurement could tell from none: tau or the half width.
    """

    verdict: Verdict
    g_pct: float
    lo_pct: float | None
    hi_pct: float | None
    half_width_pct: float | None
    tau_effective_pct: float | None
    n: int
    blocks: int
    set_aside: tuple[int, ...]
    se_pct: float | None
    noise_pct: float
    launch_sd_pct: float | None
    run_cv_pct: float | None
    df: float | None
    z_lower: float | None
    z_upper: float | None
    reasons: tuple[str, ...]
    would_change: str


def decide_gap(blocks: Sequence[Block], rule: GapRule) -> GapDecision:
    """What the blocks so far say about the target: behind, ahead, par_or_better, or more blocks.

    ``undecided`` and ``untrusted`` end it without a claim. Raises: ValueError for bad blocks or more of
    them than the cap.
    """
    return _decide(tuple(blocks), rule, "gap")


def check_aa(blocks: Sequence[Block], rule: GapRule) -> GapDecision:
    """Whether a command differs from itself in this block design: behind or ahead when it does, else same.

    ``same`` says no more than that nothing was found; ``tau_effective_pct`` says how small a bias would
    have shown. Raises: ValueError as `decide_gap`.
    """
    return _decide(tuple(blocks), rule, "aa")


def decide_improvement(blocks: Sequence[Block], rule: GapRule) -> GapDecision:
    """Whether a patch (``target``) beats the champion (``leader``): accept, regress, flat, or more blocks.

    ``g_pct`` keeps its sign: below 0 is an improvement. Accept when the interval of g lies below 0,
    regress when it lies above 0 and g above tau, flat when all of it lies within tau.
    Raises: ValueError as `decide_gap`.
    """
    return _decide(tuple(blocks), rule, "improvement")


def combine(decisions: Sequence[GapDecision]) -> Verdict:
    """The campaign's verdict from one gap decision per scenario: as good as its worst scenario.

    Raises: ValueError when there are none, or one that is not a gap decision.
    """
    verdicts = [decision.verdict for decision in decisions]
    if not verdicts or set(verdicts) - set(_WORST_FIRST):
        raise ValueError(f"combine: need the gap decision of each scenario, got the verdicts {verdicts}")
    return min(verdicts, key=_WORST_FIRST.index)


_WORST_FIRST: tuple[Verdict, ...] = ("behind", "untrusted", "more", "undecided", "par_or_better", "ahead")
_Kind = Literal["gap", "aa", "improvement"]


@lru_cache(maxsize=1024)
def _decide(blocks: tuple[Block, ...], rule: GapRule, kind: _Kind) -> GapDecision:
    if len(blocks) > rule.cap:
        raise ValueError(f"{len(blocks)} blocks, but the rule ends at {rule.cap}: decide on the first {rule.cap}")
    measured = launches(blocks)
    aside = disturbed(measured)
    kept = measured.keep([i for i in range(len(blocks)) if i not in aside])
    start = _described(kept, len(blocks), aside)
    if len(kept.target) < rule.first_look:
        return _too_few(start, rule)
    seen = _with_bounds(start, _bounds(kept, rule, kind), rule)
    if seen.noise_pct > rule.noise_limit_pct:
        return _too_noisy(seen, rule)
    if len(aside) * MOST_SET_ASIDE > len(blocks):
        return _too_disturbed(seen, rule)
    return _CALLS[kind](seen, rule)


def _bounds(kept: Launches, rule: GapRule, kind: _Kind) -> Bounds:
    """The bounds of g; for an improvement mirrored, since there the early side is the one below 0."""
    settings = (rule.alpha / rule.scenarios, rule.first_look, rule.cap)
    if kind != "improvement":
        return bounds(kept, *settings)
    swapped = Launches(kept.leader, kept.target, kept.leader_noise, kept.target_noise, kept.runs)
    b = bounds(swapped, *settings)
    turned = replace(b, g=-b.g, low=-b.high, high=-b.low, z_lower=b.z_upper, z_upper=b.z_lower)
    return replace(turned, lower_by=b.upper_by, upper_by=b.lower_by)


def _described(kept: Launches, total: int, aside: dict[int, str]) -> GapDecision:
    spread = (*(kept.target_noise or ()), *(kept.leader_noise or ()))
    return GapDecision(
        verdict="more",
        g_pct=_digits(fmean(kept.gaps)),
        lo_pct=None,
        hi_pct=None,
        half_width_pct=None,
        tau_effective_pct=None,
        n=len(kept.target),
        blocks=total,
        set_aside=tuple(i + 1 for i in sorted(aside)),
        se_pct=None,
        noise_pct=_digits(noise(kept)),
        launch_sd_pct=None,
        run_cv_pct=_digits(math.sqrt(fmean(spread))) if spread else None,
        df=None,
        z_lower=None,
        z_upper=None,
        reasons=tuple(f"block {i + 1} is set aside: {aside[i]}" for i in sorted(aside)),
        would_change="",
    )


def _with_bounds(d: GapDecision, b: Bounds, rule: GapRule) -> GapDecision:
    g, low, high = _digits(b.g), _digits(b.low), _digits(b.high)
    half = _digits(max(high - g, g - low))
    interval = (
        f"g = {g:.3f}%, from {low:.3f}% ({b.lower_by}) to {high:.3f}% ({b.upper_by}), after {d.n} launches a "
        f"side; standard error {b.se:.3f}% with {b.df:.1f} degrees of freedom, "
        f"boundaries {b.z_lower:.3f} and {b.z_upper:.3f}"
    )
    return replace(
        d,
        lo_pct=low,
        hi_pct=high,
        half_width_pct=half,
        tau_effective_pct=max(rule.tau_pct, half),
        se_pct=_digits(b.se),
        launch_sd_pct=_digits(b.launch_sd),
        df=_digits(b.df),
        z_lower=_digits(b.z_lower),
        z_upper=_digits(b.z_upper),
        reasons=(*d.reasons, interval),
    )


def _digits(value: float) -> float:
    return round(value, DIGITS) + 0.0


def _ended(d: GapDecision, verdict: Verdict, reason: str, change: str) -> GapDecision:
    return replace(d, verdict=verdict, reasons=(*d.reasons, reason), would_change=change)


def _too_few(d: GapDecision, rule: GapRule) -> GapDecision:
    reason = f"{d.n} launches a side count, the first call is taken on {rule.first_look}"
    if d.blocks >= rule.cap:
        return _ended(d, "untrusted", reason, "a host on which launches repeat themselves")
    return _ended(d, "more", reason, f"{rule.first_look - d.n} more blocks that count")


def _too_disturbed(d: GapDecision, rule: GapRule) -> GapDecision:
    reason = f"{len(d.set_aside)} of {d.blocks} blocks are set aside, more than one in {MOST_SET_ASIDE}"
    verdict: Verdict = "untrusted" if d.blocks >= rule.cap else "more"
    return _ended(d, verdict, reason, "blocks that are not disturbed, until they are three quarters of all")


def _too_noisy(d: GapDecision, rule: GapRule) -> GapDecision:
    reason = f"the usual noise is {d.noise_pct:.3f}%, over the limit of {rule.noise_limit_pct:g}%"
    verdict: Verdict = "untrusted" if d.blocks >= min(rule.cap, PATIENCE * rule.first_look) else "more"
    return _ended(d, verdict, reason, "a quieter host, longer runs, or a limit set higher before measuring")


def _call_gap(d: GapDecision, rule: GapRule) -> GapDecision:
    low, high, tau = d.lo_pct or 0.0, d.hi_pct or 0.0, rule.tau_pct
    if low > 0 and d.g_pct > tau:
        reason = f"behind: the lower bound {low:.3f}% is above 0, estimate {d.g_pct:.3f}% above tau = {tau:g}%"
        return _ended(d, "behind", reason, f"a lower bound of 0 or less, or an estimate of {tau:g}% or less")
    if high < 0:
        reason = f"ahead: the upper bound {high:.3f}% is below 0"
        return _ended(d, "ahead", reason, "an upper bound of 0 or more")
    if high <= tau:
        reason = f"par or better: the upper bound {high:.3f}% is not above tau = {tau:g}%"
        return _ended(d, "par_or_better", reason, f"an upper bound above {tau:g}%")
    reason = (
        f"no call: behind needs a lower bound above 0 (it is {low:.3f}%) and an estimate above {tau:g}% "
        f"(it is {d.g_pct:.3f}%); par or better needs an upper bound within {tau:g}% (it is {high:.3f}%)"
    )
    return _open(d, rule, reason)


def _call_aa(d: GapDecision, rule: GapRule) -> GapDecision:
    low, high = d.lo_pct or 0.0, d.hi_pct or 0.0
    if low <= 0 <= high:
        reason = f"same: the interval from {low:.3f}% to {high:.3f}% contains 0, as it should for one command"
        return _ended(d, "same", reason, "an interval that leaves out 0")
    verdict: Verdict = "behind" if low > 0 else "ahead"
    reason = f"one command differs from itself: the interval from {low:.3f}% to {high:.3f}% leaves out 0"
    return _ended(d, verdict, reason, "an interval that contains 0: look for what favours one side or position")


def _call_improvement(d: GapDecision, rule: GapRule) -> GapDecision:
    low, high, tau = d.lo_pct or 0.0, d.hi_pct or 0.0, rule.tau_pct
    if high < 0:
        reason = f"accept: the improvement is at least {-high:.3f}%, its interval leaves out 0"
        return _ended(d, "accept", reason, "an interval that contains 0")
    if low > 0 and d.g_pct > tau:
        reason = f"regress: worse by at least {low:.3f}%, and the estimate {d.g_pct:.3f}% is above tau = {tau:g}%"
        return _ended(d, "regress", reason, f"an interval that contains 0, or an estimate of {tau:g}% or less")
    if -tau <= low and high <= tau:
        reason = f"flat: the change is within {tau:g}%, between {-high:.3f}% and {-low:.3f}%, and may be none"
        return _ended(d, "flat", reason, f"an interval that leaves out 0 or reaches beyond {tau:g}%")
    reason = (
        f"no call: accept needs an improvement above 0 at the least (it is {-high:.3f}%), regress one below "
        f"0 at the most (it is {-low:.3f}%), flat both within {tau:g}%"
    )
    return _open(d, rule, reason)


_CALLS = {"gap": _call_gap, "aa": _call_aa, "improvement": _call_improvement}


def _open(d: GapDecision, rule: GapRule, reason: str) -> GapDecision:
    if d.blocks < rule.cap:
        return _ended(d, "more", reason, f"more blocks, of which {rule.cap - d.blocks} are left")
    change = f"a half width below {d.half_width_pct:.3f}%: a higher cap, more runs a launch, a quieter host"
    return _ended(d, "undecided", f"{reason}; all {rule.cap} blocks are used", change)
