"""Goodput: the highest request rate at which a framework's winner still meets the SLA, found launch by launch.

Saturation decides who leads; what load each side can promise is a figure of its own, measured with the same
scenarios at fixed rates and never ranked together with it. Rates in requests per second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachine import rates
from statemachine.evidence import settled
from statemachine.ranking import passes
from statemachine.state import JSON, Campaign


def search(c: Campaign) -> JSON | None:
    """The bounds of the rate search, when the spec asks for one."""
    found: JSON | None = c.spec.get("search", {}).get("qps")
    return found


def launch_name(framework: str, scenario: str) -> str:
    """Name of the launch that tests a winner at several rates."""
    return f"rate/{framework}/{scenario}"


def pairs(c: Campaign) -> Iterator[tuple[str, str]]:
    """Every (framework, scenario) whose winner gets a rate search: scenarios that have no rate of their own."""
    if search(c) is None:
        return
    saturated = {shape["name"] for shape in c.spec["workload"]["scenarios"] if shape.get("request_rate") is None}
    for pair, winner in c.winners.items():
        framework, _, scenario = pair.partition("/")
        if winner["candidate"] is not None and scenario in saturated:
            yield framework, scenario


def runs(c: Campaign) -> int:
    """How many rates one search can ask for: both ends, the midpoints, one repeat."""
    return int((search(c) or {}).get("max_rounds", 0)) + 3


def tests(c: Campaign, framework: str, scenario: str) -> list[JSON]:
    """What was tested so far, in order."""
    launch = c.launches.get(launch_name(framework, scenario))
    rows = sorted(launch.rows, key=lambda row: row["run"]) if launch else []
    return [{"rate": row["rate"], "passed": passes(row, c.spec["sla"])} for row in rows]


def next_rate(c: Campaign, framework: str, scenario: str) -> float | None:
    """The rate to test next, or None when the search is over."""
    bounds: dict[str, Any] = {key: (search(c) or {})[key] for key in ("lower", "upper", "tolerance", "max_rounds")}
    return rates.next_rate(tests(c, framework, scenario), **bounds)


def found(c: Campaign, framework: str, scenario: str) -> JSON | None:
    """What the search for a pair came to; None while it goes on."""
    name = launch_name(framework, scenario)
    if not settled(c, name):
        return None
    launch = c.launches[name]
    made = tests(c, framework, scenario)
    about: JSON = {"framework": framework, "scenario": scenario, "tests": made}
    if launch.status != "stopped" or not made:
        return {**about, "bound": "unknown", "monotone": True, "reason": launch.reason or "no rate was tested"}
    outcome = rates.outcome(made)
    said = {"ge": "at least", "lt": "below the lowest rate tested, so", "exact": "between tested rates, at least"}
    rate, bound = outcome["max_passing_rate"], outcome["bound"]
    return {
        **about,
        "rate": rate,
        "bound": bound,
        "monotone": outcome["monotone"],
        "reason": f"{said[bound]} {rate:.4g} requests/s within the SLA",
    }
