"""The lineage: every version of the target that was committed, and the one it was made from."""

from __future__ import annotations

from collections.abc import Iterator

from ledger.events import Event
from sotad.report.attempts import kind_of, verdict_of
from sotad.report.facts import Facts
from statemachine.state import JSON


def lineage(f: Facts) -> Iterator[JSON]:
    """One entry per version: the base, then every patch that was committed; ``selected``: it is the champion."""
    for event in f.all("loop.started"):
        version = _version(f, event, event.payload["base_commit"], None)
        yield version | {"mutation": "base", "motivation": "as checked at intake", "evidence": [], "result": "base"}
    for event in f.all("patch.applied"):
        p, attempt = event.payload, f.c.attempts[event.payload["attempt_id"]]
        known = {"attempt_id": attempt.attempt_id, "kind": kind_of(attempt), "mutation": p["subject"]}
        why = {"motivation": attempt.hypothesis, "evidence": attempt.citations, "result": verdict_of(f, attempt)}
        yield _version(f, event, p["commit"], p["base"]) | known | why


def _version(f: Facts, event: Event, commit: str, parent: str | None) -> JSON:
    selected = commit == f.c.champion
    return {"version_id": commit, "parent_id": parent, "commit": commit, "selected": selected, "event": event.seq}
