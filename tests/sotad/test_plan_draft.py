"""A draft is read with care, and what it says under its headings is in the plan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.config.rules.plan import plan_rules
from sotad.plan import compose
from sotad.plan.document import markdown
from sotad.plan.draft import MAX_BYTES, BadDraft, content_lines, criteria, goal, read_draft
from statemachine.plan import WRITTEN, problems
from statemachine.state import Campaign

JSON = dict[str, Any]
SPEC = {
    "frameworks": {"ours": {"role": "target", "paths": ["engine/*"]}, "rival": {"role": "competitor"}},
    "workload": {"scenarios": [{"name": "chat"}]},
    "sla": {"min_success_rate": 1.0},
    "decision": {"tau_pct": 1.0},
    "budget": {"rounds": 3},
}
DRAFT = """\
# Faster decode

Some words before.

## Non-Goals

Prefill.

```
## Goal
not this one
```

## 1. Goal Description

Decode as fast as the rival does
at every batch size.

Another paragraph.

## Acceptance Criteria

<!-- - a hidden one -->
- AC-1: No extra copies in the decode step
  - Positive Tests (expected to pass):
    - a step copies nothing to the host
  - Negative Tests (expected to fail):
    - a step that copies is refused
- [ ] **AC-2**: Memory stays below the rival's
  - why: it is scarce

### Later

1. Documented

## Notes

- no criterion
"""


def campaign() -> Campaign:
    return Campaign("demo", spec=SPEC, baseline_digest="e" * 64, winners={"ours/chat": {"candidate": "base"}})


def written(folder: Path, data: bytes | str) -> Path:
    path = folder / "draft.md"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_a_draft_is_read_as_it_stands(tmp_path: Path) -> None:
    """But for a byte order mark, to the last byte."""
    assert read_draft(written(tmp_path, DRAFT)) == DRAFT
    assert read_draft(written(tmp_path, b"\xef\xbb\xbf" + DRAFT.encode())) == DRAFT


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "says too little: 0 lines"),
        ("# a\n\n\n\n\n## b\n", "0 of them with content"),
        ("<!--\na\nb\nc\nd\ne\n-->\nx\ny\n", "2 of them with content"),
        ("a\nb\nc\nd\n", "4 lines"),
        (b"a\nb\nc\0\nd\ne\n", "NUL byte at 5"),
        (b"a\nb\nc\xff\nd\ne\n", "not UTF-8 at byte 5"),
        ("a\r\nb\r\nc\r\nd\r\ne\r\n", "carriage returns"),
        (b"a\n" * MAX_BYTES, "is larger than"),
    ],
)
def test_what_no_plan_can_be_made_of_is_refused(tmp_path: Path, data: bytes | str, said: str) -> None:
    """With the file's name, what is wrong, and what to do."""
    path = written(tmp_path, data)
    with pytest.raises(BadDraft) as refused:
        read_draft(path)
    assert str(path) in str(refused.value)
    assert said in str(refused.value)
    assert refused.value.next


def test_only_a_file_of_its_own_is_read(tmp_path: Path) -> None:
    """No link, folder or pipe, and nothing that is not there; a pipe without a writer does not hang it."""
    written(tmp_path, DRAFT)
    (tmp_path / "link").symlink_to("draft.md")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("link", "symbolic link"), ("pipe", "no regular file"), ("nope", "No such file")):
        with pytest.raises(BadDraft, match=said):
            read_draft(tmp_path / name)
    with pytest.raises(BadDraft):
        read_draft(tmp_path)


def test_goal_and_criteria_come_from_their_sections() -> None:
    """Headings in fences, comments and negations are none; nested tests belong to their criterion."""
    assert goal(DRAFT) == "Decode as fast as the rival does at every batch size."
    assert criteria(DRAFT) == [
        {
            "text": "No extra copies in the decode step",
            "positive_tests": ["a step copies nothing to the host"],
            "negative_tests": ["a step that copies is refused"],
        },
        {"text": "Memory stays below the rival's", "positive_tests": [], "negative_tests": []},
        {"text": "Documented", "positive_tests": [], "negative_tests": []},
    ]


def test_without_sections_the_first_paragraph_is_the_goal() -> None:
    """And there are no criteria beyond those of every loop."""
    assert goal("# Title\n\nMake it fast\nand small.\n\nMore.\n") == "Make it fast and small."
    assert criteria("# Title\n\n- a\n") == []
    assert criteria("# Requirements\n\nIt runs.\n\nIt is\nfast.\n") == [
        {"text": "It runs.", "positive_tests": [], "negative_tests": []},
        {"text": "It is fast.", "positive_tests": [], "negative_tests": []},
    ]


def test_a_plan_of_a_draft_is_valid_and_holds_the_draft() -> None:
    """Its criteria follow those of every loop, with a task about them; the draft is appended verbatim."""
    plan = compose.from_draft(campaign(), DRAFT)
    assert problems(plan) == []
    assert plan["goal"].startswith("Decode as fast")
    assert [(c["id"], c["text"]) for c in plan["criteria"][9:]] == [
        ("AC-10", "No extra copies in the decode step"),
        ("AC-11", "Memory stays below the rival's"),
        ("AC-12", "Documented"),
    ]
    assert plan["tasks"][-1]["criteria"] == ["AC-10", "AC-11", "AC-12"]
    assert plan["criteria"][9]["negative_tests"] == ["a step that copies is refused"]
    document = markdown(plan)
    assert document.endswith("## Original Draft\n\n" + DRAFT)
    assert "| T-7 | Meet what the draft asks for beyond the criteria of every loop. | AC-10, AC-11, AC-12 |" in document


LINES = st.sampled_from(
    (
        *("# Goal", "## Acceptance", "### Requirements", "## Purpose of it", "#", "```", "~~~~", "<!--", "-->", ""),
        *(
            "- a",
            "  - Positive Tests:",
            "    - b",
            "    - e",
            "1. c",
            "- AC-3: d",
            "- **",
            "\t- f",
            "words",
            "| a | b |",
        ),
    )
)


@given(st.lists(LINES | st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12), max_size=30))
def test_any_draft_makes_a_valid_plan(lines: list[str]) -> None:
    """Whatever its structure: only a comment or placeholder left in it is told, in words."""
    draft = "\n".join(lines)
    found = problems(compose.from_draft(campaign(), draft))
    assert all("a comment" in line or "a placeholder" in line for line in found), found
    assert content_lines(draft) <= len(draft.splitlines())
    assert markdown(compose.from_draft(campaign(), draft)) == markdown(compose.from_draft(campaign(), draft))


def test_an_agents_plan_keeps_the_criteria_of_every_loop() -> None:
    """It can neither drop nor reword them, nor say what was measured; the rest is its own."""
    answer = {key: value for key, value in compose.from_draft(campaign(), "").items() if key in WRITTEN}
    own = {"id": "AC-10", "text": "own", "positive_tests": ["p"], "negative_tests": ["n"]}
    answer["criteria"] = [{**answer["criteria"][0], "text": "anything goes"}, own]
    answer["tasks"][0]["criteria"] += ["AC-10"]
    answer["boundary"] = {**answer["boundary"], "may_not_change": ["docs/*"]}
    plan = compose.from_agent(campaign(), DRAFT, {**answer, "rounds": 999, "baseline": {}, "draft": "mine"})
    assert problems(plan) == []
    assert [criterion["id"] for criterion in plan["criteria"]] == [f"AC-{number}" for number in range(1, 11)]
    assert plan["criteria"][0]["text"] != "anything goes"
    assert (plan["rounds"], plan["draft"], plan["baseline"]["digest"]) == (3, DRAFT, "e" * 64)
    assert "docs/*" in plan["boundary"]["may_not_change"]


@pytest.mark.parametrize("answer", [{}, {"criteria": 3, "boundary": []}, {"criteria": ["x", None], "goal": "g"}])
def test_an_agents_answer_that_is_no_plan_is_told_what_it_lacks(answer: JSON) -> None:
    """Nothing is mended: the problems go back to it."""
    assert len(problems(compose.from_agent(campaign(), "", answer))) > 3


def test_the_schema_for_agents_says_what_the_validator_checks() -> None:
    """Every key that an agent writes, none that the daemon adds; each object closed, each of its keys required."""

    def closed(schema: JSON) -> bool:
        inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
        whole = schema["type"] != "object" or set(schema["required"]) == set(schema["properties"])
        return whole and schema.get("additionalProperties", False) is False and all(closed(each) for each in inner)

    schema = compose.schema()
    assert set(schema["properties"]) == set(WRITTEN)
    assert closed(schema)
    assert schema["properties"]["tasks"]["items"]["properties"]["tag"]["enum"] == ["coding", "analyze"]


def test_a_decision_of_a_person_is_written_into_the_plan_that_is_shown() -> None:
    """By its subject; decisions without an answer stay pending."""
    entry = {"id": "DEC-1", "positions": ["eager", "graph"], "tradeoff": "memory", "status": "PENDING"}
    plan = {**compose.from_draft(campaign(), ""), "pending_decisions": [entry, {**entry, "id": "DEC-2"}]}
    shown = compose.decided(plan, {"question:DEC-1": {"answer": "graph"}})
    assert [found["status"] for found in shown["pending_decisions"]] == ["DECIDED: graph", "PENDING"]
    assert compose.question(plan, "DEC-2") == "DEC-2: eager | or: graph | what it costs: memory"


def test_what_the_plan_will_need_is_told_before_the_campaign_starts() -> None:
    """Paths that cannot be a boundary, and a writer that cannot write: hours before the plan is made."""
    spec = {**SPEC, "plan": {"source": "template"}, "implementer": {"driver": "scripted"}}
    assert list(plan_rules(spec)) == []
    target = {"role": "target", "paths": ["engine/*", "/etc/*", "test/*"]}
    found = plan_rules({**spec, "frameworks": {"ours": target}, "plan": {"source": "agent"}})
    assert [(each.key, each.level) for each in found] == [
        ("frameworks.ours.paths", "error"),
        ("frameworks.ours.paths", "error"),
        ("plan.source", "error"),
    ]
