"""The source-idea ledger: what was thought of, where it comes from, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator

from ledger.events import Event
from sotad.report.document import Document, Items, Section, Table
from sotad.report.facts import Facts, cite, pairs, said
from statemachine.state import JSON, Attempt

SOURCE = ("origin", "reference", "repo", "commit", "path", "symbol", "licence", "applicability")


def idea_entries(f: Facts) -> list[JSON]:
    """Ideas in order: the rows that a root cause offered, and what an implementer recorded beside them.

    An idea of an implementer counts as tried by the attempts of its round that cite its row, or name it or its
    reference in their hypothesis or contract; as rejected when its row was. Status is open, tried or rejected.
    """
    entries = [
        entry
        for event in f.all("rootcause.written", "idea.recorded")
        for entry in (_offered(f, event) if event.type == "rootcause.written" else _recorded(f, event))
    ]
    return sorted(entries, key=lambda entry: (entry["round"], entry["event"]))


def _offered(f: Facts, event: Event) -> Iterator[JSON]:
    for row in event.payload["rows"]:
        source = dict.fromkeys(SOURCE) | {"origin": "profile row", "reference": row}
        yield _entry(f, event, f"r{event.payload['round']}/{row}", source, {row})


def _recorded(f: Facts, event: Event) -> Iterator[JSON]:
    for place, idea in enumerate(event.payload["ideas"], 1):
        source = {key: idea.get(key) for key in SOURCE}
        more = {key: value for key, value in idea.items() if key not in SOURCE}
        name = str(idea.get("id") or f"r{event.payload['round']}-{event.seq}.{place}")
        words = {str(value) for value in (idea.get("id"), idea.get("reference"), idea.get("row")) if value}
        yield _entry(f, event, name, source, words) | {"more": more}


def _entry(f: Facts, event: Event, name: str, source: JSON, words: set[str]) -> JSON:
    round_ = event.payload["round"]
    tried = [a for a in f.c.attempts.values() if a.round == round_ and a.seq > event.seq and _names(a, words)]
    rejected = next((e for e in f.all("idea.rejected") if _rejects(e, event, words)), None)
    status = "tried" if tried else "rejected" if rejected else "open"
    reason = tried[-1].hypothesis if tried else rejected.payload["reason"] if rejected else None
    return {
        "idea_id": name,
        "round": round_,
        **source,
        "status": status,
        "reason": reason,
        "attempts": [a.attempt_id for a in tried],
        "event": event.seq,
        "rejected_by": rejected.seq if rejected and not tried else None,
    }


def _names(attempt: Attempt, words: set[str]) -> bool:
    text = f"{attempt.hypothesis} {attempt.contract.get('objective', '')}"
    return any(word in attempt.citations or word in text for word in words)


def _rejects(rejection: Event, idea: Event, words: set[str]) -> bool:
    same_round = rejection.payload["round"] == idea.payload["round"] and rejection.seq > idea.seq
    return same_round and not words.isdisjoint(rejection.payload["rows"])


def idea_document(f: Facts) -> Document:
    """``source-idea-ledger.md``."""
    rows = [
        (
            *(entry["idea_id"], _origin(entry), said(entry["licence"]), said(entry["applicability"])),
            *(entry["status"], entry["reason"] or "", ", ".join(entry["attempts"])),
            cite(entry["event"], entry["rejected_by"]),
        )
        for entry in idea_entries(f)
    ]
    headers = ("idea", "origin", "licence", "applicability", "status", "reason or hypothesis", "attempts", "event")
    documents = [
        f"{pairs(found)} {cite(event)}" for event in f.all("history.noted") for found in event.payload["documents"]
    ]
    sections = [Section("Ideas", [Table(headers, rows)]), Section("Documents consulted", [Items(documents)])]
    return Document(f"Source ideas of {f.c.id}", sections)


def _origin(entry: JSON) -> str:
    place = [str(entry[key]) for key in ("reference", "repo", "commit", "path", "symbol") if entry[key]]
    return " ".join([said(entry["origin"]), *place])
