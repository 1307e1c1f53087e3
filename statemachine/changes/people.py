"""What agents spend and people say."""

from __future__ import annotations

from ledger.events import Event
from statemachine.changes.register import on
from statemachine.state import JSON, Campaign


@on("agent.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    usage = p.get("usage") or {}
    tokens = sum(usage.get(key) or 0 for key in ("input_tokens", "output_tokens"))
    added = {"tokens": tokens, "money_usd": usage.get("cost_usd") or 0.0, "wall_s": p["wall_s"], "calls": 1}
    if not tokens or usage.get("cost_usd") is None:
        added["unknown"] = 1  # an agent that does not report something has not spent nothing of it
    for key, value in added.items():
        c.spent[key] = c.spent.get(key, 0) + value
    c.transcripts[p["job"]] = p["transcript"]


@on("human.question")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.waits[p["subject"]] = {"text": p["text"], "seq": e.seq}
    c.answers.pop(p["subject"], None)


@on("human.answered")
def _(c: Campaign, e: Event, p: JSON) -> None:
    wait = c.waits.pop(p["subject"])
    c.answers[p["subject"]] = {"question": wait["text"], "answer": p["answer"], "seq": e.seq}


@on("human.approved")
def _(c: Campaign, e: Event, p: JSON) -> None:
    wait = c.waits.pop(p["subject"])
    said = {"approved": p["approved"], "reason": p.get("reason", ""), "seq": e.seq}
    c.answers[p["subject"]] = {"question": wait["text"], **said}
    name = p["subject"].removeprefix("issue:")
    if name in c.issues and p["approved"]:
        c.issues[name] |= {"status": "waived", "resolved_by": e.seq}
    if p["subject"].startswith("plan:") and not p["approved"]:
        c.amendments.pop(p["subject"].removeprefix("plan:"), None)
