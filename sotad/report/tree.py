"""The artifact tree: every file of a campaign's folder, from its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ledger.events import Event
from sotad.report import analysis, conditions, gaps, measurements
from sotad.report.attempts import patch_files
from sotad.report.checkpoint import checkpoint_document
from sotad.report.document import Document, Section, markdown
from sotad.report.facts import Facts
from sotad.report.final import final_document
from sotad.report.ledgers import ledger_files
from sotad.report.page import html
from sotad.report.timeline import timeline_document
from statemachine.state import Campaign


def build(campaign: Campaign, events: Sequence[Event], read: Callable[[str], bytes]) -> dict[str, bytes]:
    """The report and artifact tree of a campaign: relative file names to contents.

    Works in every phase; what is not there is said not to be recorded. Same events, same bytes.
    ``events`` may hold other campaigns' events and the daemon's. ``read`` returns an artifact by its SHA-256;
    one that it cannot return (OSError, LookupError, LedgerError) is named in the report. Traces are held in
    memory.
    """
    f = Facts(campaign, events, read)
    files = dict(_copies(f))
    files["benchmark/candidates.jsonl"] = measurements.json_lines(measurements.candidate_rows(f))
    files |= {f"humanize/{name}": data for name, data in ledger_files(f).items()}
    files |= {name: markdown(document) for name, document in _documents(f).items()}
    final = final_document(f)  # last: it names every artifact that could not be read
    files["final_report.md"] = markdown(final)
    files["final_report.html"] = html(final)
    return dict(sorted(files.items()))


def _copies(f: Facts) -> Iterator[tuple[str, bytes]]:
    """The files that are artifacts themselves."""
    sources = (
        (conditions.help_files(f), "help"),
        (analysis.profile_files(f), "trace"),
        (patch_files(f), "diff"),
    )
    for files, key in sources:
        for name, event in files.items():
            data = f.bytes_of(event.payload[key])
            if data is not None:
                yield name, data


def _documents(f: Facts) -> dict[str, Document]:
    winners = measurements.winner_blocks(f)
    return {
        "manifest.md": conditions.manifest_document(f),
        "events.md": timeline_document(f),
        "benchmark/summary.md": measurements.summary_document(f),
        "benchmark/winning-commands.md": Document(f"Winning commands of {f.c.id}", [Section("", winners)]),
        "benchmark/fairness/diagnostics.md": gaps.fairness_document(f),
        "history/model-pr-history-notes.md": analysis.history_document(f),
        "analysis/root-cause.md": analysis.root_cause_document(f),
        "analysis/layer-pipeline.md": analysis.pipeline_document(f),
        "analysis/capacity.md": analysis.capacity_document(f),
        "analysis/kernel-table.md": analysis.kernel_document(f),
        "humanize/model-loop-checkpoint.md": checkpoint_document(f),
    }
