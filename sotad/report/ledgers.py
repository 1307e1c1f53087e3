"""The loop's ledgers as files: JSON Lines for machines, Markdown for people. Regenerated, never read back."""

from __future__ import annotations

from sotad.report.attempts import attempt_document, attempt_entries
from sotad.report.digests import digest_documents, digest_entries
from sotad.report.document import Document, Items, Section, markdown
from sotad.report.facts import Facts
from sotad.report.ideas import idea_document, idea_entries
from sotad.report.issues import issue_document, issue_entries
from sotad.report.lineage import lineage
from sotad.report.measurements import json_lines
from sotad.report.optimizations import optimization_document, optimization_entries
from sotad.report.people import wait_blocks
from sotad.report.plans import plan_blocks


def ledger_files(f: Facts) -> dict[str, bytes]:
    """Relative name to content of every ledger; same events, same bytes."""
    entries = {
        "attempt-ledger.jsonl": attempt_entries(f),
        "optimization-ledger.jsonl": optimization_entries(f),
        "source-idea-ledger.jsonl": idea_entries(f),
        "issue-ledger.jsonl": issue_entries(f),
        "lineage.jsonl": lineage(f),
        "profile-digests/digests.jsonl": digest_entries(f),
    }
    documents = {
        "plan.md": _plan_document(f),
        "attempt-ledger.md": attempt_document(f),
        "optimization-ledger.md": optimization_document(f),
        "source-idea-ledger.md": idea_document(f),
        "issue-ledger.md": issue_document(f),
        **digest_documents(f),
    }
    written = {name: json_lines(found) for name, found in entries.items()}
    return dict(sorted((written | {name: markdown(document) for name, document in documents.items()}).items()))


def _plan_document(f: Facts) -> Document:
    sections = [
        Section("Plan", plan_blocks(f) or [Items([])]),
        Section("Questions and approvals", wait_blocks(f) or [Items([], empty="Nobody was asked anything.")]),
    ]
    return Document(f"Plan of {f.c.id}", sections)
