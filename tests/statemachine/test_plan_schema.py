"""A plan is followed only when nothing is wrong with it: what is wrong is said in a line each, and never by a crash."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.plan import (
    FIXED,
    SHAPE,
    TESTS,
    amendment_problems,
    boundary,
    changes,
    criteria,
    forbidden,
    pending,
    problems,
)
from statemachine.plan_template import template
from statemachine.state import Campaign

JSON = dict[str, Any]
SPEC = {
    "frameworks": {"ours": {"role": "target", "paths": ["engine/*"]}, "rival": {"role": "competitor"}},
    "decision": {"tau_pct": 1.0},
    "budget": {"rounds": 3},
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def plan(**parts: Any) -> JSON:
    """The template of a campaign, with parts replaced."""
    campaign = Campaign("demo", spec=SPEC, baseline_digest="e" * 64, winners={"ours/chat": {"candidate": "base"}})
    return {**template(campaign), **parts}


def changed(change: Callable[[JSON], object]) -> JSON:
    """The template after a change in place."""
    found = copy.deepcopy(plan())
    change(found)
    return found


def pending_decision(**more: Any) -> JSON:
    entry = {"id": "DEC-1", "positions": ["eager", "graph"], "tradeoff": "memory for speed", "status": "PENDING"}
    return {**entry, **more}


def test_the_template_is_a_plan_with_the_nine_criteria_of_every_loop() -> None:
    """AC-1 to AC-9, each with a test that passes and one that is refused, and the target's paths as the boundary."""
    found = plan()
    assert problems(found) == []
    assert criteria(found) == [f"AC-{number}" for number in range(1, 10)]
    assert boundary(found) == ["engine/*"]
    assert set(TESTS) <= set(forbidden(found))
    assert json.loads(json.dumps(found)) == found


def test_two_templates_share_nothing_that_can_be_changed() -> None:
    """A change of one campaign's plan in memory is not seen in another's."""
    first = plan()
    first["criteria"][0]["positive_tests"].append("x")
    first["tasks"][0]["depends_on"].append("x")
    assert problems(plan()) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda p: p.pop("tasks"), "tasks: is missing"),
        (lambda p: p.update(estimate="2"), "the plan: 'estimate' is no key of it"),
        (lambda p: p.update(goal="  "), "goal: must be a text that is not empty"),
        (lambda p: p.update(rounds=True), "rounds: must be a whole number of at least 1"),
        (lambda p: p.update(criteria=[]), "criteria: needs at least 1 entry"),
        (lambda p: p["criteria"][0].update(positive_tests=[]), "criteria[0].positive_tests: needs at least 1 entry"),
        (lambda p: p["criteria"][0].update(negative_tests=[]), "criteria[0].negative_tests: needs at least 1 entry"),
        (lambda p: p["criteria"][0].update(negative_tests=[" "]), "criteria[0].negative_tests[0]: must be a text"),
        (lambda p: p["criteria"][0].update(id="AC-01"), "criteria[0].id: must be a name such as AC-1 or AC-1.2"),
        (lambda p: p["criteria"][1].update(id="AC-1"), "criteria: AC-1 is there more than once"),
        (lambda p: p["tasks"][0]["criteria"].append("AC-42"), "tasks T-1: criterion AC-42 is not in the plan"),
        (lambda p: p["tasks"][0].update(criteria=["AC-1"]), "criteria: no task is about AC-2"),
        (lambda p: p["tasks"][0].update(tag="hacking"), "tasks[0].tag: must be one of coding, analyze"),
        (lambda p: p["tasks"][1].update(id="T-1"), "tasks: T-1 is there more than once"),
        (lambda p: p["tasks"][0].update(depends_on=["T-99"]), "tasks T-1: depends_on T-99 is not in the plan"),
        (lambda p: p["tasks"][0].update(depends_on=["T-1"]), "tasks: T-1, T-2, T-3, T-4, T-5, T-6 depend on each"),
        (lambda p: p["milestones"][0].update(depends_on=["M-3"]), "milestones: M-1, M-2, M-3 depend on each other"),
        (lambda p: p["milestones"][0].update(tasks=["T-9"]), "milestones M-1: task T-9 is not in the plan"),
        (lambda p: p["boundary"].update(may_change=[]), "boundary.may_change: needs at least 1 entry"),
        (lambda p: p["boundary"]["may_not_change"].remove("tests/*"), "boundary.may_not_change: tests are to be named"),
        (lambda p: p["milestones"][0].update(text="Done in 2 days"), "milestones M-1: '2 days' is an estimate of time"),
        (lambda p: p["hints"].append("CMT: why? ENDCMT"), "hints[3]: a comment (CMT: … ENDCMT) is left in it"),
        (lambda p: p.update(draft="a\n<cmt>why?</cmt>"), "draft: a comment"),
        (lambda p: p.update(goal="[To be determined]"), "goal: a placeholder '[To be …' is left in it"),
        (lambda p: p["deliberation"].update(status="maybe"), "deliberation.status: must be one of converged"),
        (lambda p: p.update(pending_decisions=[pending_decision(positions=["one"])]), "pending_decisions[0].positions"),
        (lambda p: p.update(pending_decisions=[pending_decision(id="D-1")]), "pending_decisions[0].id: must be a name"),
    ],
)
def test_each_mistake_is_one_line_that_names_its_place(change: Callable[[JSON], object], line: str) -> None:
    """Place first, then what is wrong."""
    found = problems(changed(change))
    assert any(entry.startswith(line) for entry in found), found


@pytest.mark.parametrize(
    "pattern",
    ["/etc/passwd", "~/x", "../x", "a/../b", "..", "C:/x", "a\\b", " a", "a\n", "a\0b"],
)
@pytest.mark.parametrize("part", ["may_change", "may_not_change"])
def test_a_path_stays_in_the_checkout(part: str, pattern: str) -> None:
    """Absolute paths, ways up and odd characters are refused."""
    found = problems(changed(lambda p: p["boundary"][part].append(pattern)))
    assert [line for line in found if line.startswith(f"boundary.{part}:") and "inside the checkout" in line]


@pytest.mark.parametrize(
    ("pattern", "admits"),
    [
        *(
            (pattern, True)
            for pattern in ("tests/*", "a/test/b.py", "**/test_*.py", "x_test.py", "conftest.py", "Tests/a")
        ),
        *((pattern, False) for pattern in ("**", "latest/*", "contest.py", "a/attest/b.py", "src/*.py", "a..b/c")),
    ],
)
def test_no_pattern_names_tests(pattern: str, admits: bool) -> None:
    """Tests are not to be changed by a patch that they judge; a wildcard is cut by may_not_change."""
    found = problems(changed(lambda p: p["boundary"]["may_change"].append(pattern)))
    assert bool([line for line in found if "admits tests" in line]) == admits
    assert bool(found) == admits


@pytest.mark.parametrize(
    ("text", "estimate"),
    [
        *(
            (text, True)
            for text in ("2 days", "takes 3-4 weeks", "half a day", "an hour", "ETA: soon", "two person-days")
        ),
        *((text, True) for text in ("1.5h of work", "a couple of months", "10-minute job")),
        *(
            (text, False)
            for text in ("TTFT below 200 ms", "a 3D tensor", "two kernels", "today's winner", "a month-old PR")
        ),
        *((text, False) for text in ("30 s of traffic", "an hourglass", "beta", "one pass a round")),
    ],
)
def test_tasks_estimate_no_time(text: str, estimate: bool) -> None:
    """What has to be done before what is a plan; how long it takes is not."""
    assert bool(problems(changed(lambda p: p["tasks"][0].update(text=text)))) == estimate


def test_a_decision_is_pending_until_it_says_what_was_decided() -> None:
    """The status is the word PENDING, or the decision."""
    assert pending(plan(pending_decisions=[pending_decision(), pending_decision(id="DEC-2", status="eager")])) == [
        "DEC-1"
    ]
    assert problems(plan(pending_decisions=[pending_decision()])) == []


@given(ANYTHING)
def test_whatever_it_is_given_it_answers_in_lines(value: Any) -> None:
    """No JSON value makes it raise, and nothing but a plan passes."""
    found = problems(value)
    assert found
    assert all(line and "\n" not in line for line in found)


@given(st.data(), ANYTHING)
def test_a_plan_with_any_part_replaced_is_judged_without_a_crash(data: st.DataObject, value: Any) -> None:
    """Any value at any place of a plan is refused in lines, or is as good as what was there."""
    found = copy.deepcopy(plan())
    place: Any = found
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = value
    lines = problems(found)
    assert all("\n" not in line for line in lines)
    if not lines:
        assert found.keys() == SHAPE.keys()
        assert criteria(found)
        assert boundary(found)
        assert pending(found) == []


@given(st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 6), max_size=4), min_size=1))
def test_dependencies_are_refused_exactly_when_they_run_in_a_circle(graph: dict[int, set[int]]) -> None:
    """As walking along them from each task says."""
    needs = {task: before & graph.keys() for task, before in graph.items()}
    tasks = [
        {"id": f"T-{task}", "text": "do", "criteria": ["AC-1"], "tag": "coding"}
        | {"depends_on": [f"T-{other}" for other in sorted(before)]}
        for task, before in needs.items()
    ]
    first = plan()["criteria"][:1]
    milestone = {"id": "M-1", "text": "done", "tasks": [tasks[0]["id"]], "depends_on": []}
    found = problems(plan(criteria=first, tasks=tasks, milestones=[milestone]))
    assert bool(found) == any(task in _reached(needs, before) for task, before in needs.items())


def _reached(needs: dict[int, set[int]], start: set[int]) -> set[int]:
    seen: set[int] = set()
    todo = list(start)
    while todo:
        if (task := todo.pop()) not in seen:
            seen.add(task)
            todo += needs[task]
    return seen


# --- amendments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", FIXED)
def test_an_amendment_cannot_move_the_measure_of_success(key: str) -> None:
    """Goal, draft, baseline, decision rule and rounds are those of the first plan."""
    other = {"goal": "less", "draft": "x", "rounds": 9, "decision": {"tau_pct": 50.0}}
    new = plan(**{key: other.get(key, {"digest": "f" * 64, "winners": {}})})
    assert amendment_problems(plan(), new) == [f"{key}: an amendment cannot change it"]


def test_an_amendment_changes_something_and_is_a_plan() -> None:
    """The same plan, a broken one, and one that opens a decision are refused; another hint is not."""
    old = plan()
    assert amendment_problems(old, plan()) == ["nothing in it differs from the plan in force"]
    assert amendment_problems(old, {"goal": "x"})[0] == "criteria: is missing"
    assert amendment_problems(old, None) != []
    assert "DEC-1 is PENDING" in amendment_problems(old, plan(pending_decisions=[pending_decision()]))[0]
    assert amendment_problems(old, plan(hints=["look at the cache"])) == []


def test_what_an_amendment_takes_away_is_said() -> None:
    """A criterion does not go silently: the person who approves reads which."""
    old, new = plan(), plan()
    del new["criteria"][5]
    new["criteria"][0]["text"] = "other"
    new["tasks"][3]["criteria"] = ["AC-5"]
    new["boundary"]["may_change"] = ["engine/cache/*"]
    assert amendment_problems(old, new) == []
    assert changes(old, new) == [
        "criterion AC-6 is removed",
        "criterion AC-1 changes",
        "boundary.may_change changes",
        "task T-4 changes",
    ]
