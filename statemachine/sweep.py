"""The search as a sweep: in which order candidates are launched, and which runs of one are not worth making.

New rules for campaigns whose spec has ``search.early_stop``; an earlier release's ledger is judged by what it knew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import NamedTuple

from statemachine import evidence
from statemachine.hopeless import Chance, Noise, StopRule, noise_of, out_of_reach, percent, slower
from statemachine.ranking import passes, sla_failures
from statemachine.state import JSON, Campaign, Launch

RATE = "request_throughput"  # what candidates are ranked by
Run = tuple[str, int, int]  # scenario, number, seed


def is_planned(c: Campaign) -> bool:
    """Whether the campaign was created under these rules."""
    return "early_stop" in c.spec["search"]


# --- the order ---------------------------------------------------------------------------------------------


def interleaved(c: Campaign) -> list[tuple[str, JSON]]:
    """The next candidate of each framework, the one to launch first: both sides spread over the whole search.

    The k-th of n launches of a side belongs at (k + 1/2) / n of the time, whatever n is; of equal sides the order
    turns round every time, A B B A, so that a host that slowly changes meets all of them alike.
    """
    due = []
    for place, framework in enumerate(c.spec["frameworks"]):
        if waiting := evidence.unsettled(c, framework):
            done = _launched(c, framework)
            turn = place if done % 2 == 0 else -place
            due.append(((done + 0.5) / (done + len(waiting)), turn, (framework, waiting[0])))
    return [found for *_, found in sorted(due, key=lambda each: each[:2])]


def _launched(c: Campaign, framework: str) -> int:
    """Candidates of a framework that were launched: a skipped one took no time."""
    names = (evidence.search_launch(framework, entry["id"]) for entry in evidence.candidates(c, framework))
    return sum(evidence.settled(c, name) for name in names)


def in_order(c: Campaign, runs: Sequence[Run], purpose: str) -> list[Run]:
    """The runs of a launch in the order to make them: in a sweep one of every scenario before the next of any."""
    if purpose != "search" or not is_planned(c):
        return list(runs)
    return sorted(runs, key=lambda run: run[1])


# --- early stop --------------------------------------------------------------------------------------------


def stop_rule(c: Campaign) -> StopRule | None:
    """The rule of the spec with the number of comparisons that share its error; None when it is turned off."""
    search = c.spec["search"]
    if not search.get("early_stop"):
        return None
    return StopRule(
        **search["early_stop"],
        runs=int(search["runs"]),
        candidates=max(len(framework["candidates"]) for framework in c.spec["frameworks"].values()),
        scenarios=len(c.scenarios),
        frameworks=len(c.spec["frameworks"]),
        limits=len(_limits(c)),
    )


def _limits(c: Campaign) -> dict[str, float]:
    """The SLA's upper limits, by key: what noise can be told of."""
    return {key: limit for key, limit in c.spec["sla"].items() if key.startswith("max_") and limit is not None}


def curtailments(c: Campaign, name: str) -> list[JSON]:
    """What ``candidate.curtailed`` may say now of a launch: a payload for each scenario that it cannot win any more."""
    rule, launch = stop_rule(c), c.launches.get(name)
    if rule is None or launch is None or launch.purpose != "search" or launch.status not in ("launched", "ready"):
        return []
    left = [scenario for scenario in c.scenarios if scenario not in launch.curtailed]
    found = ((scenario, _judged(c, launch, scenario, rule)) for scenario in left)
    return [_payload(launch, scenario, rule, why) for scenario, why in found if why is not None]


class Finding(NamedTuple):
    """A rule that gives up, what it compared with, the runs made, both values in the metric's unit, and the chance."""

    rule: str
    against: str
    made: int
    observed: float
    wanted: float
    chance: Chance


def _judged(c: Campaign, launch: Launch, scenario: str, rule: StopRule) -> Finding | None:
    """Why the runs of a scenario that are left are not worth it; None when they are, or none is left."""
    mine = _runs(launch, scenario)
    if not 1 <= len(mine) < rule.runs:
        return None
    others = list(_complete(c, launch.framework, scenario, rule))
    return _too_slow(c, mine, others, scenario, rule) or _misses(c, mine, others, scenario, rule)


def _runs(launch: Launch, scenario: str) -> list[JSON]:
    """The rows of a scenario by number, as long as they are numbered 0, 1, ... and ran."""
    rows = sorted((row for row in launch.rows if row["scenario"] == scenario), key=lambda row: row["run"])
    whole = [row["run"] for row in rows] == list(range(len(rows))) and all(row["status"] == "ok" for row in rows)
    return rows if whole else []


def _complete(c: Campaign, framework: str, scenario: str, rule: StopRule) -> Iterator[tuple[str, list[JSON]]]:
    """The framework's candidates that were measured to the end on a scenario, and their rows."""
    for entry in evidence.candidates(c, framework):
        launch = c.launches.get(evidence.search_launch(framework, entry["id"]))
        if launch is not None and launch.status == "stopped":
            rows = _runs(launch, scenario)
            if len(rows) == rule.runs:
                yield entry["id"], rows


def _values(rows: Sequence[JSON], metric: str) -> list[float]:
    """100 ln of a metric of each row; empty when one has no such number above 0."""
    found = [row["metrics"].get(metric) for row in rows]
    usable = all(isinstance(value, int | float) and math.isfinite(value) and value > 0 for value in found)
    return [percent(value) for value in found] if usable else []


def _noise(others: Sequence[tuple[str, list[JSON]]], metric: str, rule: StopRule) -> Noise | None:
    return noise_of([_values(rows, metric) for _, rows in others], rule)


def _too_slow(
    c: Campaign, mine: list[JSON], others: Sequence[tuple[str, list[JSON]]], scenario: str, rule: StopRule
) -> Finding | None:
    """Whether it is slower than the best candidate so far that met the SLA in every run."""
    rates = {name: _values(rows, RATE) for name, rows in others if all(passes(row, c.spec["sla"]) for row in rows)}
    rates = {name: values for name, values in rates.items() if values}
    own, noise = _values(mine, RATE), _noise(others, RATE, rule)
    if not rates or not own or noise is None:
        return None
    best = max(rates, key=lambda name: fmean(rates[name]))
    chance = slower(own, rates[best][: len(own)], noise, rule)
    if not chance.hopeless:
        return None
    return Finding("slower", best, len(own), _plain(own), _plain(rates[best][: len(own)]), chance)


def _misses(
    c: Campaign, mine: list[JSON], others: Sequence[tuple[str, list[JSON]]], scenario: str, rule: StopRule
) -> Finding | None:
    """Whether every run missed one limit of the SLA by so much that no further run will meet it."""
    missed = [{failure.key for failure in sla_failures(row["metrics"], c.spec["sla"])} for row in mine]
    for key, limit in _limits(c).items():
        own, noise = _values(mine, key[4:]), _noise(others, key[4:], rule)
        if not own or noise is None or not all(key in keys for keys in missed):
            continue
        chance = out_of_reach(own, limit, noise, rule)
        if chance.hopeless:
            return Finding("sla", key, len(own), _plain(own), limit, chance)
    return None


def _plain(values: Sequence[float]) -> float:
    """The geometric mean of what 100 ln was taken of."""
    return round(math.exp(fmean(values) / 100), 4)


def _payload(launch: Launch, scenario: str, rule: StopRule, found: Finding) -> JSON:
    numbers = {key: value for key, value in asdict(found.chance).items() if value is not None}
    return {
        "launch": launch.launch,
        "attempt": launch.attempt,
        "framework": launch.framework,
        "candidate": launch.candidate,
        "scenario": scenario,
        "rule": found.rule,
        "against": found.against,
        "runs_made": found.made,
        "runs_left": rule.runs - found.made,
        "observed": found.observed,
        "wanted": found.wanted,
        **numbers,
        "reason": f"after {found.made} of {rule.runs} runs {_words(found)}",
    }


def _words(found: Finding) -> str:
    p, seen, wanted = found.chance, found.observed, found.wanted
    if found.rule == "slower":
        what = f"{seen:g} requests/s against {wanted:g} of {found.against}, {p.behind_pct:.2f}% behind"
    else:
        what = f"{found.against[4:]} {seen:g} against a limit of {wanted:g}, {p.behind_pct:.2f}% above"
    known = "noise as configured" if p.df is None else f"{p.df} degrees of freedom"
    return f"{what}; standard error {p.se_pct:.2f}% ({known}), a chance of {p.chance:g} is below {p.bound:g}"


def unmeasured(c: Campaign, framework: str) -> list[str]:
    """Runs of measured candidates that neither have a row nor were curtailed, as ``candidate on scenario``."""
    if not is_planned(c):
        return []
    found = []
    for entry in evidence.candidates(c, framework):
        launch = c.launches.get(evidence.search_launch(framework, entry["id"]))
        if launch is None or launch.status != "stopped" or f"{framework}/{entry['id']}" in c.skipped:
            continue
        for scenario in c.scenarios:
            made = {row["run"] for row in launch.rows if row["scenario"] == scenario}
            if scenario not in launch.curtailed and made != set(range(int(c.spec["search"]["runs"]))):
                found.append(f"{entry['id']} on {scenario}")
    return found
