"""The plan of the loop: what it demands, what was changed in it, and how far each criterion is shown to be met."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.report.document import Block, Items, Table, Text
from sotad.report.facts import Facts, cite, said
from statemachine.state import JSON

UNJUDGED = "not judged yet"


def plan_of(f: Facts) -> JSON:
    """``version``, ``digest``, ``source``, the plan in force (None in ledgers that keep it as an artifact only) and
    its event; empty before there is one."""
    recorded, started = f.last("plan.recorded"), f.last("loop.started")
    if recorded is None:
        return _from_start(f)
    found = {key: recorded.payload[key] for key in ("version", "digest", "source", "plan")} | {"event": recorded.seq}
    proposals = {event.seq: event.payload for event in f.all("plan.amendment_proposed")}
    for event in f.all("plan.amended"):
        known = proposals.get(event.payload["proposal"], {})
        found |= {"version": event.payload["version"], "digest": event.payload["digest"], "event": event.seq}
        found["plan"] = known.get("plan", found["plan"])
    return found | {"document": recorded.payload["document"]["sha256"], "started": started.seq if started else None}


def _from_start(f: Facts) -> JSON:
    """Loops of an earlier release recorded their plan with their start."""
    started = f.last("loop.started")
    if started is None:
        return {}
    p = started.payload
    known = {"version": 1, "digest": p["plan_digest"], "source": "template", "plan": None, "event": started.seq}
    return known | {"document": p["plan"]["sha256"], "started": started.seq}


def criteria(f: Facts) -> list[JSON]:
    """Each criterion of the plan in force with the status and evidence that the latest review gave it."""
    judged: dict[str, JSON] = {}
    for event in f.all("verdict.recorded"):
        for found in event.payload.get("criteria", []):
            kept = {key: found.get(key) for key in ("status", "evidence")}
            judged[str(found.get("id"))] = kept | {"event": event.seq}
    unjudged = {"status": UNJUDGED, "evidence": None, "event": None}
    plan = plan_of(f).get("plan") or {}
    return [
        {"id": found["id"], "text": found["text"], **judged.get(found["id"], unjudged)}
        for found in plan.get("criteria", [])
    ]


def plan_blocks(f: Facts) -> list[Block]:
    """Version and source, goal, criteria with their status, amendments. Empty before there is a plan."""
    plan = plan_of(f)
    if not plan:
        return []
    made = f"Plan version {plan['version']}, from {plan['source']}, digest {plan['digest']} {cite(plan['event'])}"
    blocks: list[Block] = [Text(f"{made}; version 1 as a document: artifact {plan['document']}.")]
    if plan["plan"] is None:
        return blocks
    rows = [
        (found["id"], found["text"], found["status"], said(found["evidence"]), cite(found["event"]))
        for found in criteria(f)
    ]
    table = Table(("criterion", "demands", "status", "evidence", "event"), rows)
    return [*blocks, Text(f"Goal: {plan['plan'].get('goal', '')}"), table, Items(list(_amendments(f)), empty="")]


def _amendments(f: Facts) -> Iterator[str]:
    amended = {event.payload["proposal"]: event for event in f.all("plan.amended")}
    for event in f.all("plan.amendment_proposed"):
        p, taken = event.payload, amended.get(event.seq)
        fate = f"version {taken.payload['version']} {cite(taken)}" if taken else "not in force"
        yield f"amendment by {p['by']}: {p['reason']} {cite(event)}: {fate}"
