"""Which conditions of a comparison match, differ, or are not known: per scenario, one side for each framework. Pure.

A condition that must be equal by nature (model, GPUs, workload) is taken from every row that ran; one that is part
of a candidate's tuning (cache, speculation) from the best row of the side under each load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sotad.results.compare import Group
from sotad.results.judge import limits
from sotad.results.rows import Row, ran

Verdict = Literal["match", "differs", "unknown"]
CLIENTS = ("sotad.loadgen", "vllm bench serve", "sglang.bench_serving", "benchmark_serving", "guidellm", "aiperf")
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must match: how to find it in a row, and how far numbers may be apart (share of the larger)."""

    name: str
    value: Callable[[Row], Any]
    tuned: bool = False
    several: bool = False
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition's values, by framework, and the verdict."""

    condition: str
    values: dict[str, list[Any]]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Fairness:
    """The findings of a scenario and what they come to: `no` if one differs, `unknown` if one is not known."""

    scenario: str
    findings: list[Finding]

    @property
    def comparable(self) -> Literal["yes", "no", "unknown"]:
        """Whether the sides were measured under the same conditions."""
        verdicts = {finding.verdict for finding in self.findings}
        return "no" if "differs" in verdicts else "unknown" if "unknown" in verdicts else "yes"

    def of(self, verdict: Verdict) -> list[str]:
        """The names of the conditions with that verdict."""
        return [finding.condition for finding in self.findings if finding.verdict == verdict]


def at(*paths: str) -> Callable[[Row], Any]:
    """The first of the dotted paths that has a value in the row."""

    def value(row: Row) -> Any:
        return next((found for path in paths if (found := _walk(row, path)) is not None), None)

    return value


def _walk(row: Mapping[str, Any], path: str) -> Any:
    found: Any = row
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return None if found == "" else found


def _rate(row: Row) -> Any:
    rate = row["workload"]["request_rate"]
    return "none (saturation)" if rate is None else rate


def _concurrency(row: Row) -> Any:
    return row["workload"]["max_concurrency"] or "no limit"


def _speculation(row: Row) -> Any:
    found, told = row["spec_decode"], _walk(row, "conditions.speculative")
    if found["enabled"] is False or told is False:
        return "off"
    return found["algorithm"] or told or ("on" if found["enabled"] else None)


def _accept_length(row: Row) -> Any:
    return "off" if _speculation(row) in ("off", "none") else row["spec_decode"]["mean_accept_length"]


def _hit_rate(row: Row) -> Any:
    enabled = at("conditions.prefix_cache", "cache.prefix_cache_enabled")(row)
    return "off" if enabled is False else row["cache"]["prefix_cache_hit_rate"]


def _client(row: Row) -> Any:
    command = row["benchmark_command"] or ""
    named = next((name for name in CLIENTS if name in command), None)
    return _walk(row, "workload.client") or named


CONDITIONS = (
    Condition("model", at("model")),
    Condition("precision", at("precision", "conditions.precision", "conditions.dtype", "memory.dtype")),
    Condition("quantization", at("quantization", "conditions.quantization")),
    Condition("GPU model", at("hardware.gpu_model")),
    Condition("GPU count", at("hardware.gpu_count")),
    Condition("endpoint", at("workload.endpoint")),
    Condition("load generator", _client),
    Condition("workload kind", at("workload.kind")),
    Condition("workload digest", at("workload.digest")),
    Condition("input length", at("workload.input_len", "workload.input_len_p50")),
    Condition("output length", at("workload.output_len", "workload.output_len_p50")),
    Condition("prompts", at("workload.num_prompts")),
    Condition("request rate", _rate, several=True),
    Condition("concurrency", _concurrency, several=True),
    Condition("sampling", at("workload.extra_request_body", "workload.sampling", "extra.sampling")),
    Condition("SLA", limits),
    Condition("dtype", at("conditions.dtype", "memory.dtype"), tuned=True),
    Condition("longest context", at("conditions.max_context"), tuned=True),
    Condition("KV cache dtype", at("conditions.kv_cache_dtype", "memory.kv_cache_dtype"), tuned=True),
    Condition("prefix cache", at("conditions.prefix_cache", "cache.prefix_cache_enabled"), tuned=True),
    Condition("prefix cache hit rate", _hit_rate, tuned=True, tolerance=0.02),
    Condition("speculative decoding", _speculation, tuned=True),
    Condition("accept length", _accept_length, tuned=True, tolerance=0.05),
)


def fairness(groups: Sequence[Group]) -> list[Fairness]:
    """The conditions of every scenario in which at least one row ran."""
    scenarios = dict.fromkeys(group.scenario for group in groups)
    found = (_scenario(name, [group for group in groups if group.scenario == name]) for name in scenarios)
    return [each for each in found if each is not None]


def _scenario(name: str, groups: Sequence[Group]) -> Fairness | None:
    measured = [row for group in groups for row in group.rows if ran(row)]
    if not measured:
        return None
    leading = [row for group in groups for row in _leading(group)]
    findings = [_finding(each, leading if each.tuned else measured) for each in CONDITIONS]
    return Fairness(name, [*findings, *_declared(measured)])


def _leading(group: Group) -> Iterator[Row]:
    """The best row of each framework, passing or not."""
    seen: set[str] = set()
    for row in group.rows:
        if ran(row) and row["framework"] not in seen:
            seen.add(row["framework"])
            yield row


def _finding(condition: Condition, rows: Iterable[Row]) -> Finding:
    sides: dict[str, dict[str, Any]] = {}
    for row in rows:
        value = condition.value(row)
        sides.setdefault(row["framework"], {})[json.dumps(value, sort_keys=True, default=str)] = value
    values = {
        name: [found[key] for key in sorted(found, key=lambda key: (len(key), key))]
        for name, found in sorted(sides.items())
    }
    return Finding(condition.name, values, _verdict(condition, list(values.values())))


def _verdict(condition: Condition, sides: Sequence[Sequence[Any]]) -> Verdict:
    every = [value for side in sides for value in side]
    known = [value for value in every if value not in (None, {})]
    if not _all_equal(condition, sides, known):
        return "unknown" if "auto" in known and len({str(value) for value in known} - {"auto"}) < 2 else "differs"
    return "match" if len(known) == len(every) else "unknown"


def _all_equal(condition: Condition, sides: Sequence[Sequence[Any]], known: Sequence[Any]) -> bool:
    if condition.several:
        return all(list(side) == list(sides[0]) for side in sides)
    if condition.tolerance and known and all(isinstance(value, int | float) for value in known):
        return bool(max(known) - min(known) <= condition.tolerance * max(1.0, max(known)))
    return all(value == known[0] and isinstance(value, bool) == isinstance(known[0], bool) for value in known)


def _declared(rows: Iterable[Row]) -> Iterator[Finding]:
    """What a row's author declares not to be the same."""
    denied: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        for key, value in row["normalization"].items():
            if key.startswith("same_") and value is False:
                denied.setdefault(key, {}).setdefault(row["framework"], [False])
    yield from (Finding(f"declared: {key}", values, "differs") for key, values in sorted(denied.items()))
