"""The gates as functions: facts in, a verdict with its reason out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sotad.gates import GATES, Change, Facts, evaluate
from sotad.gates.commit import tests_named as named_tests
from statemachine.loop import COMMIT_GATES

FINE = Facts(
    base="a" * 40,
    commit="b" * 40,
    builds_on=True,
    branch="sotad/c-a1",
    on="sotad/c-a1",
    changes=[Change("engine/work.py", lines=3, size=90, before=80)],
    allowed=[["engine/*"], ["engine/w*", "engine/x*"]],
    forbidden=["tests/*", "*/tests/*"],
    claimed=["engine/work.py"],
    confinement="writes outside were refused by the kernel (Landlock 7)",
)


def refused(**changes: Any) -> dict[str, str]:
    """Gates that refuse the facts, with what they say."""
    return {gate.gate: gate.detail for gate in evaluate(dataclasses.replace(FINE, **changes)) if not gate.passed}


def test_the_gates_are_those_of_the_machine_in_its_order() -> None:
    """The machine waits for exactly these; each is a function of its own name and says what would satisfy it."""
    assert tuple(gate.__name__ for gate in GATES) == COMMIT_GATES
    found = evaluate(FINE)
    assert tuple(gate.gate for gate in found) == COMMIT_GATES
    assert all(gate.passed and gate.detail and gate.satisfy for gate in found)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"commit": FINE.base}, "no commit on top of the champion"),
        ({"builds_on": False}, "history was rewritten"),
        ({"trouble": "an object is missing"}, "an object is missing"),
    ],
)
def test_a_commit_that_is_none_is_refused(changes: dict[str, Any], says: str) -> None:
    """None, one beside the champion and one that cannot be read are told apart."""
    assert says in refused(**changes)["commit_exists"]


def test_what_is_uncommitted_is_named() -> None:
    """The first few by name, the others by number."""
    assert refused(dirty=[f"f{n}" for n in range(9)]) == {
        "clean_tree": "uncommitted changes: f0, f1, f2, f3, f4 and 4 more"
    }


@pytest.mark.parametrize(
    ("path", "within"),
    [
        ("engine/work.py", True),
        ("engine/deep/er.py", False),  # inside the framework's paths, outside of the plan's
        ("engine/x/deep.py", True),
        ("engine/x/tests/a.py", False),
        ("other/w.py", False),
        ("../engine/work.py", False),
    ],
)
def test_a_file_has_to_be_inside_every_boundary(path: str, within: bool) -> None:
    """The plan's boundary narrows the framework's, and what is forbidden is out in both."""
    found = refused(changes=[Change(path)], claimed=[path])
    assert found == ({} if within else {"path_boundary": f"not allowed: {path}"})


def test_a_file_that_was_changed_and_changed_back_counts() -> None:
    """Every commit is looked at, not only what is left of them; the summary is held to what is left."""
    assert refused(changes=[*FINE.changes, Change("other.py", net=False)]) == {"path_boundary": "not allowed: other.py"}
    nothing = [Change("engine/work.py", net=False)]
    assert refused(changes=nothing, claimed=[]) == {"path_boundary": "no file changed"}


def test_a_link_is_outside_of_every_boundary() -> None:
    """What it leads to is in no commit."""
    assert refused(links=["engine/work.py"]) == {"path_boundary": "not allowed: engine/work.py, a link"}


def test_the_summary_is_compared_both_ways() -> None:
    """A file that is not named and a name that is no changed file are both said."""
    says = refused(claimed=["engine/other.py"])["files_as_claimed"]
    assert says == "changed but not named: engine/work.py; named but not changed: engine/other.py"


def test_surroundings_are_told_as_they_were_found() -> None:
    """Harness, refs and processes each have a gate; the boundary tells, and refuses nobody."""
    assert refused(moved=["the checkout of fork"]) == {"harness_untouched": "changed: the checkout of fork"}
    assert refused(refs=["refs/tags/v1 is new in /r"]) == {"refs_untouched": "refs/tags/v1 is new in /r"}
    assert refused(alive=["12 sleep"]) == {"nothing_left_running": "still running: 12 sleep"}
    last = evaluate(dataclasses.replace(FINE, confinement="", unconfined="no Landlock"))[-1]
    assert (last.gate, last.passed, last.detail) == ("inside_worktree", True, "not enforced: no Landlock")


def test_what_a_test_command_names_is_a_test() -> None:
    """Modules and files, with or without a test's name in them; no options, no folders."""
    assert named_tests(["-m", "unittest", "-q", "engine.own"]) == ["engine/own.py"]
    assert named_tests(["-m", "pytest", "checks/a.py::test_b", "engine"]) == ["checks/a.py"]
