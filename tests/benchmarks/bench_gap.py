"""Operating characteristics of the gap decision, next to the two rules it replaces, on the same simulated
campaigns.

    python tests/benchmarks/bench_gap.py [--campaigns 10000] [--seed 1] [--stress] [--demo] [--limits]
    [--json FILE]

Three rules look at each campaign: `statemachine.gap` (in a vectorised form, which tests compare with the
pure one), a paired t test with Lan and DeMets' boundaries of O'Brien and Fleming's shape, and "three runs
a side in one launch, compare the means with tau". Needs numpy. 10,000 campaigns a cell resolve a rate of
1% to +-0.2%.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from statemachine import gap, gap_blocks, gap_interval
from statemachine.boundaries import Spending, student_critical, z_boundary
from statemachine.gap import GapRule

Array = np.ndarray[Any, np.dtype[Any]]
NEITHER, BEHIND, PAR, AHEAD, UNTRUSTED = range(5)
SLOW = -100.0 * math.log(7.0)
"""A launch at one seventh of its speed, percent."""


@dataclass(frozen=True)
class Cell:
    """One setting. Percent: ``within`` between runs of a launch, ``launch`` between launches, true gap
    ``g``.

    ``drift``: slowing of the machine over the whole campaign. ``outlier``: none, noise (a block with
    sevenfold errors), stall (one launch of a block at a seventh of its speed, either side), stall-target
    (always the target), each in one block of twenty. ``shared``: what both launches of a block have in
    common. ``unequal``: the leader's noise as a multiple of the target's. ``gap_drift``: the change of g
    itself, centred on ``g``.
    """

    within: float
    launch: float
    g: float
    drift: float = 0.0
    outlier: str = "none"
    shared: float = 0.0
    unequal: float = 1.0
    gap_drift: float = 0.0
    runs: int = 5
    cap: int = 20


def sample(cell: Cell, campaigns: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Runs of the target and of the leader, 100 ln(metric), each of shape (campaigns, cap, runs)."""
    shape = (campaigns, cell.cap)
    hit = rng.random(shape) < (0.05 if cell.outlier != "none" else 0.0)
    size = np.where(hit & (cell.outlier == "noise"), 7.0, 1.0)
    sides = []
    for factor in (1.0, cell.unequal):
        launch = cell.launch * rng.standard_normal(shape)
        within = cell.within * rng.standard_normal((*shape, cell.runs))
        sides.append(size[..., None] * factor * (launch[..., None] + within))
    target, leader = sides
    which = rng.random(shape) < 0.5 if cell.outlier == "stall" else np.ones(shape, bool)
    stalled = hit & (cell.outlier in ("stall", "stall-target"))
    target += (SLOW * (stalled & which))[..., None]
    leader += (SLOW * (stalled & ~which))[..., None]
    block = np.arange(cell.cap)
    for side, place in ((target, block % 2), (leader, 1 - block % 2)):
        side -= (cell.drift * (2 * block + place) / (2 * cell.cap))[:, None]
    common = cell.shared * rng.standard_normal(shape)[..., None]
    moving = cell.g + cell.gap_drift * (block / max(cell.cap - 1, 1) - 0.5)
    return target + common, leader + common + moving[:, None]


@lru_cache(maxsize=4096)
def _critical_grid(z: float, low: float, high: float) -> tuple[Array, Array]:
    inverse = np.linspace(1.0 / high, 1.0 / low, 400)
    return inverse, np.array([student_critical(z, 1.0 / v) for v in inverse])


def _critical(z: Array, df: Array, n: int) -> Array:
    """`student_critical` for many degrees of freedom in [n - 1, 2n - 2], by interpolation in 1/df."""
    grid, values = _critical_grid(float(z[n]), n - 1.0, 2.0 * n - 2.0)
    return np.interp(1.0 / df, grid, values)


def _boundary(shape: Any, alpha: float, rule: GapRule) -> Array:
    """Boundary by number of blocks, index 0 to cap."""
    looks = z_boundary(shape, alpha, rule.first_look, rule.cap)
    return np.concatenate([np.full(rule.first_look, np.nan), looks])


def _far(values: Array) -> Array:
    n = values.shape[1]
    off = np.abs(values - np.median(values, axis=1, keepdims=True))
    limit = gap_blocks._LIMITS[min(n, 20) - 4] * np.median(off, axis=1, keepdims=True)
    return (off > limit) & (limit >= 1e-6)


def ours(target: Array, leader: Array, rule: GapRule) -> tuple[Array, Array]:
    """Verdict and blocks used of each campaign by the rule of `statemachine.gap`."""
    x, y = target.mean(axis=2), leader.mean(axis=2)
    runs = target.shape[2]
    noise = [side.var(axis=2, ddof=1) for side in (target, leader)]
    verdict, used = np.full(len(x), NEITHER), np.full(len(x), rule.cap)
    live = np.arange(len(x))
    for n in range(rule.first_look, rule.cap + 1):
        call = _look(x[live, :n], y[live, :n], [v[live, :n] for v in noise], runs, rule)
        ended = call != NEITHER
        verdict[live[ended]], used[live[ended]] = call[ended], n
        live = live[~ended]
    return verdict, used


def _look(x: Array, y: Array, noise: list[Array], runs: int, rule: GapRule) -> Array:
    aside = _far(y - x) | _far(x) | _far(y)
    aside[2 * aside.sum(axis=1) > aside.shape[1]] = False
    kept = (~aside).sum(axis=1)
    call = np.full(len(x), NEITHER)
    total = x.shape[1]
    for n in range(rule.first_look, total + 1):
        rows = np.flatnonzero(kept == n)
        if rows.size:
            keep = ~aside[rows]
            shaped = [v[rows][keep].reshape(rows.size, n) for v in (x, y, *noise)]
            call[rows] = _call(*shaped, runs, total, rule)
    if total == rule.cap:
        call[kept < rule.first_look] = UNTRUSTED
    return call


def _call(x: Array, y: Array, noise_x: Array, noise_y: Array, runs: int, total: int, rule: GapRule) -> Array:
    n = x.shape[1]
    estimate, spread = (y - x).mean(axis=1), [v.var(axis=1, ddof=1) for v in (x, y)]
    within = [v.mean(axis=1) for v in (noise_x, noise_y)]
    w = gap_interval.RUNS_WEIGHT
    ratio = [((n - 1) * s + w * v / runs) / (n - 1 + w) for s, v in zip(spread, within, strict=True)]
    df = (n - 1) * sum(ratio) ** 2 / (ratio[0] ** 2 + ratio[1] ** 2)
    se, pairs_se = np.sqrt(sum(spread) / n), (y - x).std(axis=1, ddof=1) / math.sqrt(n)
    sides = ((gap_interval.LOWER, gap_interval.LOWER_PAIRS), (gap_interval.UPPER, gap_interval.UPPER_PAIRS))
    reach = [_reach(shape, share, se, df, pairs_se, n, rule) for shape, share in sides]
    call = _verdict(estimate, estimate - reach[0], estimate + reach[1], rule.tau_pct)
    if (total - n) * gap_blocks.MOST_SET_ASIDE > total:
        call[:] = UNTRUSTED if total == rule.cap else NEITHER
    patient = total < min(rule.cap, gap.PATIENCE * rule.first_look)
    call[_noise(x, y, noise_x, noise_y, runs) > rule.noise_limit_pct] = NEITHER if patient else UNTRUSTED
    return call


def _noise(x: Array, y: Array, noise_x: Array, noise_y: Array, runs: int) -> Array:
    d = y - x
    deviation = np.median(np.abs(d - np.median(d, axis=1, keepdims=True)), axis=1)
    typical = np.median(np.concatenate([noise_x, noise_y], axis=1), axis=1)
    between_runs = np.sqrt(typical / (1 - 2 / (9 * (runs - 1))) ** 3)
    return np.maximum(deviation / NormalDist().inv_cdf(0.75) / math.sqrt(2), between_runs)


def _reach(shape: Spending, share: float, se: Array, df: Array, pairs_se: Array, n: int, rule: GapRule) -> Array:
    alpha = gap_interval.USED * rule.alpha / rule.scenarios
    launches = se * _critical(_boundary(shape, alpha * (1 - share), rule), df, n)
    pairs = pairs_se * student_critical(float(_boundary(shape, alpha * share, rule)[n]), n - 1.0)
    return np.minimum(launches, pairs)


def _verdict(g: Array, low: Array, high: Array, tau: float) -> Array:
    behind = (low > 0) & (g > tau)
    return np.select([behind, high < 0, high <= tau], [BEHIND, AHEAD, PAR], NEITHER)


@dataclass(frozen=True)
class OBrienFleming:
    """Lan and DeMets' spending function of that shape, as a share of ``alpha``."""

    alpha: float

    def share(self, t: float) -> float:
        normal = NormalDist()
        return (2.0 - 2.0 * normal.cdf(normal.inv_cdf(1.0 - self.alpha / 2.0) / math.sqrt(t))) / self.alpha


def prototype(target: Array, leader: Array, rule: GapRule) -> tuple[Array, Array]:
    """Paired t test on block differences with O'Brien and Fleming's shape on both sides."""
    d = leader.mean(axis=2) - target.mean(axis=2)
    z = _boundary(OBrienFleming(rule.alpha), rule.alpha, rule)
    verdict, used = np.full(len(d), NEITHER), np.full(len(d), rule.cap)
    for n in range(rule.first_look, rule.cap + 1):
        live = verdict == NEITHER
        g = d[live, :n].mean(axis=1)
        reach = student_critical(float(z[n]), n - 1.0) * d[live, :n].std(axis=1, ddof=1) / math.sqrt(n)
        call = _verdict(g, g - reach, g + reach, rule.tau_pct)
        verdict[live] = call
        used[np.flatnonzero(live)[call != NEITHER]] = n
    return verdict, used


def fixed(target: Array, leader: Array, rule: GapRule) -> tuple[Array, Array]:
    """Three runs a side in one launch, means compared with tau."""
    g = 100.0 * (1.0 - np.exp(target[:, 0, :3] / 100).mean(axis=1) / np.exp(leader[:, 0, :3] / 100).mean(axis=1))
    verdict = np.select([g > rule.tau_pct, g < -rule.tau_pct], [BEHIND, AHEAD], PAR)
    return verdict, np.ones(len(g))


RULES: dict[str, Callable[[Array, Array, GapRule], tuple[Array, Array]]] = {
    "ours": ours,
    "prototype": prototype,
    "fixed": fixed,
}


def wrong(cell: Cell, verdict: Array, tau: float) -> Array:
    """Which campaigns ended with a call that is false at the true gap."""
    false_behind = (verdict == BEHIND) & (cell.g <= 0)
    false_par = (verdict == PAR) & (cell.g >= tau)
    return false_behind | false_par | ((verdict == AHEAD) & (cell.g >= 0))


def measure(cell: Cell, rule: GapRule, campaigns: int, seed: int) -> list[dict[str, Any]]:
    """One row per rule: percentages of campaigns by how they ended, wrong calls, and mean blocks."""
    target, leader = sample(cell, campaigns, np.random.default_rng(seed))
    rows = []
    for name, run in RULES.items():
        verdict, used = run(target, leader, rule)
        share = {k: 100.0 * float(np.mean(verdict == v)) for k, v in _ENDS.items()}
        error = 100.0 * float(np.mean(wrong(cell, verdict, rule.tau_pct)))
        rows.append({"rule": name, **share, "wrong": error, "blocks": float(np.mean(used))})
    return rows


_ENDS = {"behind": BEHIND, "par": PAR, "ahead": AHEAD, "undecided": NEITHER, "untrusted": UNTRUSTED}


def table_cells(**disturbed: Any) -> Iterator[Cell]:
    """The settings of the comparison: the noise of one H200, half of it, and twice."""
    for within, launch, gaps in (
        (1.45, 0.45, (-1.0, 0.0, 0.5, 1.0, 1.5, 3.0, 5.0)),
        (0.7, 0.22, (0.0, 1.0, 1.5, 3.0)),
        (2.9, 0.9, (0.0, 1.0, 1.5, 3.0, 5.0)),
    ):
        for g in gaps:
            yield Cell(within, launch, g, **disturbed)


def stress_cells() -> Iterator[Cell]:
    """Settings outside the model of the guarantee, or at its edge."""
    for g in (0.0, 1.0):
        yield Cell(1.45, 0.45, g, gap_drift=1.0)
        yield Cell(1.45, 0.45, g, gap_drift=-1.0)
        yield Cell(1.45, 0.45, g, outlier="stall-target")
        yield Cell(1.45, 0.45, g, unequal=3.0)
        yield Cell(1.45, 0.45, g, shared=0.5)
        yield Cell(1.45, 0.45, g, shared=3.0)
        yield Cell(0.1, 2.0, g)
        yield Cell(1.45, 0.45, g, runs=2)
    yield Cell(1.45, 0.45, 3.0, shared=0.5)
    yield Cell(1.45, 0.45, 3.0, shared=3.0)


SETTINGS: dict[str, dict[str, Any]] = {
    "calm": {},
    "drift 1%": {"drift": 1.0},
    "sevenfold noise in 1 of 20": {"outlier": "noise"},
    "launch at 1/7 in 1 of 20": {"outlier": "stall"},
    "drift 1% and launch at 1/7": {"drift": 1.0, "outlier": "stall"},
}


def report(title: str, cells: Iterator[Cell], rule: GapRule, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print one table; each cell has its own seed, so that a table does not depend on what ran before."""
    found, lines = [], []
    for number, cell in enumerate(cells):
        rows = measure(cell, rule, args.campaigns, args.seed + 1000 * number)
        found.append({"setting": title, "cell": asdict(cell), "rules": rows})
        changed = {k: v for k, v in asdict(cell).items() if v != asdict(Cell(0, 0, 0))[k] and k not in _SHOWN}
        line: list[Any] = [
            f"{cell.within:g}/{cell.launch:g}",
            cell.g,
            " ".join(f"{k}={v}" for k, v in changed.items()),
        ]
        for row in rows[:2]:
            line += [row[k] for k in ("behind", "par", "ahead", "undecided", "untrusted", "wrong", "blocks")]
        lines.append([*line, rows[0]["blocks"] / rows[1]["blocks"], rows[2]["wrong"]])
    names = ["beh", "par", "ahead", "undec", "untr", "WRONG", "blocks"]
    head = ["noise", "g", "", *names, *(f"p.{name}" for name in names), "ratio", "fixed WRONG"]
    print(f"\n## {title}\n")
    print(tabulate(lines, headers=head, tablefmt="github", floatfmt=".2f"))
    return found


_SHOWN = ("within", "launch", "g", "cap", "drift", "outlier")


def print_limits(campaigns: int, seed: int) -> None:
    """The table in `statemachine.gap_blocks`: 99.8% points of the largest deviation in median deviations."""
    rng = np.random.default_rng(seed)
    for n in range(4, 21):
        d = rng.standard_normal((campaigns, n))
        off = np.abs(d - np.median(d, axis=1, keepdims=True))
        print(n, round(float(np.quantile(off.max(axis=1) / np.median(off, axis=1), 0.998)), 1))


def main() -> None:
    """Print the tables that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stress", action="store_true", help="also settings outside the guarantee's model")
    parser.add_argument("--demo", action="store_true", help="a noisy laptop: tau 10%%, cap 12, 3 runs a launch")
    parser.add_argument("--limits", action="store_true", help="only compute the limits for setting blocks aside")
    parser.add_argument("--json", type=Path, help="write every figure here too")
    args = parser.parse_args()
    if args.limits:
        return print_limits(args.campaigns, args.seed)
    started, found = time.perf_counter(), []
    for title, disturbed in SETTINGS.items():
        found += report(title, table_cells(**disturbed), GapRule(), args)
    if args.stress:
        found += report("stress", stress_cells(), GapRule(), args)
    if args.demo:
        gaps = (-2.0, 0.0, 2.0, 5.0, 30.0, 45.0)
        rule = GapRule(tau_pct=10.0, cap=12, noise_limit_pct=15.0)
        found += report("demo", (Cell(3.0, 2.0, g, runs=3, cap=12) for g in gaps), rule, args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print(f"\n{args.campaigns} campaigns a cell, seed {args.seed}, {time.perf_counter() - started:.0f} s")
    return None


if __name__ == "__main__":
    main()
