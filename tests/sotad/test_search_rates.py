"""The rate search and the stopping rules, against simulated servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.rates import next_rate, outcome
from statemachine.stopping import to_skip

LOWER, UPPER, TOLERANCE, ROUNDS = 0.25, 4.0, 0.1, 5


def search(capacity: float, flaky: tuple[int, ...] = (), rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """All tests against a server that meets its SLA up to ``capacity``; the tests in ``flaky`` come out wrong."""
    tests: list[dict[str, Any]] = []
    while (rate := next_rate(tests, LOWER, UPPER, TOLERANCE, rounds)) is not None:
        tests.append({"rate": rate, "passed": (rate <= capacity) != (len(tests) in flaky)})
        assert len(tests) <= rounds + 3
    return tests


@given(capacity=st.floats(0.01, 10))
def test_the_answer_brackets_the_capacity(capacity: float) -> None:
    """What passed is at most the capacity, what failed above it, whatever the bound is called."""
    found = outcome(search(capacity))
    assert found["monotone"]
    assert found["max_passing_rate"] <= capacity
    if found["bound"] == "lt":
        assert (found["max_passing_rate"], capacity < LOWER) == (0, True)
    elif found["bound"] == "ge":
        assert (found["max_passing_rate"], capacity >= UPPER) == (UPPER, True)
    else:
        assert capacity < found["lowest_failing_rate"] <= UPPER


@given(capacity=st.floats(LOWER, 3.99))
def test_with_enough_rounds_the_bracket_is_within_the_tolerance(capacity: float) -> None:
    """The bracket ends no wider than tolerance times its lower end."""
    found = outcome(search(capacity, rounds=50))
    assert found["lowest_failing_rate"] - found["max_passing_rate"] <= TOLERANCE * found["max_passing_rate"]


@given(capacity=st.floats(0.01, 10), flaky=st.sets(st.integers(0, 7)))
def test_a_flaky_server_ends_the_search_too(capacity: float, flaky: set[int]) -> None:
    """Wrong verdicts never make it endless, and a rate above a failure is never claimed."""
    tests = search(capacity, tuple(flaky))
    found = outcome(tests)
    latest = {test["rate"]: test["passed"] for test in tests}
    assert all(rate > found["max_passing_rate"] for rate, passed in latest.items() if not passed)


def test_ends_first_then_midpoints() -> None:
    """Lower, upper, then halves; a failing lower end and a passing upper end say all there is to know."""
    assert [test["rate"] for test in search(2.5)][:4] == [0.25, 4.0, 2.125, 3.0625]
    assert [test["rate"] for test in search(0.1)] == [0.25]
    assert [test["rate"] for test in search(9)] == [0.25, 4.0]


def test_rounds_bound_the_midpoints() -> None:
    """Five rounds are five midpoints beside both ends."""
    assert len(search(0.26)) == 7


@pytest.mark.parametrize("again", [True, False])
def test_a_contradiction_is_repeated_once(again: bool) -> None:
    """A failure below a pass is tested again, once; the second verdict counts."""
    tests = [{"rate": 1.0, "passed": False}, {"rate": 2.0, "passed": True}]
    assert next_rate(tests, 1.0, 2.0) == 1.0
    tests.append({"rate": 1.0, "passed": again})
    assert next_rate(tests, 1.0, 2.0) is None
    found = outcome(tests)
    assert (found["monotone"], found["max_passing_rate"]) == ((True, 2.0) if again else (False, 0))


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (0.0, 1.0), (1.0, 1.0)])
def test_bounds_out_of_order_are_refused(bounds: tuple[float, float]) -> None:
    """They would make every test meaningless."""
    with pytest.raises(ValueError, match="no search between"):
        next_rate([], *bounds)


def result(name: str, status: str = "ok", reason: str = "", **flags: Any) -> dict[str, Any]:
    return {"candidate": name, "flags": flags, "status": status, "reason": reason}


def test_a_framework_is_given_up_when_nothing_became_healthy() -> None:
    """Baseline and all others failed, three in all: the rest is skipped, and the reason names them."""
    tried = [result("baseline", "oom"), result("b", "failed", "crash", x=1), result("c", "timeout", y=1)]
    skipped = to_skip(tried, [result("d", z=1), result("e")])
    assert [skip["candidate"] for skip in skipped] == ["d", "e"]
    assert "baseline: oom" in skipped[0]["reason"]


def test_one_healthy_server_keeps_the_framework() -> None:
    """A candidate that ran, even if it missed the SLA, is hope; two failures are no proof yet."""
    failed = [result(name, "oom", "out of memory") for name in "ab"]
    assert to_skip([result("baseline"), *failed, result("c", "oom")], [result("d")]) == []
    assert to_skip(failed, [result("d")]) == []


def test_a_value_with_three_identical_failures_is_pruned() -> None:
    """Numbers in the reason do not make failures different; other values go on."""
    failed = [result(str(n), "oom", f"out of memory: tried {n} GiB", tp=1, n=n) for n in range(3)]
    waiting = [result("same", tp=1, n=7), result("other", tp=2)]
    (skip,) = to_skip([result("baseline"), *failed], waiting)
    assert skip["candidate"] == "same"
    assert "tp = 1" in skip["reason"]


@pytest.mark.parametrize("spoiler", ["differs", "healthy", "ran with it"])
def test_a_value_is_not_pruned_without_cause(spoiler: str) -> None:
    """Different failures, a success in between, or one with the value itself acquit it."""
    first = result("baseline", tp=1) if spoiler == "ran with it" else result("baseline")
    failed = [result(str(n), "oom", "memory", tp=1) for n in range(3)]
    if spoiler == "differs":
        failed[1] = result("1", "failed", "bad flag", tp=1)
    if spoiler == "healthy":
        failed.insert(1, result("x", tp=2))
    assert to_skip([first, *failed], [result("next", tp=1)]) == []
