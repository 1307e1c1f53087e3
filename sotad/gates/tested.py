"""The gate on the target's tests: the daemon ran them, and as many passed as on the commit that the loop began at.

An exit code alone is the word of the code that is tested: it can end its process early, or have its tests skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sotad.gates.facts import Gate, count

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
UNITTEST = re.compile(r"^Ran (\d+) tests? in \S+s\n\n(?:OK|FAILED|NO TESTS RAN)(?: \((.*)\))?$", re.MULTILINE)
PYTEST = re.compile(
    r"^(?:=+ )?((?:\d+ [a-z ]+, )*\d+ [a-z ]+|no tests ran) in \d[\d.]*s(?: \([\d:]+\))?(?: =+)?$", re.MULTILINE
)
NOT_PASSED = re.compile(r"(?:failures|errors|skipped|expected failures|unexpected successes)=(\d+)")
PASSED = re.compile(r"(?:^|, )(\d+) passed\b")


class Outcome(NamedTuple):
    """A run of the tests: how it ended, and how many passed by its own summaries; None when it printed none."""

    exit_code: int | None
    passed: int | None


def passed_in(log: str) -> int | None:
    """How many tests passed by the summaries of unittest and pytest in a log, together; None without a summary.

    Skipped tests and expected failures did not pass. The lines are those of CPython's ``unittest.TextTestRunner`` and
    of pytest's terminal reporter.
    """
    found = list(_summaries(COLOURS.sub("", log).replace("\r\n", "\n")))
    return sum(found) if found else None


def _summaries(log: str) -> Iterator[int]:
    for ran, rest in UNITTEST.findall(log):
        yield max(0, int(ran) - sum(map(int, NOT_PASSED.findall(rest))))
    for summary in PYTEST.findall(log):
        yield sum(map(int, PASSED.findall(summary)))


def own_tests(run: Outcome, base: Outcome) -> Gate:
    """They end with 0, and no fewer pass than on the base; where its run printed no summary the exit code decides."""
    fewer = base.passed is not None and (run.passed is None or run.passed < base.passed)
    ended = "no end of their own" if run.exit_code is None else f"exit code {run.exit_code}"
    if base.passed is None:
        counted = "not counted: on the base they print no summary of unittest or pytest, so the exit code decides"
    else:
        counted = f"{_tests(run)} passed, {base.passed} on the base"
    detail = f"{ended}; {counted}" + (f"; on the base they end with {base.exit_code}" if base.exit_code else "")
    satisfy = "the target's own tests pass, no fewer than on the base"
    return Gate("tests", run.exit_code == 0 and not fewer, detail, satisfy)


def _tests(run: Outcome) -> str:
    return "no summary of what" if run.passed is None else count(run.passed, "test")
