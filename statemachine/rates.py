"""The highest request rate that meets the SLA, by bisection. Rates in requests per second.

A test is ``{"rate": float, "passed": bool}``, listed in the order in which they were made; of two tests of one rate the
later one counts. Order: ``lower``, ``upper``, then midpoints. A server that passes at a rate above one that it
failed is asked once more at the failed rate before that is believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

Test: TypeAlias = Mapping[str, Any]


class Outcome(TypedDict):
    """``ge``: no tested rate was too high. ``lt``: none was low enough, the rate is 0. ``exact``: in between.

    ``lowest_failing_rate`` bounds it from above, None when there is none.
    """

    max_passing_rate: float
    lowest_failing_rate: float | None
    bound: Literal["ge", "lt", "exact"]
    monotone: bool


def next_rate(
    tests: Sequence[Test], lower: float, upper: float, tolerance: float = 0.1, max_rounds: int = 5
) -> float | None:
    """The rate to test next, or None when the search is over.

    ``max_rounds`` bounds the midpoints; the two ends and the one repeat come on top of them.

    Raises:
        ValueError: the bounds are not in order, or a test's rate is no positive number.
    """
    if not 0 < lower < upper or tolerance <= 0 or max_rounds < 0:
        raise ValueError(f"no search between {lower} and {upper} with tolerance {tolerance} and {max_rounds} rounds")
    verdicts = _verdicts(tests)
    if (doubtful := _doubtful(tests)) is not None:
        return doubtful
    for end, over in ((lower, False), (upper, True)):
        if end not in verdicts:
            return end
        if verdicts[end] is over:
            return None
    low, high = _bracket(verdicts)
    rounds = len(verdicts.keys() - {lower, upper})
    middle = (low + high) / 2
    if high - low <= tolerance * low or rounds >= max_rounds or not low < middle < high:
        return None
    return middle


def outcome(tests: Sequence[Test]) -> Outcome:
    """What the tests made so far say.

    Where they contradict each other even after the repeat, only rates below every failure count.

    Raises:
        ValueError: there is no test, or a test's rate is no positive number.
    """
    verdicts = _verdicts(tests)
    if not verdicts:
        raise ValueError("no rate was tested")
    low, high = _bracket(verdicts)
    failing = None if high == float("inf") else high
    bound: Literal["ge", "lt", "exact"] = "lt" if low == 0 else "ge" if failing is None else "exact"
    monotone = not any(passed and rate > high for rate, passed in verdicts.items())
    return {"max_passing_rate": low, "lowest_failing_rate": failing, "bound": bound, "monotone": monotone}


def _verdicts(tests: Sequence[Test]) -> dict[float, bool]:
    verdicts = {float(test["rate"]): bool(test["passed"]) for test in tests}
    wrong = [rate for rate in verdicts if not 0 < rate < float("inf")]
    if wrong:
        raise ValueError(f"a rate must be a positive number, not {wrong[0]}")
    return verdicts


def _bracket(verdicts: Mapping[float, bool]) -> tuple[float, float]:
    """The highest passing rate below every failure (0 without one), and the lowest failing one (or infinity)."""
    high = min((rate for rate, passed in verdicts.items() if not passed), default=float("inf"))
    return max((rate for rate, passed in verdicts.items() if passed and rate < high), default=0.0), high


def _doubtful(tests: Sequence[Test]) -> float | None:
    """The lowest rate that failed although a higher one passed, unless a rate was repeated already."""
    if max(Counter(float(test["rate"]) for test in tests).values(), default=0) > 1:
        return None
    verdicts = _verdicts(tests)
    low = min((rate for rate, passed in verdicts.items() if not passed), default=None)
    return low if low is not None and any(passed and rate > low for rate, passed in verdicts.items()) else None
