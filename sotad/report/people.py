"""What people were asked and said, what waited for them, and the checks that no agent was shown."""

from __future__ import annotations

from ledger.events import Event
from sotad.report.document import Block, Table, Text
from sotad.report.facts import Facts, cite, utc
from sotad.report.gaps import INTERVAL_HEADERS, interval_cells
from statemachine.state import JSON

ASKS = ("human.question", "plan.amendment_proposed", "patch.quarantined")
REPLIES = ("human.answered", "human.approved")


def waits(f: Facts) -> list[JSON]:
    """Everything that waited for a person, with what was said to it; ``reply`` is None where nothing was.

    A person is asked by ``human.question``, by a proposed amendment (``plan:SEQ``) and by a quarantined patch
    (``attempt:ID``); what is asked again before it was answered is one question.
    """
    found: list[JSON] = []
    open_: dict[str, JSON] = {}
    for event in f.all(*ASKS, *REPLIES):
        if event.type in REPLIES:
            open_.pop(event.payload["subject"], {}).update(_reply(event))
            continue
        subject, text, by = _question(event)
        if subject not in open_:
            found.append(open_.setdefault(subject, {"subject": subject, **_reply(None)}))
        open_[subject] |= {"text": text, "by": by, "event": event.seq, "asked_ns": event.time_ns}
    return found


def _question(event: Event) -> tuple[str, str, str]:
    """(subject, text, who asks) of an event that waits for a person."""
    p = event.payload
    if event.type == "human.question":
        return p["subject"], p["text"], p["by"]
    if event.type == "patch.quarantined":
        text = f"a gain of {p['gain_pct']:.1f}% is above {p['ceiling_pct']:g}% ({p['why']}): is it real?"
        return f"attempt:{p['attempt_id']}", text, event.actor
    return f"plan:{event.seq}", f"amend the plan: {p['reason']}", p["by"]


def _reply(reply: Event | None) -> JSON:
    if reply is None:
        return {"reply": None, "reply_by": None, "reply_event": None}
    p = reply.payload
    said = p["answer"] if reply.type == "human.answered" else ("approved" if p["approved"] else "denied")
    reason = f": {p['reason']}" if p.get("reason") else ""
    return {"reply": f"{said}{reason}", "reply_by": reply.actor, "reply_event": reply.seq}


def wait_blocks(f: Facts) -> list[Block]:
    """Questions and approvals; empty when nobody was asked."""
    rows = [
        (
            *(entry["subject"], entry["text"], entry["by"], utc(entry["asked_ns"])),
            *(entry["reply"] or "waits for a person", entry["reply_by"] or ""),
            cite(entry["event"], entry["reply_event"]),
        )
        for entry in waits(f)
    ]
    return [Table(("subject", "question", "asked by", "since", "reply", "reply by", "event"), rows)] if rows else []


def quarantine_blocks(f: Facts) -> list[Block]:
    """Patches whose gain was not believed until a person had looked; empty when there was none."""
    ended = {e.payload["attempt_id"]: e for e in f.all("patch.accepted", "patch.reverted")}
    replies = {entry["subject"]: entry["reply"] for entry in waits(f)}
    rows = [
        (
            *(p["attempt_id"], f"{p['gain_pct']:.2f}", f"{p['ceiling_pct']:.2f}", p["why"]),
            replies.get(f"attempt:{p['attempt_id']}") or "waits for a person",
            ended[p["attempt_id"]].type.removeprefix("patch.") if p["attempt_id"] in ended else "open",
            cite(e, ended.get(p["attempt_id"])),
        )
        for e in f.all("patch.quarantined")
        for p in [e.payload]
    ]
    headers = ("attempt", "largest gain %", "believed up to %", "because", "a person said", "result", "event")
    return [Table(headers, rows)] if rows else []


def heldout_blocks(f: Facts) -> list[Block]:
    """The champion against the first commit on requests that no agent was shown; empty when it was not checked."""
    rows = [
        (
            *(str(e.payload["round"]), e.payload["commit"], scenario, *interval_cells(decision, -1)),
            *("passed" if e.payload["passed"] else "failed", cite(e)),
        )
        for e in f.all("heldout.checked")
        for scenario, decision in e.payload["decisions"].items()
    ]
    note = (
        "The gain of the champion over the commit that the loop began with, on variants of the scenarios that no "
        "agent was shown: what was learned by heart does not help there."
    )
    headers = ("round", "champion", "scenario", *(f"gain: {name}" for name in INTERVAL_HEADERS), "check", "event")
    return [Text(note), Table(headers, rows)] if rows else []
