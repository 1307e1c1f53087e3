"""What was known and found out: history, profiles, kernel tables, root causes, layers."""

from __future__ import annotations

import json
from collections.abc import Callable

from ledger.events import Event
from sotad.capacity.shown import markdown
from sotad.report.document import Block, Document, Section, Table, Text, Verbatim
from sotad.report.facts import Facts, cite, file_name, number, said
from statemachine.state import JSON

GZIP = b"\x1f\x8b"


def history_document(f: Facts) -> Document:
    """``history/model-pr-history-notes.md``."""
    sections = [Section(f"Query: {e.payload['query']} {cite(e)}", _notes(f, e)) for e in f.all("history.noted")]
    sections += [
        Section(f"History unavailable {cite(e)}", [Text(e.payload["reason"])]) for e in f.all("history.unavailable")
    ]
    sections += [Section(f"Open pull requests {cite(e)}", _open_prs(e)) for e in f.all("openpr.scanned")]
    return Document(f"History notes of {f.c.id}", sections or [Section("", [Text("not recorded")])])


def _notes(f: Facts, event: Event) -> list[Block]:
    p = event.payload
    rows = [("; ".join(f"{key}: {value}" for key, value in sorted(found.items())),) for found in p["documents"]]
    return [
        Text(f"Decision influenced: {said(p['decision'])}"),
        Table(("document",), rows, empty="no document was found"),
        Verbatim(f.text_of(p["notes"])),
    ]


def _open_prs(event: Event) -> list[Block]:
    p = event.payload
    if not p["available"]:
        return [Text(f"The list could not be had: {said(p['reason'])}")]
    rows = [("; ".join(f"{key}: {value}" for key, value in sorted(found.items())),) for found in p["found"]]
    return [Table(("pull request",), rows, empty="none relevant")]


# --- profiles -------------------------------------------------------------------------------------------


def profile_files(f: Facts) -> dict[str, Event]:
    """Where each captured trace lies in the tree; a second capture of a side and round carries its seq."""
    found: dict[str, Event] = {}
    for event in f.all("profile.captured"):
        head = f.bytes_of(event.payload["trace"])
        stem = f"profiles/{file_name(event.payload['side'])}-r{event.payload['round']}"
        suffix = ".json.gz" if (head or GZIP)[:2] == GZIP else ".json"
        name = f"{stem}{suffix}"
        found[f"{stem}-{event.seq}{suffix}" if name in found else name] = event
    return found


# --- kernel tables, root cause, layers ----------------------------------------------------------------------


ROW_COLUMNS = {
    "row_id": "row",
    "stage": "stage",
    "name": "kernel or operator",
    "annotation": "region",
    "category": "category",
    "location": "source",
    "share": "share of stage %",
    "count": "calls",
    "time_ms": "target ms",
    "leader_time_ms": "leader ms",
    "us_per_token": "target us/token",
    "leader_us_per_token": "leader us/token",
    "extra_ms": "extra ms",
}


def row_table(rows: list[JSON]) -> Table:
    """Rows of a kernel table, with the columns that any of them has."""
    columns = [key for key in ROW_COLUMNS if any(row.get(key) is not None for row in rows)]
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    return Table([ROW_COLUMNS[key] for key in columns], cells)


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) else said(value)


def kernel_document(f: Facts) -> Document:
    """``analysis/kernel-table.md``, latest round first."""
    sections = [
        Section(f"Round {e.payload['round']} at {e.payload['commit']} {cite(e)}", [row_table(e.payload["rows"])])
        for e in reversed(f.all("tables.produced"))
    ]
    return Document(f"Kernel tables of {f.c.id}", sections or [Section("", [Text("not recorded")])])


def root_cause_blocks(f: Facts) -> list[Block]:
    """Per round: slow stage, statement, cited rows with their source paths."""
    blocks: list[Block] = []
    for event in f.all("rootcause.written"):
        p = event.payload
        blocks.append(Text(f"Round {p['round']}, stage {p['stage']}: {p['statement']} {cite(event)}"))
        blocks.append(row_table(cited_rows(f, event)))
    return blocks or [Text("not recorded")]


def cited_rows(f: Facts, event: Event) -> list[JSON]:
    """The rows of the round's kernel table that an event names in ``rows``, in its order."""
    tables = [e for e in f.all("tables.produced") if e.payload["round"] == event.payload["round"] and e.seq < event.seq]
    known = {row["row_id"]: row for row in tables[-1].payload["rows"]} if tables else {}
    return [known.get(row_id, {"row_id": row_id}) for row_id in event.payload["rows"]]


def root_cause_document(f: Facts) -> Document:
    """``analysis/root-cause.md``."""
    return _per_round(
        f,
        "Root causes",
        "rootcause.written",
        lambda e: [
            Text(f"Stage {e.payload['stage']}: {e.payload['statement']}"),
            row_table(cited_rows(f, e)),
        ],
    )


def capacity_document(f: Facts) -> Document:
    """``analysis/capacity.md``: where the memory of both sides' servers went, latest round first."""
    sections = [
        Section(f"Round {event.payload['round']}, {side} {cite(event)}", [Verbatim(markdown(report))])
        for event in reversed(f.all("tables.produced"))
        for side, report in _capacities(f, event).items()
    ]
    return Document(f"Capacity of {f.c.id}", sections or [Section("", [Text("not recorded")])])


def _capacities(f: Facts, event: Event) -> JSON:
    try:
        found = json.loads(f.text_of(event.payload["tables"]))
    except ValueError:
        return {}
    return dict(found.get("capacity") or {}) if isinstance(found, dict) else {}


def pipeline_document(f: Facts) -> Document:
    """``analysis/layer-pipeline.md``."""
    return _per_round(f, "Layer pipelines", "pipeline.written", lambda e: [])


def _per_round(f: Facts, title: str, type_: str, lead: Callable[[Event], list[Block]]) -> Document:
    sections = [
        Section(
            f"Round {e.payload['round']} at {e.payload['commit']} {cite(e)}",
            [*lead(e), Verbatim(f.text_of(e.payload["document"]))],
        )
        for e in reversed(f.all(type_))
    ]
    return Document(f"{title} of {f.c.id}", sections or [Section("", [Text("not recorded")])])
