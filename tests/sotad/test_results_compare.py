"""Ranking, winners, noise, Pareto front, fairness and hand-off over result rows."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.results import pareto
from sotad.results.compare import Comparison, compare
from sotad.results.fairness import Fairness, fairness
from sotad.results.handoff import handoffs
from sotad.results.rows import Row, parse
from sotad.results.shown import Report

SLA = {"max_p50_ttft_ms": 1000, "max_p50_tpot_ms": 50, "min_success_rate": 0.99}
GOOD = {"p50_ttft_ms": 100.0, "p50_tpot_ms": 10.0, "success_rate": 1.0, "output_token_throughput": 100.0}
SAME: dict[str, Any] = {
    "model": "m",
    "precision": "bfloat16",
    "quantization": "none",
    "benchmark_command": "python -m sotad.loadgen",
    "conditions": {
        "dtype": "bfloat16",
        "kv_cache_dtype": "bf16",
        "prefix_cache": True,
        "speculative": False,
        "max_context": 4096,
    },
    "cache": {"prefix_cache_hit_rate": 0.5},
}
WORKLOAD: dict[str, Any] = {
    "kind": "random",
    "scenario": "chat",
    "digest": "d",
    "input_len": 100,
    "output_len": 10,
    "num_prompts": 80,
    "max_concurrency": 8,
    "endpoint": "/v1/completions",
    "extra_request_body": {"temperature": 0},
}


def row(framework: str, candidate: str, rate: float | None, /, gpus: int | None = 1, **changes: Any) -> Row:
    metrics = {"request_throughput": rate, **GOOD, **changes.pop("metrics", {})}
    hardware = {"gpu_model": "H200", "gpu_count": gpus}
    workload = {**WORKLOAD, **changes.pop("workload", {})}
    base = {"framework": framework, "candidate_id": candidate, "status": "ok", "sla": SLA, "hardware": hardware}
    return {**parse({**base, **SAME, "workload": workload, "metrics": metrics, **changes}), "source": candidate}


def names(rows: list[Row]) -> list[str]:
    return [f"{each['framework']}/{each['candidate_id']}" for each in rows]


def only(comparison: Comparison) -> Any:
    (group,) = comparison.groups
    return group


def reasons(comparison: Comparison) -> dict[str, str]:
    return {each["candidate_id"]: "; ".join(each["reasons"]) for each in comparison.rejected}


# --- who wins -----------------------------------------------------------------------------------------------


def test_a_faster_row_that_fails_never_wins() -> None:
    """Failing the SLA or not running is listed with its reason; the best of the others wins."""
    late = row("a", "late", 99, metrics={"p50_ttft_ms": 1001.0})
    died = row("a", "died", 99, status="oom", failure_reason="CUDA out of memory")
    found = compare([late, died, row("a", "slow", 1)])
    assert names(found.winners) == ["a/slow"]
    assert reasons(found) == {"late": "misses max_p50_ttft_ms 1000: measured 1001", "died": "oom: CUDA out of memory"}


def test_a_row_without_what_is_needed_does_not_pass() -> None:
    """An ok row lacks throughput, latency, success rate or any limit: not passed, and why."""
    rows = [
        row("a", "rate", None),
        row("a", "ttft", 9, metrics={"p50_ttft_ms": None}),
        row("a", "success", 9, metrics={"success_rate": None}),
        row("a", "limits", 9, sla={}),
        row("a", "void", 9, counts=False),
    ]
    found = compare(rows)
    assert found.winners == []
    assert reasons(found) == {
        "rate": "request_throughput was not measured",
        "ttft": "p50_ttft_ms was not measured",
        "success": "success_rate was not measured",
        "limits": "no SLA: the row has no limit, give them with --sla",
        "void": "void: measured, but not used (counts is false)",
    }


def test_the_mean_decides_where_there_is_no_p50_and_not_the_p99() -> None:
    """Equal throughput: lower mean TTFT goes before lower p99 TTFT; the same for TPOT."""
    for name in ("ttft_ms", "tpot_ms"):
        good = {f"p50_{name}": None, f"mean_{name}": 5.0, f"p99_{name}": 900.0}
        bad = {f"p50_{name}": None, f"mean_{name}": 6.0, f"p99_{name}": 7.0}
        found = compare([row("a", "bad", 1, metrics=bad), row("a", "good", 1, metrics=good)])
        assert names(only(found).rows) == ["a/good", "a/bad"]


def test_limits_given_replace_those_of_the_rows() -> None:
    """--sla judges again: who passed may fail, and who had no limit may pass."""
    rows = [row("a", "one", 2, metrics={"p50_ttft_ms": 500.0}), row("a", "two", 1, sla={})]
    assert names(compare(rows, SLA).winners) == ["a/one"]
    assert names(compare(rows, {**SLA, "max_p50_ttft_ms": 200}).winners) == ["a/two"]


def test_output_tokens_first_swaps_the_keys() -> None:
    """By output tokens another row wins than by requests."""
    rows = [row("a", "requests", 9), row("a", "tokens", 8, metrics={"output_token_throughput": 200.0})]
    assert names(compare(rows).winners) == ["a/requests"]
    assert names(compare(rows, by="output_token_throughput").winners) == ["a/tokens"]


def test_loads_are_never_ranked_together() -> None:
    """Saturation, fixed rates and concurrencies each have their own ranking."""
    loads = [{}, {"request_rate": 2}, {"request_rate": 4}, {"max_concurrency": 16}]
    found = compare([row("a", "c", 1 + place, workload=load) for place, load in enumerate(loads)])
    assert [group.label for group in found.groups] == [
        "chat (saturation, concurrency 8)",
        "chat (saturation, concurrency 16)",
        "chat (2 req/s, concurrency 8)",
        "chat (4 req/s, concurrency 8)",
    ]
    assert all(len(group.rows) == 1 for group in found.groups)


def test_a_candidate_that_did_not_run_needs_no_load() -> None:
    """It stands with its scenario, not in a ranking of its own."""
    died = row("b", "died", None, status="timeout", workload={"max_concurrency": None})
    assert names(only(compare([row("a", "c", 1), died])).rows) == ["a/c", "b/died"]


def test_of_repeats_the_median_counts() -> None:
    """Several runs of a candidate are one row: not the luckiest."""
    runs = [row("a", "c", rate, run=run) for run, rate in enumerate((5, 9, 6))]
    found = compare([*runs, row("a", "gap", 99, purpose="gap")])
    (best,) = found.winners
    assert (best["metrics"]["request_throughput"], best["repeats"]) == (6, 3)
    assert found.notes == ["left out, measured neither in the search nor for goodput: 1 rows"]


def test_what_noise_cannot_tell_apart_is_said() -> None:
    """The rank stays the machine's; who is within the band, and whom the next figures prefer, stands beside it."""
    rows = [row("a", "lucky", 10.0001, metrics={"p50_ttft_ms": 900.0}), row("b", "c", 10), row("b", "slow", 9)]
    group = only(compare(rows))
    assert names(group.passing)[0] == "a/lucky"
    assert names(group.within_noise) == ["a/lucky", "b/c"] and names([group.preferred]) == ["b/c"]


def test_intervals_that_overlap_are_a_tie() -> None:
    """A row outside of the band is within noise when its interval reaches the winner's."""
    first = row("a", "c", 10, ci95={"request_throughput": [9.0, 11.0]})
    reaching = row("b", "c", 9, ci95={"request_throughput": [8.0, 9.5]})
    below = row("c", "c", 8, ci95={"request_throughput": [7.5, 8.5]})
    assert names(only(compare([first, reaching, below])).within_noise) == ["a/c", "b/c"]


def test_repeats_that_spread_widen_the_band() -> None:
    """Measured noise replaces the usual 2%."""
    runs = [row("a", "c", rate, run=run) for run, rate in enumerate((9, 10, 11))]
    assert only(compare([*runs, row("b", "c", 9)])).noise_pct == 20.0


# --- properties ---------------------------------------------------------------------------------------------

numbers = st.one_of(st.none(), st.floats(0, 200), st.just(0.0), st.integers(1, 3).map(float))
rows_of = st.lists(
    st.builds(
        lambda framework, rate, ttft, tokens, status, limit: row(
            *(framework, "c", rate),
            metrics={"p50_ttft_ms": ttft, "output_token_throughput": tokens},
            status=status,
            workload={"max_concurrency": limit},
        ),
        st.sampled_from("abc"),
        numbers,
        numbers,
        numbers,
        st.sampled_from(["ok", "ok", "ok", "failed"]),
        st.sampled_from([None, 8]),
    ),
    min_size=1,
    max_size=7,
).map(lambda rows: [{**each, "candidate_id": f"c{place}"} for place, each in enumerate(rows)])


@settings(max_examples=80, deadline=None)
@given(rows_of, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[Row], chance: random.Random) -> None:
    """Winners, ranks, ties and front are the same for every order of the input."""
    shuffled = list(rows)
    chance.shuffle(shuffled)
    one, other = compare(rows), compare(shuffled)
    assert one == other
    assert Report(one, fairness(one.groups), None, []).rendered("csv") == Report(other, [], None, []).rendered("csv")


@settings(max_examples=80, deadline=None)
@given(rows_of)
def test_what_was_not_measured_never_wins(rows: list[Row]) -> None:
    """Every winner ran, has its numbers, and is the fastest of its framework that passes."""
    found = compare(rows)
    for best in found.winners:
        assert best["status"] == "ok" and None not in (
            best["metrics"]["request_throughput"],
            best["metrics"]["p50_ttft_ms"],
        )
    for group in found.groups:
        rates = [each["metrics"]["request_throughput"] for each in group.passing]
        assert rates == sorted(rates, reverse=True)


point = st.tuples(*[st.floats(-100, 100)] * 3)


@given(st.lists(st.one_of(st.none(), point), max_size=12), st.tuples(*[st.floats(0, 5)] * 3), st.integers(0, 11))
def test_a_dominated_point_never_changes_the_front(
    points: list[tuple[float, ...] | None], worse: tuple[float, ...], place: int
) -> None:
    """Adding a point that another beats leaves the front as it was; whatever is on it is beaten by none."""
    front = pareto.front(points)
    known = [each for each in points if each is not None]
    assert bool(front) == bool(known)
    for place_, each in enumerate(points):
        beaten = each is not None and any(pareto.dominates(other, each) for other in known)
        assert (place_ in front) == (each is not None and not beaten)
    base = points[place] if place < len(points) else None
    if base is not None and any(worse):
        lower = tuple(value - less for value, less in zip(base, worse, strict=True))
        if lower != base:
            assert pareto.front([*points, lower]) == front


def test_throughput_is_per_gpu_where_the_counts_differ() -> None:
    """Twice the GPUs for less than twice the requests is not on the front, and an unknown count is on none."""
    rows = [row("a", "one", 10), row("b", "two", 19, gpus=2), row("c", "unknown", 99, gpus=None)]
    group = only(compare(rows))
    assert group.gpus_differ and names(group.front) == ["a/one"]
    alike = only(compare(rows[:1] + rows[2:]))
    assert not alike.gpus_differ and names(alike.front) == ["c/unknown"]


# --- fairness -----------------------------------------------------------------------------------------------


def judge(*rows: Row) -> Fairness:
    (found,) = fairness(compare(rows).groups)
    return found


def test_equal_conditions_are_comparable() -> None:
    """Every condition known and equal: yes."""
    found = judge(row("a", "c", 1), row("b", "c", 2))
    assert (found.comparable, found.of("differs"), found.of("unknown")) == ("yes", [], [])


def test_each_condition_that_differs_is_named() -> None:
    """One difference makes the comparison unfair, and only that one is named."""
    cases: dict[str, dict[str, Any]] = {
        "model": {"model": "n"},
        "precision": {"precision": "fp8"},
        "quantization": {"quantization": "awq"},
        "GPU count": {"gpus": 2},
        "GPU model": {"hardware": {"gpu_model": "H100", "gpu_count": 1}},
        "endpoint": {"workload": {"endpoint": "/v1/chat/completions"}},
        "load generator": {"benchmark_command": "vllm bench serve --model m"},
        "workload digest": {"workload": {"digest": "other"}},
        "input length": {"workload": {"input_len": 200}},
        "output length": {"workload": {"output_len": 20}},
        "prompts": {"workload": {"num_prompts": 81}},
        "request rate": {"workload": {"request_rate": 4}},
        "concurrency": {"workload": {"max_concurrency": 16}},
        "sampling": {"workload": {"extra_request_body": {"temperature": 1}}},
        "SLA": {"sla": {**SLA, "max_p50_ttft_ms": 999}},
        "dtype": {"conditions": {**SAME["conditions"], "dtype": "float16"}},
        "longest context": {"conditions": {**SAME["conditions"], "max_context": 8192}},
        "KV cache dtype": {"conditions": {**SAME["conditions"], "kv_cache_dtype": "fp8"}},
        "prefix cache": {"conditions": {**SAME["conditions"], "prefix_cache": False}},
        "prefix cache hit rate": {"cache": {"prefix_cache_hit_rate": 0.6}},
        "declared: same_tokenizer": {"normalization": {"same_tokenizer": "no"}},
    }
    along = {"prefix cache": "prefix cache hit rate"}  # none is measured where the cache is off
    for name, changes in cases.items():
        found = judge(row("a", "c", 1), row("b", "c", 2, **changes))
        expected = [name, along[name]] if name in along else [name]
        assert (found.comparable, found.of("differs")) == ("no", expected), name


def test_speculation_is_compared_with_its_accept_length() -> None:
    """The algorithm must be the same; the accept length may differ by 5%."""

    def with_eagle(framework: str, length: float) -> Row:
        spec = {"enabled": True, "algorithm": "EAGLE", "mean_accept_length": length}
        return row(framework, "c", 1, spec_decode=spec, conditions={**SAME["conditions"], "speculative": None})

    assert judge(row("a", "c", 1), with_eagle("b", 3.0)).of("differs") == ["speculative decoding", "accept length"]
    assert judge(with_eagle("a", 3.1), with_eagle("b", 3.0)).comparable == "yes"
    assert judge(with_eagle("a", 3.3), with_eagle("b", 3.0)).of("differs") == ["accept length"]


def test_what_is_not_known_is_no_match() -> None:
    """A missing value on one side, or `auto` against a named one: unknown, never yes."""
    assert judge(row("a", "c", 1), row("b", "c", 2, model=None)).of("unknown") == ["model"]
    follows = row("b", "c", 2, conditions={**SAME["conditions"], "kv_cache_dtype": "auto"})
    found = judge(row("a", "c", 1), follows)
    assert (found.comparable, found.of("unknown")) == ("unknown", ["KV cache dtype"])


def test_several_loads_match_when_every_side_has_them() -> None:
    """A sweep over concurrencies is the same sweep on both sides, or not."""
    both = [row(name, "c", 1, workload={"max_concurrency": limit}) for name in "ab" for limit in (4, 16)]
    assert judge(*both).comparable == "yes"
    assert judge(*both[:3]).of("differs") == ["concurrency"]


# --- hand-off -----------------------------------------------------------------------------------------------


def test_a_target_that_lost_is_handed_to_the_profiler() -> None:
    """Scenario, lengths, gap, the two stages' lengths, and the batch that was running."""
    rows = [row("a", "c", 8, metrics={"mean_e2e_ms": 500.0}), row("b", "c", 10)]
    (found,) = handoffs(compare(rows), "a")
    assert (found["scenario"], found["input_len"], found["output_len"], found["bucket"]) == ("chat", 100, 10, "fixed")
    assert (found["slow_framework"], found["fast_framework"], found["gap_pct"]) == ("a", "b", 20.0)
    assert found["commands"] == {
        "prefill": "--prefill-input-len 100 --prefill-output-len 1",
        "decode": "--decode-input-len 1 --decode-output-len 10",
    }
    assert found["concurrency"] == 4 and not found["within_noise"]
    assert list(handoffs(compare(rows), "b")) == []


def test_a_small_gap_and_a_missed_sla_are_told_apart() -> None:
    """Within noise: repeat first. A target that fails the SLA another meets is behind, however fast."""
    (close,) = handoffs(compare([row("a", "c", 9.9), row("b", "c", 10)]), "a")
    assert close["within_noise"]
    (fails,) = handoffs(compare([row("a", "c", 99, metrics={"p50_ttft_ms": 2000.0}), row("b", "c", 10)]), "a")
    assert fails["sla_gap"] and not fails["within_noise"]
