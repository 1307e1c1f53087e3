"""How many tests passed is read from what unittest and pytest really print, and fewer than on the base are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sotad.gates import Outcome, own_tests, passed_in

SUITE = """
import unittest
import product

class Own(unittest.TestCase):
    def test_one(self):
        self.assertEqual(product.one(), 1)
    def test_two(self):
        self.assertEqual(product.two(), 2)
    @unittest.skip("not here")
    def test_three(self):
        pass
    @unittest.expectedFailure
    def test_four(self):
        self.fail()
"""
PRODUCT = "def one():\n    return 1\ndef two():\n    return 2\n"
EARLY = "import os, sys\nif 'unittest' in sys.modules or 'pytest' in sys.modules:\n    os._exit(0)\n" + PRODUCT
SKIPS = PRODUCT.replace("return", "import unittest; raise unittest.SkipTest('no'); return")
LOSES_ONE = PRODUCT.replace("return 2", "import unittest; raise unittest.SkipTest('no')")
COMMANDS = {
    "unittest": ["unittest", "test_own"],
    "unittest -q": ["unittest", "-q", "test_own"],
    "unittest -v": ["unittest", "-v", "test_own"],
    "pytest": ["pytest", "-p", "no:cacheprovider"],
    "pytest -q": ["pytest", "-q", "-p", "no:cacheprovider"],
    "pytest in colour": ["pytest", "--color=yes", "-p", "no:cacheprovider"],
}


def outcome(folder: Path, product: str, command: list[str]) -> Outcome:
    """The suite, run on a product: what the gate is told of it."""
    folder.mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_own.py").write_text(SUITE)
    (folder / "product.py").write_text(product)
    argv = [sys.executable, "-B", "-m", *command]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return Outcome(done.returncode, passed_in(f"{done.stdout}\n{done.stderr}"))


@pytest.mark.parametrize(
    "command", [each if each == "unittest" else pytest.param(each, marks=pytest.mark.slow) for each in COMMANDS]
)
def test_cheats_that_end_with_0_are_refused_by_the_number_of_tests(tmp_path: Path, command: str) -> None:
    """Early exit, everything skipped, one test fewer: exit code 0 each, refused each; the same tests pass."""
    base = outcome(tmp_path / "base", PRODUCT, COMMANDS[command])
    assert base == (0, 2)
    assert own_tests(outcome(tmp_path / "same", PRODUCT + "\n", COMMANDS[command]), base).passed
    for product, passed in ((EARLY, None), (SKIPS, 0), (LOSES_ONE, 1)):
        cheat = outcome(tmp_path / "cheat", product, COMMANDS[command])
        assert cheat == (0, passed)
        assert not own_tests(cheat, base).passed


def test_a_command_without_a_summary_is_judged_by_its_exit_code_and_the_gate_says_so(tmp_path: Path) -> None:
    """pytest -qq prints none; both sides alike. A summary that only the patch prints changes nothing."""
    quiet = ["pytest", "-qq", "-p", "no:cacheprovider"]
    base = outcome(tmp_path / "base", PRODUCT, quiet)
    assert base == (0, None)
    gate = own_tests(outcome(tmp_path / "patch", PRODUCT, quiet), base)
    assert gate.passed and "the exit code decides" in gate.detail
    assert not own_tests(Outcome(1, None), base).passed
    assert own_tests(Outcome(0, 5), base).passed


def test_failures_stay_failures_however_many_pass() -> None:
    """More tests passed than on the base, and one failed; and a run that was ended from outside."""
    assert not own_tests(Outcome(1, 9), Outcome(0, 3)).passed
    assert not own_tests(Outcome(None, 9), Outcome(0, 3)).passed
    broken = own_tests(Outcome(1, 2), Outcome(1, 2))
    assert not broken.passed and "on the base they end with 1" in broken.detail


@pytest.mark.parametrize(
    ("log", "passed"),
    [
        ("", None),
        ("Ran 3 tests in 0.001s\n", None),  # ended before it said how they went
        ("Ran 3 tests in 0.001s\n\nFAILED (failures=1, errors=1, skipped=1)\n", 0),
        ("Ran 0 tests in 0.000s\n\nNO TESTS RAN (skipped=2)\n", 0),
        ("no tests ran in 0.01s\n", 0),
        ("== 1 failed, 12 passed, 3 skipped, 2 xfailed, 1 xpassed, 4 warnings in 75.20s (0:01:15) ==\n", 12),
        ("5 passed, 3 subtests passed in 1.00s\n", 5),
        ("Ran 2 tests in 0.1s\n\nOK\n...\n4 passed in 0.20s\n", 6),
        ("12 passed the door in 3s time\n", None),
    ],
)
def test_summaries_are_read_as_they_are_written(log: str, passed: int | None) -> None:
    """Several suites of one command count together; what only resembles a summary is none."""
    assert passed_in(log) == passed
