"""What people say to a campaign, over the API and the command line: recorded under their name, and followed."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from plan_rig import Planning, opened, play

from sotad.activities.plan import write_plan
from sotad.api.app import make_app
from sotad.api.server import serving
from sotad.client import Client
from sotad.daemon.service import _mirror
from sotad.errors import BadConfig, SotadError
from statemachine.decide import Record, decide

JSON = dict[str, Any]
ME = f"operator:uid={os.getuid()}"
BLOCKED = {"kind": "human", "reason": "a question is open", "next": "answer it"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Planning]:
    """A campaign with a plan, about to decide the gap, behind its API."""
    async with opened(tmp_path / "state") as found:
        await play(found)
        await write_plan(await found.context())
        await found.settle()
        async with serving(make_app(found.daemon), found.here.socket):
            yield found


@pytest.fixture
def here(rig: Planning) -> Any:
    """The state directory for ``run``."""
    return rig.here


@pytest.fixture
def door(rig: Planning) -> Client:
    return Client(rig.here.socket)


async def post(door: Client, verb: str, body: JSON) -> JSON:
    answer: JSON = await asyncio.to_thread(door.post, f"/v1/campaigns/demo/{verb}", body)
    return answer


async def refused(door: Client, verb: str, body: JSON) -> SotadError:
    with pytest.raises(SotadError) as error:
        await post(door, verb, body)
    return error.value


async def ask(rig: Planning, *subjects: str, halt: bool = True) -> None:
    """Open questions, and block on them as the loop does."""
    for subject in subjects:
        await rig.record("human.question", {"subject": subject, "text": f"what of {subject}?", "by": "daemon"})
    if halt:
        await rig.record("campaign.blocked", BLOCKED)


# --- approve, answer --------------------------------------------------------------------------------------------


async def test_with_the_last_word_the_campaign_goes_on(rig: Planning, door: Client) -> None:
    """Each word is recorded by who said it; the resume comes after the last, through the same checks as any."""
    await ask(rig, "question:1", "round:0")
    first = await post(door, "answer", {"subject": "question:1", "text": "the eager one"})
    assert first == {
        "campaign": "demo",
        "subject": "question:1",
        "waits": {"round:0": "what of round:0?"},
        "phase": "blocked",
    }
    last = await post(door, "approve", {"subject": "round:0", "approved": False, "reason": "too thin"})
    assert (last["waits"], last["phase"]) == ({}, "round.gap")
    words = rig.events("human.answered", "human.approved", "campaign.resumed")
    assert [(event.type, event.actor) for event in words] == [
        ("human.answered", ME),
        ("human.approved", ME),
        ("campaign.resumed", ME),
    ]
    assert words[0].payload == {"subject": "question:1", "answer": "the eager one"}
    assert words[1].payload == {"subject": "round:0", "approved": False, "reason": "too thin"}
    assert {check["what"] for check in words[2].payload["checks"]} >= {"host cpu", "host cores"}


async def test_a_word_before_the_campaign_halts_is_kept_and_resumes_nothing(rig: Planning, door: Client) -> None:
    """Only a campaign that is blocked for a person is resumed by one."""
    await ask(rig, "question:1", halt=False)
    await post(door, "answer", {"subject": "question:1", "text": "yes"})
    assert rig.c.answers["question:1"]["answer"] == "yes"
    await ask(rig, "question:2", halt=False)
    await rig.record("campaign.paused", {"reason": "lunch"})
    assert (await post(door, "answer", {"subject": "question:2", "text": "no"}))["phase"] == "paused"
    assert rig.events("campaign.resumed") == []


async def test_an_unknown_subject_lists_what_is_open(rig: Planning, door: Client) -> None:
    """Nothing is written for what nobody asked; what was settled is said to be."""
    nothing = await refused(door, "approve", {"subject": "plan:1", "approved": True})
    assert (nothing.code, "waits for nobody's word" in str(nothing)) == ("not_found", True)
    await ask(rig, "question:1", "round:0")
    before = rig.journal.world.seq
    for verb, body in (("answer", {"text": "x"}), ("approve", {"approved": True})):
        subject = "question:9" if verb == "answer" else "attempt:a9"
        error = await refused(door, verb, {"subject": subject, **body})
        assert (error.code, "question:1, round:0" in str(error)) == ("not_found", True)
    assert rig.journal.world.seq == before
    await post(door, "answer", {"subject": "question:1", "text": "x"})
    await post(door, "approve", {"subject": "round:0"})
    again = await refused(door, "approve", {"subject": "round:0"})
    assert "settled" in str(again)


async def test_a_question_is_answered_and_everything_else_approved(rig: Planning, door: Client) -> None:
    """The other way round says which verb is right."""
    await ask(rig, "question:1", "round:0")
    wrong = await refused(door, "approve", {"subject": "question:1"})
    assert (wrong.code, "sotactl answer demo question:1" in wrong.next) == ("bad_input", True)
    wrong = await refused(door, "answer", {"subject": "round:0", "text": "yes"})
    assert (wrong.code, "sotactl approve demo round:0" in wrong.next) == ("bad_input", True)
    assert (await refused(door, "answer", {"subject": "question:1", "text": " \n"})).code == "bad_input"
    assert list(rig.c.waits) == ["question:1", "round:0"]


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("approve", {}),
        ("approve", {"subject": 3}),
        ("approve", {"subject": "round:0", "approved": "yes"}),
        ("approve", {"subject": "round:0", "reason": None}),
        ("answer", {"subject": "question:1"}),
        ("amend", {"plan": [], "reason": "x"}),
        ("amend", {"plan": {}}),
    ],
)
async def test_a_body_that_lacks_something_is_refused(rig: Planning, door: Client, verb: str, body: JSON) -> None:
    """In one line, and nothing is written."""
    before = rig.journal.world.seq
    assert (await refused(door, verb, body)).code == "bad_input"
    assert rig.journal.world.seq == before


async def test_two_people_who_speak_at_once_are_both_heard_and_one_resume_follows(rig: Planning, door: Client) -> None:
    """The same word twice: one is recorded, the other refused; two words: one resume."""
    await ask(rig, "question:1", "question:2")
    said = [("question:1", "a"), ("question:1", "b"), ("question:2", "c")]
    words = [post(door, "answer", {"subject": subject, "text": text}) for subject, text in said]
    found = await asyncio.gather(*words, return_exceptions=True)
    assert sorted(isinstance(each, SotadError) for each in found) == [False, False, True]
    assert len(rig.events("human.answered")) == 2
    assert len(rig.events("campaign.resumed")) == 1


async def test_an_agent_cannot_say_yes_to_itself(rig: Planning) -> None:
    """It has our uid and may find the socket; what runs at the daemon's behest is no person."""
    await ask(rig, "round:0")
    context = await rig.context()
    argv = (sys.executable, "-m", "sotad.cli.control", "--dir", str(rig.here.root), "approve", "demo", "round:0")
    orphan = f"( (setsid {shlex.join(argv)}; touch done) & ); while [ ! -e done ]; do sleep 0.1; done"
    for name, command in (("agent", argv), ("orphan", ("sh", "-c", orphan))):
        await context.run(name, context.command(command, timeout_s=60, cwd=str(rig.here.root)))
        assert "neither looks nor gives orders" in await context.tail(name), name
    assert list(rig.c.waits) == ["round:0"]
    assert rig.events("human.approved") == []


async def test_a_daemon_that_died_after_the_last_word_resumes_at_its_start(rig: Planning) -> None:
    """The word is on record and the campaign still blocked: the next start takes the step that was owed, once."""
    await ask(rig, "question:1")
    await rig.record("human.answered", {"subject": "question:1", "answer": "yes"}, ME)
    assert rig.c.phase == "blocked"
    await rig.daemon.catch_up()
    await rig.daemon.catch_up()
    assert (rig.c.phase, len(rig.events("campaign.resumed"))) == ("round.gap", 1)
    await rig.record("campaign.blocked", BLOCKED)
    await rig.daemon.catch_up()
    assert rig.c.phase == "blocked"


# --- amend ------------------------------------------------------------------------------------------------------


def other_plan(rig: Planning, **parts: Any) -> JSON:
    return {**copy.deepcopy(rig.c.plan["plan"]), **parts}


async def test_an_amendment_is_in_force_once_a_person_approved_it(rig: Planning, door: Client) -> None:
    """Proposed under who proposes it; the plan in force stays until then."""
    before = rig.c.plan["digest"]
    proposed = await post(door, "amend", {"plan": other_plan(rig, hints=["look at the cache"]), "reason": "idle GPU"})
    (event,) = rig.events("plan.amendment_proposed")
    assert proposed == {"campaign": "demo", "subject": f"plan:{event.seq}", "changes": ["hints change"]}
    assert (event.actor, event.payload["by"], event.payload["reason"]) == (ME, ME, "idle GPU")
    assert (rig.c.plan["digest"], list(rig.c.waits)) == (before, [proposed["subject"]])
    await post(door, "approve", {"subject": proposed["subject"], "reason": "fine"})
    (called_for,) = decide(rig.c)  # what the loop does at its next turn
    assert isinstance(called_for, Record)
    await rig.record(called_for.type, called_for.payload)
    assert rig.events("plan.amended")[0].payload["proposal"] == event.seq
    assert (rig.c.plan["version"], rig.c.plan["plan"]["hints"]) == (2, ["look at the cache"])


async def test_of_two_amendments_of_one_plan_only_one_is_approved(rig: Planning, door: Client) -> None:
    """The second knows nothing of the first and would undo it: before and after the first is in force."""
    for hint in ("a", "b"):
        await post(door, "amend", {"plan": other_plan(rig, hints=[hint]), "reason": hint})
    first, second = list(rig.c.waits)
    await post(door, "approve", {"subject": first})
    for _ in range(2):
        overtaken = await refused(door, "approve", {"subject": second})
        assert (overtaken.code, "deny it" in overtaken.next) == ("illegal_now", True)
        for command in decide(rig.c)[:1]:
            if isinstance(command, Record) and command.type == "plan.amended":
                await rig.record(command.type, command.payload)
    assert rig.c.plan["version"] == 2
    await post(door, "approve", {"subject": second, "approved": False})
    assert (rig.c.waits, rig.c.plan["plan"]["hints"]) == ({}, ["a"])


async def test_a_denied_amendment_changes_nothing(rig: Planning, door: Client) -> None:
    """The plan in force stays, and nothing waits any more."""
    before = rig.c.plan
    proposed = await post(door, "amend", {"plan": other_plan(rig, hints=[]), "reason": "shorter"})
    await post(door, "approve", {"subject": proposed["subject"], "approved": False})
    assert (rig.c.plan, rig.c.waits, rig.c.amendments) == (before, {}, {})


async def test_an_amendment_that_moves_the_measure_or_is_no_plan_is_refused(rig: Planning, door: Client) -> None:
    """Goal and rule stay; every problem is told; a reason is needed."""
    for plan, told in (
        (other_plan(rig, goal="less"), "goal: an amendment cannot change it"),
        (other_plan(rig, tasks=[]), "tasks: needs at least 1 entry"),
        (rig.c.plan["plan"], "nothing in it differs"),
    ):
        error = await refused(door, "amend", {"plan": plan, "reason": "x"})
        assert (error.code, told in str(error)) == ("bad_plan", True)
    assert (await refused(door, "amend", {"plan": other_plan(rig, hints=[]), "reason": " "})).code == "bad_input"
    assert rig.events("plan.amendment_proposed") == []


# --- the command line -------------------------------------------------------------------------------------------


async def test_a_person_takes_the_plan_out_changes_it_and_sends_it_back(rig: Planning, run: Any) -> None:
    """plan --yaml, amend, plan --proposed, approve: each says what comes next."""
    shown = await run("plan", "demo")
    assert "## Acceptance Criteria" in shown.out
    text = (await run("plan", "demo", "--yaml")).out
    assert yaml.safe_load(text) == json.loads((await run("plan", "demo", "--json")).out) == rig.c.plan["plan"]
    path = rig.here.root / "plan.yaml"
    path.write_text(text.replace("Make one small change at the root cause.", "Make one change at the cache."))
    amended = await run("amend", "demo", str(path), "--reason", "the cache is cold")
    subject = next(iter(rig.c.waits))
    assert amended.out.splitlines() == [
        "task T-4 changes",
        f"proposed; it is in force once somebody says: sotactl approve demo {subject}",
    ]
    proposed = await run("plan", "demo", "--proposed", subject)
    assert proposed.out.startswith("- proposed because: the cache is cold\n- task T-4 changes\n")
    assert "Make one change at the cache." in proposed.out
    status = await run("status", "demo")
    assert subject in status.out
    assert "sotactl approve" in status.out
    assert f"demo waits for {subject}: amend the plan: the cache is cold" in (await run("status")).out
    approved = await run("approve", "demo", subject)
    assert (approved.status, approved.out) == (0, f"approve: demo {subject}; the campaign is in round.gap\n")


async def test_words_from_the_command_line(rig: Planning, run: Any) -> None:
    """A denial with its reason, an answer from stdin, JSON, and what is still open."""
    await ask(rig, "question:1", "attempt:a1", "round:0")
    denied = await run("approve", "demo", "attempt:a1", "--deny", "--reason", "the cache was warm")
    assert "still open: question:1: what of question:1?" in denied.out
    assert rig.c.answers["attempt:a1"]["approved"] is False
    assert (await run("answer", "demo", "question:1", "-", stdin="naïvely\n".encode())).status == 0
    assert rig.c.answers["question:1"]["answer"] == "naïvely\n"
    last = await run("approve", "demo", "round:0", "--json")
    assert json.loads(last.out)["phase"] == "round.gap"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["approve", "demo", "round:9"], "waits for nobody's word"),
        (["answer", "nope", "question:1", "x"], "no campaign 'nope'"),
        (["plan", "nope"], "no campaign 'nope'"),
        (["plan", "demo", "--proposed", "plan:9"], "no amendment 'plan:9' waits; there is none"),
        (["plan", "demo", "--json", "--yaml"], "exclude each other"),
        (["amend", "demo", "nope.yaml", "--reason", "x"], "nope.yaml"),
        (["amend", "demo", "bad.yaml", "--reason", "x"], "no YAML"),
        (["amend", "demo", "date.yaml", "--reason", "x"], "holds what a plan cannot"),
        (["amend", "demo", "short.yaml", "--reason", "x"], "criteria: is missing"),
        (["amend", "demo", "bad.yaml"], "--reason"),
        (["approve", "demo"], "SUBJECT"),
    ],
)
async def test_mistakes_are_told_in_words(
    rig: Planning, run: Any, monkeypatch: pytest.MonkeyPatch, argv: list[str], told: str
) -> None:
    """Exit status 2, no traceback, each problem of a plan in a line of its own."""
    monkeypatch.chdir(rig.here.root)
    (rig.here.root / "bad.yaml").write_text("a: [")
    (rig.here.root / "date.yaml").write_text("goal: 2026-01-01")
    (rig.here.root / "short.yaml").write_text("goal: x")
    found = await run(*argv)
    assert (found.status, told in found.err, "Traceback" in found.err) == (2, True, False), found.err
    assert all(line.startswith("sotactl") for line in found.err.splitlines())


# --- Humanize ---------------------------------------------------------------------------------------------------


async def test_a_file_of_the_plugin_is_kept_once(rig: Planning, door: Client) -> None:
    """Its text is an artifact, its fields are in the event; the same content again is the same event."""
    report = {"loop": "/p/.humanize/rlcr/x", "file": "state.md", "kind": "state", "fields": {"current_round": 3}}
    first = await asyncio.to_thread(door.post, "/v1/humanize", {**report, "text": "---\ncurrent_round: 3\n---\n"})
    again = await asyncio.to_thread(door.post, "/v1/humanize", {**report, "text": "---\ncurrent_round: 3\n---\n"})
    other = await asyncio.to_thread(door.post, "/v1/humanize", {**report, "text": "---\ncurrent_round: 4\n---\n"})
    assert (first, other["seq"]) == (again, first["seq"] + 1)
    (event,) = rig.daemon.events(first["seq"] - 1, "", 1)
    assert (event.type, event.actor, event.payload["trust"]) == ("humanize.reported", ME, "reported")
    assert event.payload["fields"] == {"current_round": 3}
    assert rig.driver.artifacts.read(first["sha256"]) == b"---\ncurrent_round: 3\n---\n"
    bad = ((report, "'text' must be of type str"), ({**report, "text": "", "file": "../x"}, "no relative path"))
    for body, told in bad:
        with pytest.raises(SotadError, match=told):
            await asyncio.to_thread(door.post, "/v1/humanize", body)


async def test_a_mirror_that_fails_does_not_end_the_daemon(rig: Planning, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is begun again after a pause."""
    begun: list[int] = []
    twice = asyncio.Event()

    async def broken(*parts: object) -> None:
        begun.append(1)
        if len(begun) == 2:
            twice.set()
        raise OSError("the folder is gone")

    monkeypatch.setattr("sotad.humanize.following.mirror", broken)
    monkeypatch.setattr("sotad.daemon.service.MIRROR_PAUSE_S", 0.0)
    task = asyncio.create_task(_mirror(rig.journal, rig.here, rig.driver.artifacts))
    await asyncio.wait_for(twice.wait(), 10)
    assert not task.done()
    task.cancel()


async def test_a_campaign_whose_draft_cannot_be_read_is_not_started(rig: Planning, example: str) -> None:
    """The draft is needed hours later; that it is missing is told at once."""
    text = example.replace("  source: template", "  draft: nope.md\n  source: template")
    with pytest.raises(BadConfig, match=r"plan\.draft: .*nope\.md: No such file"):
        await rig.daemon.submit(text, str(rig.here.root / "campaign.yaml"), ME)
    assert list(rig.journal.world.campaigns) == ["demo"]
