"""From what the load generator saw to a result row. Pure; the SLA and the ranking are in the machine.

A number that was not measured is None, never 0. A row passes its SLA only on numbers that are there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from statemachine.ranking import SLA_KEYS, sla_failures

Row = dict[str, Any]

STATUSES = ("ok", "failed", "oom", "timeout", "skipped")
IDENTITY = ("framework", "framework_version", "framework_commit", "candidate_id", "model")
EXTRAS = (
    *("hardware", "spec_decode", "phase_metrics", "cache", "memory", "normalization"),
    *("server_command", "benchmark_command", "validated_cli_flags", "artifacts"),
)


def metrics(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of one load generator report.

    Rates are per second, from the first due request to the end of the last one. Latencies in ms, over the
    successful requests: TTFT from sending to the first token, E2E to the last token, TPOT the time between
    these two over output tokens - 1 (requests with one token have none). Percentiles interpolate linearly.
    """
    requests: list[Mapping[str, Any]] = report["requests"]
    good = [each for each in requests if each["error"] is None]
    duration_s = report["duration_s"]
    outputs = sum(each["output_tokens"] for each in good)
    inputs = sum(each["prompt_tokens"] for each in good)
    rates = {
        "request_throughput": len(good),
        "output_token_throughput": outputs,
        "total_token_throughput": inputs + outputs,
    }
    found: dict[str, float | None] = {
        name: amount / duration_s if good and duration_s else None for name, amount in rates.items()
    }
    for name, values in _latencies_ms(good).items():
        found |= {f"p50_{name}": percentile(values, 50), f"mean_{name}": _mean(values)}
        found[f"p99_{name}"] = percentile(values, 99)
    found["success_rate"] = len(good) / len(requests) if requests else None
    return found


def _latencies_ms(good: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    spans = [(each["last_token_ns"] - each["first_token_ns"], each["output_tokens"]) for each in good]
    return {
        "ttft_ms": [(each["first_token_ns"] - each["sent_ns"]) / 1e6 for each in good],
        "tpot_ms": [span / (tokens - 1) / 1e6 for span, tokens in spans if tokens > 1],
        "e2e_ms": [(each["last_token_ns"] - each["sent_ns"]) / 1e6 for each in good],
    }


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
    status is `failed` when the run was cut short or no request succeeded.
    """
    reason = _why_failed(report)
    status = "failed" if reason else "ok"
    return _row(candidate, status, reason, _workload(report), candidate.get("sla") or {}, metrics(report))


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
    return None


def _workload(report: Mapping[str, Any]) -> dict[str, Any]:
    spec, good = report["spec"], [each for each in report["requests"] if each["error"] is None]
    scenario = spec["scenario"]
    lengths = {"input_len": "prompt_tokens", "output_len": "output_tokens"}
    return {
        "kind": "random",
        "scenario": scenario["name"],
        "dataset_path": None,
        "digest": report["workload_digest"],
        "input_len": scenario["input_len"],
        "output_len": scenario["output_len"],
        **{
            f"{name}_p{percent}": percentile([each[source] for each in good], percent)
            for name, source in lengths.items()
            for percent in (50, 95)
        },
        "num_prompts": scenario["num_prompts"],
        "request_rate": spec["request_rate"],
        "max_concurrency": spec["max_concurrency"],
        "endpoint": spec["endpoint"],
    }
