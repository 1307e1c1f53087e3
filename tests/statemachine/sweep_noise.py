"""Searches drawn from the noise of 36 real runs on an H200 (noise_h200.csv), judged by the early-stop rule.

The runs: two frameworks, four launches each, five runs a launch (the last launch has one), all with one command.
A drawn launch takes consecutive runs of a real one, as they were around their mean, and a launch effect on top.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean

from statemachine.hopeless import Chance, StopRule, noise_of, out_of_reach, percent, slower

LAUNCH_SD_PCT = 0.8  # of launch means, runs included: README of the data


def residuals(metric: str) -> list[list[float]]:
    """Per real launch of several runs, percent from its mean."""
    launches: dict[tuple[str, str], list[float]] = defaultdict(list)
    with (Path(__file__).parent / "noise_h200.csv").open() as file:
        for row in csv.DictReader(file):
            launches[row["framework"], row["launch"]].append(percent(float(row[metric])))
    return [[value - fmean(runs) for value in runs] for runs in launches.values() if len(runs) > 1]


@dataclass
class Search:
    """What became of one drawn search of one framework on one scenario."""

    stopped_at: dict[int, int]
    made: int


def launch(rng: Random, real: list[list[float]], true: float, runs: int, scale: float = 1.0) -> list[float]:
    """One launch's values in percent; the noise between its runs is widened to what so few runs leave of it."""
    chosen = rng.choice(real)
    start = rng.randrange(len(chosen) - runs + 1)
    widen = scale * (len(chosen) / (len(chosen) - 1)) ** 0.5
    shift = true + rng.gauss(0.0, LAUNCH_SD_PCT * scale)
    return [shift + widen * value for value in chosen[start : start + runs]]


def looks(values: list[float], runs: int) -> Iterator[list[float]]:
    """What is known after each run but the last."""
    yield from (values[:made] for made in range(1, runs))


def search(rng: Random, real: list[list[float]], truth: list[float], rule: StopRule, scale: float = 1.0) -> Search:
    """Launch candidates with these true values (percent) in turn, and stop those that look slower."""
    done: list[list[float]] = []
    found = Search({}, 0)
    for number, true in enumerate(truth):
        values = launch(rng, real, true, rule.runs, scale)
        made = _made(values, done, rule)
        found.made += made
        if made == rule.runs:
            done.append(values)
        else:
            found.stopped_at[number] = made
    return found


def _made(values: list[float], done: list[list[float]], rule: StopRule) -> int:
    noise = noise_of(done, rule)
    if noise is None or not done:
        return rule.runs
    best = max(done, key=fmean)
    for mine in looks(values, rule.runs):
        if slower(mine, best[: len(mine)], noise, rule).hopeless:
            return len(mine)
    return rule.runs


def missed(rng: Random, real: list[list[float]], above_pct: list[float], rule: StopRule) -> list[Chance | None]:
    """Launches whose true latency lies this far above (below 0: within) a limit: what stopped each, or None."""
    done: list[list[float]] = []
    stops: list[Chance | None] = []
    for true in above_pct:
        values = launch(rng, real, percent(900.0) + true, rule.runs)
        noise, stop = noise_of(done, rule), None
        for mine in looks(values, rule.runs):
            if stop is None and noise is not None and all(value > percent(900.0) for value in mine):
                chance = out_of_reach(mine, 900.0, noise, rule)
                stop = chance if chance.hopeless else None
        done.append(values)
        stops.append(stop)
    return stops
