"""Result rows, the SLA, ranking and winners."""

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.benchmark.metrics import errors_by_kind, failed_row, make_row, metrics, percentile

SLA = {"max_p50_ttft_ms": 100.0, "max_p50_tpot_ms": 20.0, "min_success_rate": 0.99}
GOOD = {"request_throughput": 4.0, "p50_ttft_ms": 50.0, "p50_tpot_ms": 10.0, "success_rate": 1.0}
MS = 1_000_000


def request(ttft_ms: float, tokens: int, tpot_ms: float, sent_ms: float = 0.0, **changes: Any) -> dict[str, Any]:
    first = sent_ms + ttft_ms
    last = first + tpot_ms * (tokens - 1)
    times = {"sent_ns": sent_ms * MS, "first_token_ns": first * MS, "last_token_ns": last * MS}
    return {**times, "prompt_tokens": 8, "output_tokens": tokens, "error": None, **changes}


def report(*requests: dict[str, Any], **changes: Any) -> dict[str, Any]:
    scenario = {"name": "chat", "input_len": 8, "output_len": 5, "num_prompts": len(requests)}
    spec = {"scenario": scenario, "request_rate": None, "max_concurrency": 2, "endpoint": "/v1/completions"}
    base = {"spec": spec, "workload_digest": "d", "duration_s": 2.0, "interrupted": False}
    return {**base, "requests": list(requests), **changes}


def row(framework: str = "a", gpus: int = 1, scenario: str = "chat", **measured: Any) -> dict[str, Any]:
    return {
        "framework": framework,
        "candidate_id": f"{framework}-{measured}",
        "status": "ok",
        "sla": SLA,
        "workload": {"scenario": scenario},
        "hardware": {"gpu_count": gpus},
        "metrics": {**GOOD, **measured},
    }


def test_numbers_are_those_of_the_definitions() -> None:
    """Throughput counts successes over the duration; TTFT, TPOT and E2E are per request."""
    failed = request(1, 9, 1, error={"kind": "timeout", "detail": ""})
    found = metrics(report(request(10, 5, 4), request(20, 5, 6, sent_ms=100), request(30, 1, 0), failed))
    assert found["request_throughput"] == 3 / 2
    assert found["output_token_throughput"] == 11 / 2
    assert found["total_token_throughput"] == (11 + 24) / 2
    assert found["success_rate"] == 3 / 4
    assert (found["p50_ttft_ms"], found["mean_ttft_ms"]) == (20, 20)
    assert found["p99_ttft_ms"] == pytest.approx(29.8)
    assert (found["p50_tpot_ms"], found["mean_tpot_ms"]) == (5, 5), "one token has no time per further token"
    assert found["p50_e2e_ms"] == pytest.approx(30) and found["mean_e2e_ms"] == pytest.approx((26 + 44 + 30) / 3)


def test_goodput_counts_what_met_each_limit_by_itself() -> None:
    """A request counts when its own TTFT, TPOT and E2E are within the limits; one token has no TPOT to miss."""
    rows = (request(10, 5, 4), request(200, 5, 4), request(10, 5, 40), request(10, 1, 0))
    assert metrics(report(*rows), SLA)["goodput"] == 2 / 2.0
    assert metrics(report(*rows), {**SLA, "max_p50_e2e_ms": 20.0})["goodput"] == 1 / 2.0
    assert "goodput" not in metrics(report(*rows), {"min_success_rate": 1.0})


def test_gaps_are_taken_within_each_stream() -> None:
    """ITL is the time between two pieces of one stream, never between two streams."""
    one = request(1, 3, 1, chunk_ns=[1 * MS, 3 * MS, 9 * MS])
    found = metrics(report(one, request(1, 2, 1, chunk_ns=[100 * MS, 104 * MS])))
    assert (found["p50_itl_ms"], found["mean_itl_ms"]) == (4.0, 4.0)


def test_errors_are_counted_by_kind() -> None:
    """Every failed request is in the count of its kind."""
    broken = [request(1, 1, 1, error={"kind": kind, "detail": ""}) for kind in ("stalled", "garbage", "stalled")]
    assert errors_by_kind(report(request(1, 1, 1), *broken)) == {"stalled": 2, "garbage": 1}


def test_prompts_that_nobody_counted_leave_the_total_open() -> None:
    """Total tokens are None, not too few, when a prompt's length is unknown."""
    found = metrics(report(request(1, 5, 1), request(1, 5, 1, prompt_tokens=None)))
    assert found["total_token_throughput"] is None and found["output_token_throughput"] == 5.0


def test_what_was_not_measured_is_none() -> None:
    """Without a success there is no throughput and no latency, and none of them is 0."""
    failed = request(1, 5, 1, error={"kind": "connect", "detail": "refused"})
    made = make_row(report(failed, failed), {"framework": "a", "sla": SLA})
    assert made["metrics"].pop("success_rate") == 0.0
    assert set(made["metrics"].values()) == {None}
    assert made["status"] == "failed" and "connect: refused" in made["failure_reason"]
    assert made["sla"]["passed"] is False


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.integers(1, 99))
def test_percentile_agrees_with_the_standard_library(values: list[float], percent: int) -> None:
    """The percentile is the inclusive quantile of Python's statistics module."""
    expected = statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
    assert percentile(values, percent) == pytest.approx(expected, abs=1e-6)


def test_row_has_the_whole_schema() -> None:
    """A row has every key, None where nothing is known, and measured lengths."""
    made = make_row(report(request(10, 5, 4)), {"framework": "a", "candidate_id": "c", "sla": SLA})
    assert made["status"] == "ok" and made["failure_reason"] is None
    assert made["sla"] == {**SLA, "passed": True}
    assert (made["workload"]["input_len_p50"], made["workload"]["output_len_p95"]) == (8, 5)
    assert made["hardware"] is None and made["spec_decode"] is None and made["model"] is None


def test_interrupted_run_is_no_result() -> None:
    """Numbers of a run that was cut short do not make an ok row."""
    made = make_row(report(request(10, 5, 4), interrupted=True), {"sla": SLA})
    assert made["status"] == "failed" and not made["sla"]["passed"]


def test_failed_candidates_keep_their_reason() -> None:
    """A candidate that ran out of memory is a row too; ok has to be measured."""
    made = failed_row("oom", "CUDA out of memory", {"framework": "a"}, SLA)
    assert (made["status"], made["failure_reason"], made["metrics"]) == ("oom", "CUDA out of memory", None)
    with pytest.raises(ValueError, match="'ok' is not one of"):
        failed_row("ok", "", {}, SLA)
