"""SLA, ranking and winners of benchmark rows."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.ranking import SLA_KEYS, best, ranking_key, sla_failures

SLA = {"max_p50_ttft_ms": 100.0, "max_p50_tpot_ms": 20.0, "min_success_rate": 0.99}
GOOD = {"request_throughput": 4.0, "p50_ttft_ms": 50.0, "p50_tpot_ms": 10.0, "success_rate": 1.0}


def row(gpus: int = 1, **measured: Any) -> dict[str, Any]:
    return {"status": "ok", "hardware": {"gpu_count": gpus}, "metrics": {**GOOD, **measured}}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"p50_ttft_ms": 100.1}, "max_p50_ttft_ms"),
        ({"p50_tpot_ms": None}, "max_p50_tpot_ms"),
        ({"p50_tpot_ms": math.nan}, "max_p50_tpot_ms"),
        ({"success_rate": 0.98}, "min_success_rate"),
    ],
)
def test_breach_is_reported_with_its_numbers(change: dict[str, Any], key: str) -> None:
    """A limit that is broken, or cannot be judged, fails with key, limit and what was seen."""
    (failure,) = sla_failures({**GOOD, **change}, SLA)
    assert (failure.key, failure.limit) == (key, SLA[key])
    assert failure.observed is change[key[4:]]


def test_limits_are_inclusive() -> None:
    """A row exactly at its limits passes."""
    assert sla_failures({"p50_ttft_ms": 100.0, "p50_tpot_ms": 20.0, "success_rate": 0.99}, SLA) == []


@pytest.mark.parametrize("missing", SLA_KEYS)
def test_absent_key_is_not_passed(missing: str) -> None:
    """An SLA that lacks a required key is passed by nobody."""
    (failure,) = sla_failures(GOOD, {key: limit for key, limit in SLA.items() if key != missing})
    assert (failure.key, failure.limit) == (missing, None)


def test_unknown_key_is_not_passed() -> None:
    """A limit on something that is not measured cannot be passed; more known limits may be given."""
    assert [each.key for each in sla_failures(GOOD, {**SLA, "max_p42_joy": 1.0})] == ["max_p42_joy"]
    assert sla_failures({**GOOD, "p50_e2e_ms": 5.0}, {**SLA, "max_p50_e2e_ms": 6.0}) == []


def test_faster_row_that_fails_its_sla_does_not_win() -> None:
    """The SLA is recomputed: a row that claims to have passed gains nothing."""
    honest, liar = row(request_throughput=10.0), row(request_throughput=10.0001, p50_ttft_ms=9000.0)
    liar["sla"] = {**SLA, "passed": True}
    assert best([liar, honest], SLA) is honest


def test_ranking_is_lexicographic() -> None:
    """Each key decides only among equals of the keys before it."""
    ordered = [
        row(request_throughput=5.0),
        row(output_token_throughput=9.0),
        row(output_token_throughput=8.0, p50_ttft_ms=1.0),
        row(output_token_throughput=8.0, p50_ttft_ms=2.0, p50_tpot_ms=1.0),
        row(output_token_throughput=8.0, p50_ttft_ms=2.0, p50_tpot_ms=2.0),
        row(output_token_throughput=8.0, p50_ttft_ms=2.0, p50_tpot_ms=2.0, gpus=2),
        row(output_token_throughput=None),
        {**row(request_throughput=99.0), "status": "failed"},
    ]
    backwards = ordered[::-1]
    assert sorted(backwards, key=lambda each: ranking_key(each, SLA), reverse=True) == ordered


def test_missing_p50_falls_back_to_the_mean_then_the_worst() -> None:
    """A latency without a p50 is ranked by its mean, and without both behind every measured one."""
    assert ranking_key(row(p50_ttft_ms=None, mean_ttft_ms=7.0), SLA)[4] == -7.0
    assert ranking_key(row(p50_ttft_ms=None), SLA)[4] == -math.inf


@given(st.permutations(range(4)))
def test_not_a_number_cannot_win_in_any_order(order: list[int]) -> None:
    """NaN ranks last, wherever it stands."""
    rows = [row(request_throughput=value) for value in (math.nan, 1.0, 3.0, 2.0)]
    assert best([rows[index] for index in order], SLA) is rows[2]


def test_first_of_equals_wins() -> None:
    """A tie goes to the row that came first, and rows that miss the SLA never win."""
    first, same, lost = row(), row(), row(p50_ttft_ms=None)
    assert best([lost, first, same], SLA) is first
    assert best([lost], SLA) is None
