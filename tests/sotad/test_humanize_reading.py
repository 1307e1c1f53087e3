"""Files of a Humanize loop as its gate reads them: strictly, and whatever is in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.humanize.layout import place
from sotad.humanize.overview import overview
from sotad.humanize.reading import read

NAMES = (
    "state.md",
    "complete-state.md",
    "plan.md",
    "goal-tracker.md",
    "round-0-prompt.md",
    "round-3-contract.md",
    "round-3-summary.md",
    "round-3-review-result.md",
    ".review-phase-started",
    ".methodology-exit-reason",
)
STATE = """---
current_round: 3
max_iterations: 42
codex_model: gpt-5.5
codex_effort: high
codex_timeout: 5400
push_every_round: false
full_review_round: 5
plan_file: docs/plan.md
plan_tracked: false
start_branch: feature/x
base_branch: main
base_commit: 0123456789abcdef
review_started: false
ask_codex_question: true
session_id:
agent_teams: false
privacy_mode: false
bitlesson_required: true
bitlesson_file: .humanize/bitlesson.md
bitlesson_allow_empty_none: true
mainline_stall_count: 1
last_mainline_verdict: stalled
drift_status: normal
started_at: 2026-11-22T08:00:00Z
---
"""


def fields(name: str, text: str) -> dict[str, Any]:
    where = place(name)
    assert where is not None
    return read(where, text)


def result(text: str) -> tuple[str, str, list[str]]:
    found = fields("round-3-review-result.md", text)
    return found["verdict"], found["control"], found["problems"]


def test_a_state_record_is_read_into_its_types() -> None:
    """Every field of the layout, numbers as numbers, truths as truths."""
    found = fields("state.md", STATE)
    assert found["problems"] == []
    assert (found["current_round"], found["max_iterations"], found["plan_tracked"]) == (3, 42, False)
    assert (found["session_id"], found["last_mainline_verdict"]) == ("", "stalled")
    assert len(found) == 24 + 1


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("current_round: 3", "current_round: three", "current_round: 'three' does not fit"),
        ("current_round: 3", "current_round: -1", "current_round: '-1' does not fit"),
        ("current_round: 3", "current_round: 99999999999999999999", "does not fit"),
        ("current_round: 3", "current_round: ٣", "does not fit"),
        ("current_round: 3\n", "", "current_round: is missing"),
        ("base_branch: main", "base_branch:", "base_branch: is missing"),
        ("review_started: false", "review_started: maybe", "review_started: 'maybe' does not fit"),
        ("codex_model: gpt-5.5", "codex_model: gpt; rm -rf /", "codex_model"),
        ("codex_effort: high", "codex_effort: most", "codex_effort"),
        ("full_review_round: 5", "full_review_round: 1", "full_review_round"),
        ("drift_status: normal", "drift_status: normal\ndrift_status: normal", "line 25: drift_status is there twice"),
        ("drift_status: normal", "drift_state: normal", "line 24: drift_state is no field of the state record"),
        ("drift_status: normal", "drift", "line 24: not `name: value`"),
        ("---\ncurrent", "current", "no front matter"),
        ("Z\n---\n", "Z\n", "half a file"),
        ("Z\n---\n", "Z\n---\nand more\n", "line 27: text after the front matter"),
    ],
)
def test_what_does_not_fit_a_state_record_is_named(old: str, new: str, problem: str) -> None:
    """The field, or the line, and its value is not believed."""
    assert old in STATE
    found = fields("state.md", STATE.replace(old, new, 1))
    assert any(problem in each for each in found["problems"]), found["problems"]


def test_other_line_ends_are_read_and_said() -> None:
    """CR LF makes no value another."""
    found = fields("state.md", STATE.replace("\n", "\r\n"))
    assert (found["review_started"], found["problems"]) == (False, ["lines end in CR LF"])


@pytest.mark.parametrize(
    ("text", "verdict", "control"),
    [
        ("Mainline Progress Verdict: ADVANCED", "ADVANCED", ""),
        ("**x** mainline progress verdict:   stalled.\n\nCOMPLETE\n\n", "STALLED", "COMPLETE"),
        ("Mainline Progress Verdict: ADVANCED\nMainline Progress Verdict: REGRESSED\n  STOP  ", "REGRESSED", "STOP"),
        ("Mainline Progress Verdict: ADVANCED\nMainline Progress Verdict: as above", "ADVANCED", ""),
        ("Mainline Progress Verdict: ADVANCED / STALLED / REGRESSED", "", ""),
        ("Mainline Progress Verdict: ADVANCED\nMainline Progress Verdict: STALLED, not ADVANCED", "", ""),
        ("Mainline Progress Verdict: ADVANCEDLY", "", ""),
        ("nothing more can be done\nSTOP", "", "STOP"),
        ("Mainline Progress Verdict: ADVANCED\nCANNOT COMPLETE", "ADVANCED", ""),
        ("Mainline Progress Verdict: ADVANCED\ncomplete", "ADVANCED", ""),
        ("COMPLETE\nMainline Progress Verdict: ADVANCED", "ADVANCED", ""),
    ],
)
def test_verdict_and_control_word(text: str, verdict: str, control: str) -> None:
    """One verdict in the last line that gives one; COMPLETE and STOP only as the whole last line."""
    assert result(text)[:2] == (verdict, control)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("all is done\n\nCOMPLETE\n", "COMPLETE without a verdict"),
        ("Mainline Progress Verdict: ADVANCED or STALLED\nCOMPLETE", "names 2 verdicts"),
        ("Mainline Progress Verdict: pending\nCOMPLETE", "names no verdict"),
        ("looks good to me", "neither a verdict nor a severity"),
        ("Mainline Progress Verdict: ADVANCED\nCANNOT COMPLETE", "COMPLETE and more"),
        ("- [P1] a leak\nMainline Progress Verdict: ADVANCED\nCOMPLETE", "beside findings of P0 or P1"),
        ("", "empty"),
    ],
)
def test_what_only_looks_like_an_end_is_a_problem(text: str, problem: str) -> None:
    """Above all a COMPLETE that somebody put there."""
    assert any(problem in each for each in result(text)[2]), result(text)


def test_findings_count_in_their_first_ten_columns() -> None:
    """Severities P0 to P9, with the lane of their heading and the line; a review of code needs no verdict."""
    text = "# Mainline Gaps\n- [P0] lost\n## Queued Side Issues\n  * [P9] slow\nfar away [P1] no\n[P10] no\n[p1] no\n"
    found = fields("round-3-review-result.md", text)
    assert [(x["severity"], x["lane"], x["line"], x["text"]) for x in found["findings"]] == [
        ("P0", "mainline", 2, "lost"),
        ("P9", "queued", 4, "slow"),
    ]
    assert (found["review"], found["problems"], found["round"]) == ("code", [], 3)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("## BitLesson Delta\n- Action: none\n", "none"),
        ("## BitLesson Delta\n**Action**: Update\n", "update"),
        ("```\n## BitLesson Delta\n- Action: none\n```\n", ""),
        ("<!--\n## BitLesson Delta\n- Action: none\n-->\n", ""),
        ("````\n```\n````\n## BitLesson Delta\n- Action: add\n", "add"),
        ("## BitLesson Delta\n- Action: none|add|update\n", ""),
        ("## BitLesson Delta\n- Action: none\n- Action: add\n", ""),
        ("## BitLesson Delta\n## Next\n- Action: add\n", ""),
    ],
)
def test_a_lesson_delta_stands_outside_fences_and_comments(text: str, action: str) -> None:
    """With exactly one action."""
    found = fields("round-3-summary.md", text)
    assert found["lessons"] == action
    assert bool(found["problems"]) == (action == "")


TRACKER = """# Goal Tracker
## IMMUTABLE SECTION
### Ultimate Goal
win
### Acceptance Criteria
- AC-1: a
- AC-2.1: b
---
## MUTABLE SECTION
#### Active Tasks
| Task | Target AC |
|---|---|
| t | AC-1 |
### Blocking Side Issues
"""


def test_a_tracker_shows_when_its_fixed_part_changes() -> None:
    """Its digest is of the immutable part alone."""
    first = fields("goal-tracker.md", TRACKER)
    worked = fields("goal-tracker.md", TRACKER + "| i | 1 |\n")
    moved = fields("goal-tracker.md", TRACKER.replace("win", "tie"))
    assert (first["criteria"], first["rows"]["active"], first["problems"]) == (["AC-1", "AC-2.1"], 1, [])
    assert first["immutable_sha256"] == worked["immutable_sha256"] != moved["immutable_sha256"]
    assert "no IMMUTABLE SECTION" in fields("goal-tracker.md", "## MUTABLE SECTION\n")["problems"]


def test_a_contract_aims_at_one_or_two_criteria() -> None:
    """More, or none, is a problem."""
    assert fields("round-1-contract.md", "AC-2 and AC-1")["criteria"] == ["AC-1", "AC-2"]
    assert fields("round-1-contract.md", "AC-1 AC-2 AC-3")["problems"]
    assert fields("round-1-contract.md", "no aim")["problems"]


@pytest.mark.parametrize(
    "name", ["round-01-summary.md", "round--1-summary.md", "round-1-summary.md.bak", "State.md", "x-state.md", ""]
)
def test_other_names_are_no_files_of_a_loop(name: str) -> None:
    """Only what the layout names."""
    assert place(name) is None


def test_a_loop_is_told_in_the_order_in_which_it_went() -> None:
    """Plan, rounds with prompt, contract, summary, review, then what came after, the state record last."""
    names = [
        "state.md",
        "round-10-prompt.md",
        "round-2-review-result.md",
        "round-2-summary.md",
        "goal-tracker.md",
        "plan.md",
    ]
    assert sorted(names, key=lambda name: place(name).order) == [  # type: ignore[union-attr]
        "plan.md",
        "round-2-summary.md",
        "round-2-review-result.md",
        "round-10-prompt.md",
        "goal-tracker.md",
        "state.md",
    ]


@given(
    st.sampled_from(NAMES),
    st.text(alphabet=st.sampled_from("-#|[]P0123:\n\r `~<>!COMPLETESTADVNRGmainle"), max_size=200),
)
def test_no_text_is_too_odd_to_be_read(name: str, text: str) -> None:
    """Reading never raises, and an end of the work is never read into what is none."""
    found = fields(name, text)
    assert isinstance(found["problems"], list)
    if found.get("control") == "COMPLETE" and not found["verdict"]:
        assert found["problems"]


def test_what_no_single_file_shows() -> None:
    """Two state records, a result that nobody asked for or from the future, an end without its summary."""
    files = {
        name: fields(name, text)
        for name, text in {
            "state.md": STATE,
            "complete-state.md": STATE,
            "round-9-review-result.md": "Mainline Progress Verdict: ADVANCED\nCOMPLETE",
        }.items()
    }
    found = overview(files)
    said = {(entry["file"], entry["problem"].split(":")[0]) for entry in found["problems"]}
    assert said == {
        ("complete-state.md", "stands beside state.md"),
        ("complete-state.md", "says complete, and no finalize-summary.md is there"),
        ("round-9-review-result.md", "a result of a review that nobody asked for"),
        ("round-9-review-result.md", "is ahead of round 3, which the state record names"),
    }
    assert (found["status"], found["terminal"]) == ("active", None)
