"""The issue ledger: every finding of every review, from the verdict that raised it to the one that saw it mended."""

from __future__ import annotations

from ledger.events import Event
from sotad.report.document import Document, Section, Table
from sotad.report.facts import Facts, cite, said
from statemachine.state import JSON


def issue_entries(f: Facts) -> list[JSON]:
    """Every finding with its number, i1, i2, …, in the order of the verdicts; status open, resolved or waived.

    ``life`` says what happened to it, oldest first: raised, raised again, fix (an attempt was opened to mend it),
    resolved, waived (a person let it stand).
    """
    entries: dict[str, JSON] = {}
    for event in f.all("verdict.recorded", "review.findings", "human.approved"):
        if event.type == "verdict.recorded":
            _judged(f, event, entries)
        elif event.type == "review.findings":
            _opened(f, event, entries)
        elif event.payload["approved"]:
            _ended(entries, event.payload["subject"].removeprefix("issue:"), "waived", event)
    return list(entries.values())


def _judged(f: Facts, event: Event, entries: dict[str, JSON]) -> None:
    for name in event.payload.get("resolved", []):
        _ended(entries, name, "resolved", event)
    for finding in event.payload["findings"]:
        known = entries.get(str(finding.get("issue") or ""))
        if known is not None:
            known["status"] = "open"
            known["life"].append({"what": "raised again", "event": event.seq})
        else:
            entries[f"i{len(entries) + 1}"] = _raised(f, event, finding, f"i{len(entries) + 1}")


def _raised(f: Facts, event: Event, finding: JSON, name: str) -> JSON:
    request = f.before(event.seq, "review.requested")
    about = {key: finding.get(key) for key in ("severity", "lane", "text", "path", "line")}
    return {
        "id": name,
        **about,
        "status": "open",
        "round": event.payload["round"],
        "kind": event.payload.get("kind", "summary"),
        "attempt_id": request.payload["attempt_id"] if request else None,
        "by": event.actor,
        "life": [{"what": "raised", "event": event.seq}],
    }


def _opened(f: Facts, event: Event, entries: dict[str, JSON]) -> None:
    """When the machine opened a fix on the findings, its attempt carries this event's number."""
    fix = next((a for a in f.c.attempts.values() if a.seq == event.seq), None)
    named = [(item.get("issue"), item.get("text")) for item in event.payload["items"]]
    for entry in entries.values():
        if fix and entry["status"] == "open" and any(entry["id"] == i or entry["text"] == text for i, text in named):
            entry["life"].append({"what": "fix", "attempt_id": fix.attempt_id, "event": event.seq})


def _ended(entries: dict[str, JSON], name: str, status: str, event: Event) -> None:
    if name in entries and entries[name]["status"] == "open":
        entries[name]["status"] = status
        entries[name]["life"].append({"what": status, "event": event.seq})


def issue_table(f: Facts) -> Table:
    """Every finding on a line."""
    rows = [
        (
            *(entry["id"], entry["status"], str(entry["severity"]), str(entry["lane"]), said(entry["text"])),
            *(_where(entry), f"{entry['round']}, {entry['kind']}", entry["by"], _life(entry)),
        )
        for entry in issue_entries(f)
    ]
    headers = ("issue", "status", "severity", "lane", "finding", "where", "round and review", "by", "life")
    return Table(headers, rows, empty="No review had a finding.")


def _where(entry: JSON) -> str:
    line = f":{entry['line']}" if entry["line"] is not None else ""
    return f"{entry['path']}{line}" if entry["path"] else said(entry["attempt_id"])


def _life(entry: JSON) -> str:
    return ", ".join(
        " ".join(filter(None, (step["what"], step.get("attempt_id"), cite(step["event"])))) for step in entry["life"]
    )


def issue_document(f: Facts) -> Document:
    """``issue-ledger.md``."""
    return Document(f"Issues of {f.c.id}", [Section("", [issue_table(f)]), Section("Reviews", [review_table(f)])])


def review_table(f: Facts) -> Table:
    """Every review verdict, and every review that gave none."""
    rows = [
        (
            *(str(p["round"]), p.get("kind", "summary"), f"{p['mainline']}, {p['control']}"),
            *(str(len(p["findings"])), p["summary"], e.actor, cite(e)),
        )
        for e in f.all("verdict.recorded")
        for p in [e.payload]
    ]
    rows += [
        (str(e.payload["round"]), "", "no verdict", "", e.payload["reason"], e.actor, cite(e))
        for e in f.all("review.failed")
    ]
    return Table(("round", "kind", "verdict", "findings", "said", "by", "event"), rows)
