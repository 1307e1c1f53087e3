"""Which conditions of the compared commands must be equal, what they are on each side, and whether they are. Pure.

Campaigns say in their spec by which list they are checked (``fairness``): 2 is the whole list, 1, or nothing, the
shorter one of ledgers that were written before there was another; those replay by it for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from statemachine.evidence import digest, gap_contest, search_launch
from statemachine.state import JSON, Campaign

Ask = Callable[[Campaign, str], Any]
VERSION = 2
SAME_IN_ALL = ("dtype", "kv_cache_dtype", "quantization", "speculative", "prefix_cache")
"""What the compared commands of different frameworks must have in common, whatever their flags are called; what a
driver cannot tell is no difference."""
ALSO_SAME = ("tokenizer", "cpu_offload")
NOTED = ("tensor_parallel", "pipeline_parallel", "max_context", "memory_fraction")
"""What is each framework's own to tune, or means something else in each: shown, and no reason to refuse."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One row of the table.

    ``unknown_is_equal``: a side that cannot tell is no difference. ``apart``: how far numbers may lie from each
    other, absolutely; ``relative``: as a share of the larger. ``noted``: shown only.
    """

    name: str
    ask: Ask
    unknown_is_equal: bool = False
    apart: float = 0.0
    relative: float = 0.0
    noted: bool = False

    def verdict(self, values: Sequence[Any]) -> str:
        """``match``, ``differs``, or for what is only shown ``noted``."""
        told = [value for value in values if value is not None or not self.unknown_is_equal]
        if len(set(map(digest, told))) <= 1 or ((self.apart or self.relative) and self._near(told)):
            return "match"
        return "noted" if self.noted else "differs"

    def _near(self, values: Sequence[Mapping[str, float]]) -> bool:
        scenarios = {name for value in values for name in value}
        return all(self._close([value[name] for value in values if name in value]) for name in scenarios)

    def _close(self, found: Sequence[float]) -> bool:
        return max(found) - min(found) <= max(self.apart, self.relative * max(found))


def fairness_items(c: Campaign) -> list[JSON]:
    """Every condition that must match between the compared sides, with the value of each side."""
    return _items(c) if c.spec.get("fairness", 1) >= VERSION else _first_items(c)


def _items(c: Campaign) -> list[JSON]:
    sides = _sides(c)
    items = []
    for condition in _conditions(c, sides):
        values = {name: condition.ask(c, name) for name in sides}
        verdict = condition.verdict(list(values.values()))
        known = {"condition": condition.name, "values": values}
        items.append({**known, "match": verdict != "differs", "verdict": verdict})
    return items


def _sides(c: Campaign) -> list[str]:
    return sorted({c.target, *(pair[1].framework for pair in gap_contest(c).pairs.values())})


def _conditions(c: Campaign, sides: Sequence[str]) -> Iterator[Condition]:
    yield from (Condition(name, ask) for name, ask in _SPECIFIED.items())
    yield Condition("GPU ids", lambda c, _: list(c.lease.get("gpu_ids", [])))
    yield Condition("sampling", lambda c, _: c.spec["workload"].get("extra_request_body", {}))
    if _one_kind(c, sides):
        yield Condition("fixed options", _options)
    yield from (Condition(name, _served_with(name), unknown_is_equal=True) for name in (*SAME_IN_ALL, *ALSO_SAME))
    yield Condition("prefix cache hit rate", _measured("cache", "prefix_cache_hit_rate"), True, apart=0.05)
    yield Condition("accept length", _measured("spec_decode", "mean_accept_length"), True, relative=0.05)
    yield from (Condition(name, _served_with(name), True, noted=True) for name in NOTED)
    yield Condition("KV cache tokens", _measured("cache", "kv_cache_tokens"), True, noted=True)
    yield Condition("queue ms", _measured("phase_metrics", "queue_ms"), True, noted=True)
    yield Condition("prefill ms", _measured("phase_metrics", "prefill_ms"), True, noted=True)


def _first_items(c: Campaign) -> list[JSON]:
    """The list of version 1."""
    sides = _sides(c)
    conditions = dict(_SPECIFIED)
    if _one_kind(c, sides):
        conditions["fixed options"] = _options
    else:
        conditions |= {key: _served_with(key) for key in SAME_IN_ALL}
    items = []
    for name, ask in conditions.items():
        values = {side: ask(c, side) for side in sides}
        match = Condition(name, ask, name in SAME_IN_ALL).verdict(list(values.values())) == "match"
        items.append({"condition": name, "values": values, "match": match})
    return items


def _one_kind(c: Campaign, sides: Sequence[str]) -> bool:
    return len({c.spec["frameworks"][name].get("kind") for name in sides}) == 1


def _options(c: Campaign, framework: str) -> Any:
    return c.spec["frameworks"][framework].get("options", {})


_SPECIFIED: dict[str, Ask] = {
    "model": lambda c, name: c.spec["frameworks"][name].get("model", c.spec["model"]["id"]),
    "precision": lambda c, name: c.spec["frameworks"][name].get("precision", c.spec["model"]["precision"]),
    "gpu_count": lambda c, name: c.spec["frameworks"][name].get("gpus", len(c.lease.get("gpu_ids", []))),
    "endpoint": lambda c, name: c.spec["frameworks"][name].get("endpoint", c.spec["workload"]["endpoint"]),
    "workload": lambda c, name: c.workload_digest,
    "candidates searched": lambda c, name: "yes" if name in c.exhausted else "no",
}


def _rows(c: Campaign, framework: str) -> Iterator[tuple[str, JSON]]:
    """Scenario and row of everything that the search measured with a framework's compared command."""
    for scenario, pair in gap_contest(c).pairs.items():
        for entry in pair:
            launch = c.launches.get(search_launch(framework, entry.candidate)) if entry.framework == framework else None
            yield from ((scenario, row) for row in (launch.rows if launch else []))


def _served_with(condition: str) -> Ask:
    """The value of a condition in a framework's compared commands, as launched; None when nobody can tell."""

    def ask(c: Campaign, framework: str) -> Any:
        found = [row.get("conditions", {}).get(condition) for _, row in _rows(c, framework)]
        values = {json.dumps(value, sort_keys=True) for value in found if value is not None}
        return json.loads(values.pop()) if len(values) == 1 else sorted(values) or None

    return ask


def _measured(part: str, key: str) -> Ask:
    """The mean of a number that the server told, by scenario of the compared command; None when it told none."""

    def ask(c: Campaign, framework: str) -> Any:
        told: dict[str, list[float]] = {}
        for scenario, row in _rows(c, framework):
            value = (row.get(part) or {}).get(key)
            if row["scenario"] == scenario and value is not None:
                told.setdefault(scenario, []).append(value)
        return {scenario: round(fmean(values), 4) for scenario, values in sorted(told.items())} or None

    return ask
