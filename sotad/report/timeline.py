"""The campaign's events, one line each."""

from __future__ import annotations

from ledger.events import Event
from sotad.report.document import Document, Items, Section
from sotad.report.facts import Facts, utc

LONGEST = 160


def timeline_document(f: Facts) -> Document:
    """``events.md``: seq, time, type, who, and the plain values of the payload."""
    return Document(f"Events of {f.c.id}", [Section("", [Items([event_line(event) for event in f.events])])])


def event_line(event: Event) -> str:
    """One event on one line; nested values and long texts are left to the ledger."""
    plain = [f"{key}={_short(value)}" for key, value in event.payload.items() if isinstance(value, str | int | float)]
    return " ".join([f"#{event.seq}", utc(event.time_ns), event.type, f"({event.actor})", *plain])


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
