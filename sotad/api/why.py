"""Why an event is in the ledger: its rule, the guards, the numbers, and what would have changed it.

Pure: an event and the state before it in, plain JSON out. The guards are not quoted from the event, they
are asked again.
"""

from __future__ import annotations

import time
from typing import Any

from ledger.events import Event
from sotad.api.reasons import reasons_of
from statemachine.guards import GUARDS, Ask
from statemachine.machine import COMPILED
from statemachine.state import JSON, Campaign, World
from statemachine.table import FACTS


def why(event: Event, before: World) -> dict[str, Any]:
    """``{event, kind, rule, rows, reasons, would_change, text}`` of an event, given the state before it.

    ``kind`` is step, fact or daemon. ``rows`` are the rows of the table that were tried, in order: their
    guards, each with ``missing`` (None: it held), and whether the row was ``taken``.
    """
    c = before.campaigns.get(event.campaign) or Campaign(event.campaign, created_ns=event.time_ns)
    reasons, would_change = reasons_of(event, c)
    rows = _rows(Ask(before, c, event.payload, event.time_ns, event.actor), event) if event.campaign else []
    found = {
        "event": event._asdict(),
        "kind": _kind(event),
        "rule": _rule(event, c, rows),
        "rows": rows,
        "reasons": reasons,
        "would_change": [*would_change, *_other_rows(rows)],
    }
    return {**found, "text": _text(event, found)}


def _kind(event: Event) -> str:
    if not event.campaign:
        return "daemon"
    return "fact" if event.type in FACTS else "step"


def _rows(ask: Ask, event: Event) -> list[JSON]:
    """Ask the guards again, up to the first row that they allow."""
    if event.type in FACTS:
        return [_row(ask, ask.c.phase, FACTS[event.type])]
    tried: list[JSON] = []
    for step in COMPILED.get((ask.c.phase, event.type), ()):
        tried.append(_row(ask, step.dest, step.guards))
        if tried[-1]["taken"]:
            break
    return tried


def _row(ask: Ask, dest: str, names: tuple[str, ...]) -> JSON:
    guards: list[JSON] = []
    for name in names:
        guards.append({"guard": name, "missing": GUARDS[name](ask)})
        if guards[-1]["missing"] is not None:
            break
    return {"dest": dest, "guards": guards, "taken": all(guard["missing"] is None for guard in guards)}


def _rule(event: Event, c: Campaign, rows: list[JSON]) -> str:
    if not event.campaign:
        return "a fact about the daemon: always recordable"
    if event.type in FACTS:
        return f"a fact: recordable in every phase (here {c.phase}) when it fits what is known"
    taken = next((row["dest"] for row in rows if row["taken"]), None)
    if taken is None:
        return f"no row of the table allows this step in phase {c.phase}: the ledger should not hold it"
    return f"{c.phase} -> {taken}: row {len(rows)} of {len(COMPILED[c.phase, event.type])} for this step"


def _other_rows(rows: list[JSON]) -> list[str]:
    """What would have led along a row that was tried before the one taken."""
    return [
        f"it would have led to {row['dest']} with {guard['missing']}"
        for row in rows
        if not row["taken"]
        for guard in row["guards"][-1:]
    ]


def _text(event: Event, found: JSON) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event.time_ns // 1_000_000_000))
    cause = f", because of event {event.cause}" if event.cause else ""
    lines = [
        f"event {event.seq}: {event.type}" + (f" in campaign {event.campaign}" if event.campaign else ""),
        f"written {when} by {event.actor}{cause}",
        f"kind: {found['kind']}",
        f"rule: {found['rule']}",
    ]
    lines += _section("reasons and numbers", found["reasons"])
    lines += _section("guards, asked again on the state before the event", _guard_lines(found["rows"]))
    lines += _section("what would have changed it", found["would_change"])
    return "\n".join(lines)


def _guard_lines(rows: list[JSON]) -> list[str]:
    return [
        f"to {row['dest']}: {guard['guard']} "
        + ("held" if guard["missing"] is None else f"did not hold, it misses {guard['missing']}")
        for row in rows
        for guard in row["guards"]
    ]


def _section(title: str, items: list[str]) -> list[str]:
    return [f"{title}:", *(f"  - {item}" for item in items)] if items else []
