"""What a person sees at a glance: dashboard, ``sotactl watch`` and the demo's lines say what waits and what it cost."""

from __future__ import annotations

import io
import re
from typing import Any

from ledger import catalogue
from sotad.api.pages import dashboard, metrics
from sotad.api.summary import said_with, spending
from sotad.cli.watch import asked
from sotad.demo.progress import SENTENCES, Progress

FILE = {"sha256": "0" * 64, "bytes": 0, "path": "transcript.jsonl"}
CALLED = {"role": "implementer", "driver": "scripted", "job": "propose/r0/0", "attempt": 1}


def called(service: Any, campaign: str, usage: dict[str, Any] | None) -> None:
    """An agent was called once, and used what it says."""
    job = {"job": "propose/r0/0", "activity": "propose", "attempt": 1, "deadline_ns": 1}
    service.record(campaign, "job.dispatched", job)
    ended = {"outcome": "exited", "wall_s": 1.5, "usage": usage, "transcript": FILE}
    service.record(campaign, "agent.finished", CALLED | ended)


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


async def test_the_dashboard_says_what_waits_and_with_which_command(service: Any) -> None:
    """Whoever looks at the page can answer without a manual; a question's text cannot become markup."""
    name = service.create()
    question = {"subject": "question:q1", "text": "<b>eager</b> or graph?", "by": "agent:codex"}
    service.record(name, "human.question", question)
    command = said_with(name, "question:q1")
    service.record(name, "campaign.blocked", {"kind": "human", "reason": "a question is open", "next": command})
    page = dashboard(service.status())
    assert page.count("sotactl answer example question:q1 TEXT") == 1
    assert "&lt;b&gt;eager" in page
    assert f'sotad_waits{{campaign="{name}"}} 1.0' in metrics(service.status()).decode()


async def test_what_agents_do_not_report_is_said_to_be_unknown(service: Any) -> None:
    """A call without usage has not cost nothing."""
    name = service.create()
    assert "unknown" not in text_of(dashboard(service.status()))
    called(service, name, None)
    assert "unknown (1 of 1 calls did not report all)" in text_of(dashboard(service.status()))


async def test_what_agents_report_is_shown(service: Any) -> None:
    """Tokens in and out together, and money."""
    called(service, service.create(), {"input_tokens": 12000, "output_tokens": 345, "cost_usd": 1.5})
    assert "12,345 tokens, 1.50 USD" in text_of(dashboard(service.status()))


def test_tokens_without_money_are_shown_as_incomplete() -> None:
    """Codex reports tokens and no money."""
    assert spending({"tokens": 10, "calls": 2, "unknown": 2}) == "10 tokens (2 of 2 calls did not report all)"
    assert spending({}) == ""


def test_the_command_fits_the_subject() -> None:
    """Questions are answered, everything else is approved or not."""
    assert said_with("demo", "question:DEC-1") == "sotactl answer demo question:DEC-1 TEXT"
    assert said_with("demo", "attempt:a3") == "sotactl approve demo attempt:a3 [--deny]"


async def test_watch_tells_where_a_campaign_stands_and_what_it_waits_for(service: Any, door: Any, run: Any) -> None:
    """Following begins with what happened before it: the wait and its command."""
    name = service.create()
    service.record(name, "human.question", {"subject": "issue:i1", "text": "is it mended?", "by": "daemon"})
    service.record(name, "campaign.cancel_requested", {"by": "operator:test"}, "operator:test")
    cancel = service.world.campaigns[name].stop["seq"]
    service.record(name, "cleanup.finished", {"before": [], "after": []})
    service.record(name, "report.published", {"files": [FILE]})
    service.record(name, "campaign.closed", {"terminal": "cancelled", "reason": "asked", "evidence": [cancel]})
    ended = await run("watch", name)
    assert ended.status == 1
    assert "is it mended?" in ended.err
    assert "sotactl approve example issue:i1 [--deny]" in ended.err


def test_an_event_that_asks_names_its_subject() -> None:
    """An amendment waits under its own number, a quarantined patch under its attempt."""
    event = {"campaign": "demo", "seq": 57, "payload": {"reason": "out of reach"}}
    assert "sotactl approve demo plan:57 [--deny]" in asked(event | {"type": "plan.amendment_proposed"})
    payload = {"attempt_id": "a3", "gain_pct": 400.0, "ceiling_pct": 100.0, "why": "decision.max_gain_pct"}
    assert "attempt:a3" in asked({**event, "type": "patch.quarantined", "payload": payload})
    assert asked({**event, "type": "job.finished"}) == ""


def shown(type_: str, payload: dict[str, Any]) -> str:
    """What the demo prints for an event, without the time."""
    out = io.StringIO()
    Progress(out).show({"seq": 7, "type": type_, "payload": catalogue.validate(type_, payload)[1]})
    return out.getvalue().partition("#7")[2].strip()


def test_gates_are_shown_when_they_refuse() -> None:
    """Twelve passed gates are no news; one refusal is, and so are the timed outputs."""
    gate = {"attempt_id": "a1", "gate": "clean_tree", "passed": True, "detail": "nothing is left"}
    assert shown("gate.evaluated", gate) == ""
    assert shown("gate.evaluated", gate | {"passed": False}) == "gate clean_tree REFUSED: nothing is left"
    assert shown("gate.evaluated", gate | {"gate": "timed_outputs"}) == "timed outputs: nothing is left"


def test_what_an_agent_says_is_one_line_and_steers_no_terminal() -> None:
    """Marked as its own words; control characters do not reach the terminal."""
    summary = {"attempt_id": "a1", "text": "\n\x1b[2Jdone\nreally", "files": [], "tests": [], "document": FILE}
    line = shown("summary.recorded", summary)
    assert line.startswith("a1: the implementer says:")
    assert "\x1b" not in line
    assert "\n" not in line


def test_a_round_is_told_by_its_events() -> None:
    """Contract, cost, verdict with its kind, held-out check: a line each, with what decides in it."""
    contract = {"objective": "drop the copy", "criteria": ["AC-5"], "success": "the row is gone"}
    proposed = {"round": 0, "attempt_id": "a1", "citations": ["k1"], "hypothesis": "a copy", "contract": contract}
    assert "contract: drop the copy [AC-5]" in shown("patch.proposed", proposed)
    assert "tokens unknown" in shown(
        "agent.finished", CALLED | {"outcome": "exited", "wall_s": 2.0, "usage": None, "transcript": FILE}
    )
    verdict = {"round": 0, "kind": "code", "mainline": "ADVANCED", "control": "CONTINUE", "findings": []}
    assert shown("verdict.recorded", verdict | {"resolved": ["i1"], "summary": "fine", "result": FILE}) == (
        "review (code): ADVANCED, CONTINUE, 0 findings, resolves i1: fine"
    )
    checked = {"round": 1, "commit": "c", "passed": False, "decisions": {"chat": {"g_pct": 3.0}}}
    assert "FAILED" in shown("heldout.checked", checked)
    assert "chat -3.0%" in shown("heldout.checked", checked)


def test_every_sentence_is_about_an_event_that_exists() -> None:
    """A renamed event does not leave a line behind that is never printed."""
    assert SENTENCES.keys() <= catalogue.VERSIONS.keys()
