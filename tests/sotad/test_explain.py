"""The explanation of a gap from two tables."""

from typing import Any

from sotad.analysis.explain import explain, statement
from sotad.analysis.kernels import Tables


def tables(prefill_ms: float, decode_ms: float, host: float = 1.0) -> Tables:
    """A capture of 100 tokens in each stage on a host that is slower by a factor."""
    spent = {"prefill": prefill_ms * host, "decode": decode_ms * host}
    rows: list[dict[str, Any]] = []
    stages = {}
    for stage, ms in spent.items():
        known = {"stage": stage, "annotation": None, "category": "cpu_op", "count": 10}
        rows.append({**known, "row_id": f"{stage}/mm", "name": "mm", "time_ms": ms, "share": 100.0})
        step = {"row_id": f"{stage}/step", "stage": stage, "count": 10, "mean_batch_size": 4.0, "tokens": 100}
        stages[stage] = {**step, "total_ms": ms}
    return Tables(rows, stages)


def test_the_stage_that_lost_most_is_the_slow_one() -> None:
    """Its rows are cited, each with what it costs beyond the leader."""
    found = explain(tables(100, 500), tables(100, 300))
    assert (found["stage"], found["cited"]) == ("decode", ["decode/mm", "decode/step"])
    assert found["rows"][0]["extra_ms"] == 200
    assert "decode is the slow stage" in statement(found, "ours", "theirs")


def test_a_busy_host_during_one_capture_does_not_move_the_blame() -> None:
    """A slowdown that all stages share is taken out before stages are compared."""
    found = explain(tables(300, 500, host=1.3), tables(100, 500))
    assert (found["stage"], found["common_factor"]) == ("prefill", 1.3)
    assert found["extra_ms"] == {"prefill": 260.0, "decode": 0.0}


def test_a_slowdown_of_everything_alike_is_still_explained() -> None:
    """When stages hardly differ, the common slowdown is what there is to explain."""
    found = explain(tables(150, 450), tables(100, 300))
    assert (found["stage"], found["common_factor"], found["extra_ms"]["decode"]) == ("decode", 1.0, 150.0)
