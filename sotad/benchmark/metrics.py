"""From what the load generator saw to a result row. Pure; the SLA and the ranking are in the machine.

A number that was not measured is None, never 0. A row passes its SLA only on numbers that are there.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from statemachine.ranking import SLA_KEYS, sla_failures

Row = dict[str, Any]

STATUSES = ("ok", "failed", "oom", "timeout", "skipped")
IDENTITY = ("framework", "framework_version", "framework_commit", "candidate_id", "model")
EXTRAS = (
    *("precision", "quantization", "conditions"),
    *("hardware", "spec_decode", "phase_metrics", "cache", "memory", "normalization", "engine_caches"),
    *("server_command", "benchmark_command", "validated_cli_flags", "artifacts"),
)


PERCENTILES = (50, 90, 95, 99)
PER_REQUEST = {"max_p50_ttft_ms": "ttft_ms", "max_p50_tpot_ms": "tpot_ms", "max_p50_e2e_ms": "e2e_ms"}


def metrics(report: Mapping[str, Any], sla: Mapping[str, float | None] | None = None) -> dict[str, float | None]:
    """The numbers of one load generator report.

    Rates are per second, from the first due request to the end of the last one. Latencies in ms, over the
    successful requests: TTFT from sending to the first token, E2E to the last token, TPOT the time between
    these two over output tokens - 1 (requests with one token have none), ITL every time between two pieces of
    a stream, over all of them. Percentiles interpolate linearly. With latency limits in `sla`, `goodput` counts
    the requests that met each of them by themselves.
    """
    requests: list[Mapping[str, Any]] = report["requests"]
    good = [each for each in requests if each["error"] is None]
    duration_s = report["duration_s"] if good else None
    outputs = sum(each["output_tokens"] for each in good)
    found: dict[str, float | None] = {
        "request_throughput": _rate(len(good), duration_s),
        "output_token_throughput": _rate(outputs, duration_s),
        "total_token_throughput": _rate(_total_tokens(good, outputs), duration_s),
    }
    for name, values in _latencies_ms(good).items():
        found |= {f"p{percent}_{name}": percentile(values, percent) for percent in PERCENTILES}
        found[f"mean_{name}"] = _mean(values)
    limits = {name: limit for key, name in PER_REQUEST.items() if (limit := (sla or {}).get(key)) is not None}
    if limits:
        found["goodput"] = _rate(sum(_meets(each, limits) for each in good), duration_s)
    found["success_rate"] = len(good) / len(requests) if requests else None
    return found


def errors_by_kind(report: Mapping[str, Any]) -> dict[str, int]:
    """How many requests failed, by the kind of failure, the most frequent first."""
    return dict(Counter(each["error"]["kind"] for each in report["requests"] if each["error"]).most_common())


def _rate(amount: int | None, duration_s: float | None) -> float | None:
    return amount / duration_s if amount is not None and duration_s else None


def _total_tokens(good: Sequence[Mapping[str, Any]], outputs: int) -> int | None:
    """None when nobody counted the tokens of some prompt."""
    inputs = [each["prompt_tokens"] for each in good]
    return None if None in inputs else sum(inputs) + outputs


def _latencies_ms(good: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    own = [_own_latencies_ms(each) for each in good]
    found = {name: [each[name] for each in own if name in each] for name in ("ttft_ms", "tpot_ms", "e2e_ms")}
    chunks = [each.get("chunk_ns") or () for each in good]
    return {**found, "itl_ms": [(after - before) / 1e6 for times in chunks for before, after in pairwise(times)]}


def _own_latencies_ms(request: Mapping[str, Any]) -> dict[str, float]:
    first, last, tokens = request["first_token_ns"], request["last_token_ns"], request["output_tokens"]
    found = {"ttft_ms": (first - request["sent_ns"]) / 1e6, "e2e_ms": (last - request["sent_ns"]) / 1e6}
    return found | ({"tpot_ms": (last - first) / (tokens - 1) / 1e6} if tokens > 1 else {})


def _meets(request: Mapping[str, Any], limits: Mapping[str, float]) -> bool:
    """A request of one token has no TPOT to be too slow."""
    own = _own_latencies_ms(request)
    return all(own.get(name, 0.0) <= limit for name, limit in limits.items())


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The percentile with linear interpolation between the two nearest ranks; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def make_row(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> Row:
    """The row of a candidate that was measured.

    `candidate` has what the daemon knows: `sla`, `IDENTITY` and `EXTRAS`; what it lacks becomes None. The
    status is `failed` when the run was cut short, no request succeeded, or the load generator was the bottleneck.
    """
    reason = _why_failed(report)
    status, sla = "failed" if reason else "ok", candidate.get("sla") or {}
    return _row(candidate, status, reason, _workload(report), sla, metrics(report, sla))


def failed_row(status: str, reason: str, candidate: Mapping[str, Any], sla: Mapping[str, float | None]) -> Row:
    """The row of a candidate that could not be measured; failures are kept.

    Raises:
        ValueError: the status is `ok` or no status at all.
    """
    if status not in STATUSES[1:]:
        raise ValueError(f"{status!r} is not one of {', '.join(STATUSES[1:])}")
    return _row(candidate, status, reason, None, sla, {})


def _row(
    candidate: Mapping[str, Any],
    status: str,
    reason: str | None,
    workload: dict[str, Any] | None,
    sla: Mapping[str, float | None],
    measured: dict[str, float | None],
) -> Row:
    limits = {key: sla.get(key) for key in dict.fromkeys((*SLA_KEYS, *sla)) if key != "passed"}
    return {
        **{name: candidate.get(name) for name in IDENTITY},
        "status": status,
        "failure_reason": reason,
        "workload": workload or candidate.get("workload"),
        "sla": {**limits, "passed": status == "ok" and not sla_failures(measured, sla)},
        "metrics": measured or None,
        **{name: candidate.get(name) for name in EXTRAS},
    }


def _why_failed(report: Mapping[str, Any]) -> str | None:
    errors = [each["error"] for each in report["requests"]]
    if report["interrupted"]:
        return "the load generator was stopped before the end"
    if all(errors):
        return f"no request succeeded; the first: {errors[0]['kind']}: {errors[0]['detail']}"
    client = report.get("client") or {}
    return None if client.get("valid", True) else f"invalid: {client['reason']}"


def _workload(report: Mapping[str, Any]) -> dict[str, Any]:
    spec, good = report["spec"], [each for each in report["requests"] if each["error"] is None]
    scenario = spec["scenario"]
    lengths = {"input_len": "prompt_tokens", "output_len": "output_tokens"}
    return {
        "kind": scenario.get("kind", "random"),
        "scenario": scenario["name"],
        "dataset_path": scenario.get("dataset"),
        "digest": report["workload_digest"],
        "input_len": scenario["input_len"],
        "output_len": scenario["output_len"],
        **{
            f"{name}_p{percent}": percentile([each[source] for each in good if each[source] is not None], percent)
            for name, source in lengths.items()
            for percent in (50, 95)
        },
        "num_prompts": scenario["num_prompts"],
        "request_rate": spec["request_rate"],
        "arrival": spec.get("arrival") or ("closed" if spec["request_rate"] is None else "poisson"),
        "max_concurrency": spec["max_concurrency"],
        "endpoint": spec["endpoint"],
        "extra_request_body": spec.get("extra_body") or {},
    }
