"""The plan that a loop starts with: from the template, a draft or an agent, on record, valid, and with nothing open."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from plan_rig import Planning, opened, play

from sotad.activities.context import ActivityFailed
from sotad.activities.plan import write_plan
from sotad.plan.compose import from_draft
from statemachine.evidence import digest
from statemachine.plan import WRITTEN, problems

JSON = dict[str, Any]
OPERATOR = "operator:uid=1"
DRAFT = "# Faster\n\n## Goal\n\nDecode twice as fast.\n\n## Acceptance\n\n- no copies\n- no syncs\n"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Planning]:
    async with opened(tmp_path / "state") as found:
        yield found


def answer(rig: Planning, **parts: Any) -> JSON:
    """What an agent may answer: the template's parts, some replaced."""
    return {key: value for key, value in from_draft(rig.c, "").items() if key in WRITTEN} | parts


def decision(**more: Any) -> JSON:
    entry = {"id": "DEC-1", "positions": ["eager", "graph"], "tradeoff": "memory", "status": "PENDING"}
    return {**entry, **more}


async def test_the_template_is_recorded_and_the_loop_starts_with_its_digest(rig: Planning) -> None:
    """First the plan, then the start; the document and the data are artifacts."""
    await play(rig)
    assert await write_plan(await rig.context()) == rig.c.plan["digest"]
    recorded, started = rig.events("plan.recorded", "loop.started")
    assert (recorded.type, recorded.payload["version"], recorded.payload["source"]) == ("plan.recorded", 1, "template")
    assert problems(recorded.payload["plan"]) == []
    assert digest(recorded.payload["plan"]) == started.payload["plan_digest"] == rig.c.plan_digest
    assert recorded.payload["plan"]["baseline"] == {"digest": rig.c.baseline_digest, "winners": rig.c.winners}
    read = rig.driver.artifacts.read
    assert read(recorded.payload["document"]["sha256"]).startswith(b"# Plan\n\n## Goal Description\n")
    assert json.loads(read(started.payload["plan"]["sha256"])) == recorded.payload["plan"]
    assert rig.c.phase == "round.gap"


async def test_an_attempt_that_is_entered_again_repeats_nothing(rig: Planning) -> None:
    """The daemon may die anywhere; the second entry finds what the first recorded."""
    await play(rig)
    context = await rig.context()
    first = await write_plan(context)
    assert await write_plan(context) == first
    assert len(rig.events("plan.recorded", "loop.started")) == 2


async def test_a_draft_gives_goal_and_criteria(rig: Planning, tmp_path: Path) -> None:
    """And is in the plan as it stands."""
    (tmp_path / "draft.md").write_text(DRAFT)
    await play(rig, draft=str(tmp_path / "draft.md"))
    await write_plan(await rig.context())
    plan = rig.c.plan["plan"]
    assert (plan["goal"], plan["criteria"][-2]["text"], plan["draft"]) == ("Decode twice as fast.", "no copies", DRAFT)


@pytest.mark.parametrize("text", [None, "too\nshort\n", DRAFT + "\nCMT: really? ENDCMT\n"])
async def test_a_draft_of_which_no_plan_can_be_made_fails_the_attempt(
    rig: Planning, tmp_path: Path, text: str | None
) -> None:
    """With the reason; nothing is recorded as a plan."""
    if text is not None:
        (tmp_path / "draft.md").write_text(text)
    await play(rig, draft=str(tmp_path / "draft.md"))
    with pytest.raises(ActivityFailed, match="plan"):
        await write_plan(await rig.context())
    assert rig.events("plan.recorded", "loop.started") == []


async def test_a_secret_in_a_draft_does_not_reach_the_plan(
    rig: Planning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken out before the digest is made, so that the recorded plan still has the digest it says."""
    monkeypatch.setenv("MY_API_KEY", "abcdefghijklmnop0123456789")
    (tmp_path / "draft.md").write_text(DRAFT + "\nUse abcdefghijklmnop0123456789 for the hub.\n")
    await play(rig, draft=str(tmp_path / "draft.md"))
    await write_plan(await rig.context())
    assert "abcdefghijklmnop0123456789" not in json.dumps(rig.c.plan)
    assert digest(rig.c.plan["plan"]) == rig.c.plan["digest"]


async def test_an_agent_writes_the_plan_from_the_draft(rig: Planning, tmp_path: Path) -> None:
    """It is asked once, with the draft and what is frozen; its plan is recorded as its own."""
    (tmp_path / "draft.md").write_text(DRAFT)
    await play(rig, source="agent", draft=str(tmp_path / "draft.md"), implementer=rig.agent({}))
    rig.agent(answer(rig, hints=["look at the cache"]))
    await write_plan(await rig.context())
    assert rig.c.plan["source"] == "agent:command"
    assert rig.c.plan["plan"]["hints"] == ["look at the cache"]
    (asked,) = map(json.loads, rig.asked.read_text().splitlines())
    assert (asked["action"], asked["draft"], asked["may_change_within"]) == ("plan", DRAFT, ["engine/*"])
    assert asked["baseline"]["digest"] == rig.c.baseline_digest
    assert [event.payload["role"] for event in rig.events("agent.finished")] == ["planner"]


async def test_an_agent_is_told_what_was_wrong_with_its_plan(rig: Planning) -> None:
    """A plan with problems fails the attempt; the next one is asked with those lines."""
    await play(rig, source="agent", implementer=rig.agent({}))
    good = answer(rig)
    rig.agent({**good, "boundary": {**good["boundary"], "may_change": ["/etc/*"]}}, good)
    with pytest.raises(ActivityFailed, match=r"boundary\.may_change: '/etc/\*' must be a path inside the checkout"):
        await write_plan(await rig.context())
    assert rig.events("plan.recorded") == []
    await write_plan(await rig.context())
    first, second = map(json.loads, rig.asked.read_text().splitlines())
    assert first["problems"] == ""
    assert "'/etc/*' must be a path inside the checkout" in second["problems"]
    assert rig.c.phase == "round.gap"


async def test_a_pending_decision_becomes_a_question_and_holds_the_loop(rig: Planning) -> None:
    """The plan is on record, the loop starts only once a person has answered; nobody is asked twice."""
    await play(rig, source="agent", implementer=rig.agent({}))
    rig.agent(answer(rig, pending_decisions=[decision(), decision(id="DEC-2")]))
    assert await write_plan(await rig.context()) == "for a person to decide: DEC-1, DEC-2"
    assert list(rig.c.waits) == ["question:DEC-1", "question:DEC-2"]
    assert rig.c.waits["question:DEC-1"]["text"] == "DEC-1: eager | or: graph | what it costs: memory"
    assert rig.events("loop.started") == []
    await rig.record("human.answered", {"subject": "question:DEC-1", "answer": "graph"}, OPERATOR)
    assert await write_plan(await rig.context()) == "for a person to decide: DEC-2"
    assert len(rig.events("human.question")) == 2
    await rig.record("human.answered", {"subject": "question:DEC-2", "answer": "eager"}, OPERATOR)
    assert await write_plan(await rig.context()) == rig.c.plan_digest
    assert len(rig.events("plan.recorded")) == 1
    assert len(rig.asked.read_text().splitlines()) == 1
