"""A comparison in each format: Markdown, HTML, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sotad.report.document import markdown
from sotad.report.page import html
from sotad.results import tables
from sotad.results.compare import Comparison, Group, compare
from sotad.results.fairness import Fairness, fairness
from sotad.results.files import Read
from sotad.results.handoff import handoffs
from sotad.results.rows import Row

Format = Literal["markdown", "csv", "html", "json"]
METRICS = (
    *("request_throughput", "output_token_throughput", "p50_ttft_ms", "p50_tpot_ms", "mean_ttft_ms", "mean_tpot_ms"),
    *("p99_ttft_ms", "p99_tpot_ms"),
)
CSV_COLUMNS = (
    *("framework", "scenario", "candidate_id", "status", "sla_passed", *METRICS, "mean_accept_length"),
    *("pre_scheduler_ms", "prefix_cache_hit_rate", "gpu_count", "server_command", "failure_reason"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was read, compared and judged; `handoff` is None when no target was asked about."""

    comparison: Comparison
    fair: list[Fairness]
    handoff: list[dict[str, Any]] | None
    notes: list[str]

    def rendered(self, kind: Format) -> bytes:
        """The report in one format, UTF-8."""
        if kind == "csv":
            return _csv(self.comparison).encode()
        if kind == "json":
            return (json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
        found = tables.document(self.comparison, self.fair, self.handoff, self.notes)
        return html(found) if kind == "html" else markdown(found)

    def as_json(self) -> dict[str, Any]:
        """Everything; `ranking` has all rows of a load by rank, those that cannot win last, with rank null."""
        groups = self.comparison.groups
        return {
            "by": self.comparison.by,
            "comparable": _overall(self.fair),
            "winners": self.comparison.winners,
            "ranking": {group.label: group.rows for group in groups},
            "rejected": [_rejected(group, row) for group in groups for row in group.rows if row["reasons"]],
            "fairness": {each.scenario: {"comparable": each.comparable, **asdict(each)} for each in self.fair},
            "noise": {group.label: _noise(group) for group in groups},
            "pareto": {group.label: [_name(row) for row in group.front] for group in groups},
            "gpu_counts_differ": [group.label for group in groups if group.gpus_differ],
            "handoff": self.handoff,
            "notes": [*self.notes, *self.comparison.notes, *([] if self.comparison.rows else [tables.NO_ROWS])],
        }


def report(
    read: Read,
    target: str | None = None,
    sla: Mapping[str, float] | None = None,
    by: Literal["request_throughput", "output_token_throughput"] = "request_throughput",
) -> Report:
    """The report over rows that were read."""
    found = compare(read.rows, sla, by)
    handoff = None if target is None else list(handoffs(found, target))
    return Report(found, fairness(found.groups), handoff, read.notes)


def _overall(fair: Sequence[Fairness]) -> str:
    verdicts = {each.comparable for each in fair}
    return "no" if "no" in verdicts else "unknown" if "unknown" in verdicts or not verdicts else "yes"


def _name(row: Row) -> dict[str, str]:
    return {"framework": row["framework"], "candidate_id": row["candidate_id"]}


def _rejected(group: Group, row: Row) -> dict[str, Any]:
    return {**_name(row), "scenario": group.label, "status": row["status"], "reason": "; ".join(row["reasons"])}


def _noise(group: Group) -> dict[str, Any]:
    preferred = _name(group.preferred) if group.preferred else None
    return {"band_pct": group.noise_pct, "within": [_name(row) for row in group.within_noise], "preferred": preferred}


def _csv(comparison: Comparison) -> str:
    """All rows, by load and rank; what was not measured is an empty cell, 0.0 stays."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for group in comparison.groups:
        for row in group.rows:
            writer.writerow([_cell(value) for value in _columns(group, row)])
    return text.getvalue()


def _columns(group: Group, row: Row) -> tuple[Any, ...]:
    return (
        *(row["framework"], group.label, row["candidate_id"], row["status"], str(row["sla"]["passed"]).lower()),
        *(row["metrics"][name] for name in METRICS),
        *(row["spec_decode"]["mean_accept_length"], row["phase_metrics"].get("pre_scheduler_ms")),
        *(row["cache"]["prefix_cache_hit_rate"], row["hardware"]["gpu_count"], row["server_command"]),
        "; ".join(row["reasons"]),
    )


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula is kept a text."""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return "" if value is None else value
