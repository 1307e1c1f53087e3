"""The checkpoint: where the loop stands, as data that a person or another machine can go on from."""

from __future__ import annotations

import json

from ledger.events import Event
from sotad.report import agents, people, plans
from sotad.report.attempts import attempt_entries
from sotad.report.digests import digest_entries
from sotad.report.document import Block, Code, Document, Section, Table, Text
from sotad.report.facts import Facts, cite
from sotad.report.ideas import idea_entries
from sotad.report.issues import issue_entries
from sotad.report.optimizations import optimization_entries
from statemachine import evidence
from statemachine.state import JSON, Campaign


def checkpoint_of(f: Facts) -> JSON:
    """The loop's position; requires a spec. The held-out variants are in the ledger and nowhere else."""
    c = f.c
    return {
        **_conditions(f),
        "round": c.round,
        "branch": c.branch,
        "commit": c.champion,
        "base_commit": _base(f),
        "plan": {key: plans.plan_of(f).get(key) for key in ("version", "digest", "event")},
        "criteria": plans.criteria(f),
        "winners": c.winners,
        "best_rows": _best_rows(c),
        "residual_gap": c.gaps[-1] if c.gaps else None,
        "gaps": c.gaps,
        "patches": [_patch(entry) for entry in attempt_entries(f)],
        "optimizations": optimization_entries(f),
        "profile_rows": c.tables.get("rows", []),
        "root_cause": c.rootcause,
        "history_notes": _artifacts(f, "history.noted", "notes"),
        "layer_notes": _artifacts(f, "pipeline.written", "document"),
        "profile_digests": [_digest(entry) for entry in digest_entries(f)],
        "rejected_ideas": [entry for entry in idea_entries(f) if entry["status"] == "rejected"],
        "open_issues": [entry for entry in issue_entries(f) if entry["status"] == "open"],
        "waits": [entry for entry in people.waits(f) if entry["reply"] is None],
        "next_patch": _next_patch(f),
        "spent": agents.spent(f.all("agent.finished")),
        "budget": c.spec.get("budget"),
    }


def _conditions(f: Facts) -> JSON:
    """What must be the same for results to be comparable, and who is compared."""
    c, model = f.c, f.spec["model"]
    return {
        "campaign": c.id,
        "spec_digest": c.spec_digest,
        "model": model,
        "tokenizer": model.get("tokenizer") or model["id"],
        "precision": model.get("precision"),
        "quantization": model.get("quantization"),
        "hardware": f.spec["hardware"],
        "host": c.host,
        "harness": c.harness or None,
        "workload": f.spec["workload"],
        "workload_digest": c.workload_digest,
        "sla": f.spec["sla"],
        "decision": f.spec["decision"],
        "artifact_root": f"reports/{c.id}",
        "comparison_set": {
            name: {"role": entry["role"], **{key: c.probes.get(name, {}).get(key) for key in ("version", "commit")}}
            for name, entry in f.frameworks.items()
            if name not in c.unsupported
        },
        "exclusions": {**f.spec.get("excluded", {}), **c.unsupported},
    }


def _base(f: Facts) -> str | None:
    started = f.last("loop.started")
    return started.payload["base_commit"] if started else None


def _best_rows(c: Campaign) -> JSON:
    """The target's best row of the search on each scenario; what patches gained since is in ``optimizations``."""
    return {scenario: evidence.winner(c, c.target, scenario) for scenario in c.scenarios}


_OF_PATCH = (
    *("attempt_id", "round", "kind", "verdict", "failure"),
    *("base_commit", "patch_commit", "files", "diff", "tests"),
)


def _patch(entry: JSON) -> JSON:
    return {key: entry[key] for key in _OF_PATCH if key in entry}


def _digest(entry: JSON) -> JSON:
    return {key: entry[key] for key in ("digest_id", "framework", "commit", "file", "stale", "event")}


def _artifacts(f: Facts, type_: str, key: str) -> list[JSON]:
    return [{"sha256": event.payload[key]["sha256"], "event": event.seq} for event in f.all(type_)]


def _next_patch(f: Facts) -> JSON | None:
    """The first row that nobody tried or rejected; None when there is none on record."""
    rows = evidence.plausible_rows(f.c)
    if not rows:
        return None
    return {"row": evidence.table_row(f.c, rows[0]) or {"row_id": rows[0]}, "statement": f.c.rootcause.get("statement")}


def checkpoint_json(f: Facts) -> bytes:
    """The checkpoint as the artifact that an event names."""
    return json.dumps(checkpoint_of(f), sort_keys=True, indent=1, ensure_ascii=False).encode()


# --- documents --------------------------------------------------------------------------------------------


def checkpoint_document(f: Facts) -> Document:
    """``model-loop-checkpoint.md``: the latest checkpoint, and where the earlier ones are."""
    events = f.all("checkpoint.written")
    sections = [Section(_title(event), [Code(f.text_of(event.payload["document"]))]) for event in events[-1:]]
    found = sections or [Section("", [Text("not recorded")])]
    return Document(f"Checkpoint of {f.c.id}", [*found, *_earlier(events)])


def _title(event: Event) -> str:
    return f"Round {event.payload['round']} at {event.payload['commit']} {cite(event)}"


def _earlier(events: list[Event]) -> list[Section]:
    rows = [
        (str(e.payload["round"]), e.payload["commit"], e.payload["document"]["sha256"], cite(e)) for e in events[:-1]
    ]
    blocks: list[Block] = [Table(("round", "commit", "artifact", "event"), rows)]
    return [Section("Earlier", blocks)] if rows else []
