"""A comparison as a document: the required tables, fairness, the Pareto front and the profiler's hand-off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sotad.report.document import Block, Cells, Code, Document, Items, Section, Table, Text
from sotad.results import pareto, plot
from sotad.results.compare import Comparison, Group, load_text
from sotad.results.fairness import Fairness, Finding
from sotad.results.rows import Row

TITLE = "Benchmark comparison"
NO_ROWS = "No rows found."
ARTIFACTS = ("raw_result", "server_log", "benchmark_log", "summary")
BY_FRAMEWORK = (
    *("Scenario", "Candidate", "Status", "SLA", "Req/s", "Output tok/s", "Total tok/s", "P50 TTFT ms", "P50 TPOT ms"),
    *("Success rate", "Accept len", "Pre-scheduler ms", "Cache hit", "GPUs", "Server command", "Artifacts"),
)
CROSS = (
    *("Scenario", "Rank", "Framework", "Candidate", "SLA", "Req/s", "Output tok/s", "P50 TTFT", "P50 TPOT"),
    *("Accept len", "Pre-scheduler ms", "Cache hit", "GPUs", "Server command"),
)
FAILED = ("Framework", "Candidate", "Status", "SLA", "Reason")
COMPARABLE = {
    "yes": "comparable: every condition that must match does",
    "no": "NOT COMPARABLE, a rank may come from what is not equal: {differs}",
    "unknown": "not known to be comparable, not recorded: {unknown}",
}


def document(
    comparison: Comparison, fair: Sequence[Fairness], handoff: Sequence[Mapping[str, Any]] | None, notes: Sequence[str]
) -> Document:
    """Everything for a reader. `handoff` None: no target was asked about."""
    if not comparison.rows:
        return Document(TITLE, [Section("", [Text(NO_ROWS), Items(notes, empty="")])])
    sections = [
        Section("", list(_summary(comparison, fair))),
        Section("Best Commands By Framework", list(_by_framework(comparison))),
        Section("Cross-Framework Best Comparison", list(_cross(comparison))),
    ]
    if comparison.rejected:
        sections.append(Section("Failed Or SLA-Failing Candidates", list(_failed(comparison))))
    sections.append(Section("Fairness", [block for each in fair for block in _fairness(each)]))
    sections.append(Section("Pareto Front", [*_front(comparison), *plot.plots(comparison)]))
    if handoff is not None:
        sections.append(Section("Profiler Hand-Off", list(_handoff(handoff))))
    if told := [*notes, *comparison.notes, *_origins(comparison.rows)]:
        sections.append(Section("Notes", [Items(told)]))
    return Document(TITLE, sections)


def _summary(comparison: Comparison, fair: Sequence[Fairness]) -> Iterator[Block]:
    first = comparison.by.replace("_", " ")
    swapped = " (swapped by --by: the usual first key is request throughput)" if first.startswith("output") else ""
    yield Text(f"{len(comparison.rows)} rows, ranked by {first}{swapped} among those that ran and meet their SLA.")
    for group in comparison.groups:
        if any(row["status"] == "ok" for row in group.rows):
            yield Text(f"{group.label}: {_winner(group, comparison.by)}", strong=True)
    yield Items([f"{each.scenario}: {verdict_text(each)}." for each in fair], empty="No row ran.")


def _winner(group: Group, by: str) -> str:
    if not group.passing:
        return "no winner, no row ran and met its SLA."
    first = group.passing[0]
    unit = "requests" if by == "request_throughput" else "output tokens"
    told = f"{_id(first)} is first with {_number(first['metrics'][by])} {unit} per second."
    others = [_id(row) for row in group.within_noise if row is not first]
    if others:
        told += f" Within {group.noise_pct:.2g}% of it, which single runs cannot tell apart: {', '.join(others)}."
        if group.preferred is not None and group.preferred is not first:
            told += f" Were these equal, the next figures would put {_id(group.preferred)} first."
    return told


def verdict_text(fair: Fairness) -> str:
    """Comparable or not, and through which conditions."""
    text = COMPARABLE[fair.comparable]
    return text.format(differs=", ".join(fair.of("differs")), unknown=", ".join(fair.of("unknown")))


def _by_framework(comparison: Comparison) -> Iterator[Block]:
    for name in sorted({row["framework"] for row in comparison.rows}):
        best = [(group, row) for group in comparison.groups for row in group.best if row["framework"] == name]
        cells = [
            (
                *(group.label, row["candidate_id"], row["status"], _sla(row)),
                *_metrics(row, "request_throughput", "output_token_throughput", "total_token_throughput"),
                *_metrics(row, "p50_ttft_ms", "p50_tpot_ms", "success_rate"),
                *(*_observed(row), row["server_command"] or "", _artifacts(row["artifacts"])),
            )
            for group, row in best
        ]
        yield Text(name, strong=True)
        yield Table(BY_FRAMEWORK, cells, empty="No candidate ran and met its SLA.")


def _cross(comparison: Comparison) -> Iterator[Block]:
    differ = any(group.gpus_differ for group in comparison.groups)
    headers = (*CROSS[:-1], "Req/s/GPU", "Output tok/s/GPU", CROSS[-1]) if differ else CROSS
    cells = []
    for group in comparison.groups:
        for rank, row in enumerate(group.best, 1):
            rates = [
                _number(pareto.normalised(row, name)) for name in ("request_throughput", "output_token_throughput")
            ]
            cells.append(
                (
                    *(group.label, str(rank), row["framework"], row["candidate_id"], _sla(row)),
                    *_metrics(row, "request_throughput", "output_token_throughput", "p50_ttft_ms", "p50_tpot_ms"),
                    *(*_observed(row), *(rates if differ else ()), row["server_command"] or ""),
                )
            )
    if differ:
        yield Text("GPU counts differ: this is not like for like. Read the figures per GPU with care.", strong=True)
    yield Table(headers, cells, empty="No candidate ran and met its SLA.")


def _failed(comparison: Comparison) -> Iterator[Block]:
    yield Text("Tried, but not selected:")
    cells = [
        (row["framework"], row["candidate_id"], row["status"], _sla(row), f"{group.label}: {'; '.join(row['reasons'])}")
        for group in comparison.groups
        for row in group.rows
        if row["reasons"]
    ]
    yield Table(FAILED, sorted(cells))


def _fairness(fair: Fairness) -> Iterator[Block]:
    sides = list(dict.fromkeys(name for finding in fair.findings for name in finding.values))
    yield Text(f"{fair.scenario}: {verdict_text(fair)}.", strong=True)
    cells = [(each.condition, *(_values(each, side) for side in sides), each.verdict) for each in fair.findings]
    yield Table(("Condition", *sides, "Verdict"), cells)


def _values(finding: Finding, side: str) -> str:
    return ", ".join(_plain(value) for value in finding.values.get(side, [])) or "-"


def _plain(value: Any) -> str:
    if value in (None, {}):
        return "unknown"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in sorted(value.items()))
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _front(comparison: Comparison) -> Iterator[Block]:
    yield Text("Rows that no other row under the same load beats in throughput, TTFT and TPOT together.")
    cells = [
        (
            *(group.label, row["framework"], row["candidate_id"], _sla(row), load_text(row)),
            _number(pareto.normalised(row, comparison.by) if group.gpus_differ else row["metrics"][comparison.by]),
            *_metrics(row, "p50_ttft_ms", "p50_tpot_ms"),
        )
        for group in comparison.groups
        for row in group.front
    ]
    per_gpu = " per GPU" if any(group.gpus_differ for group in comparison.groups) else ""
    rate = f"{comparison.by.replace('_', ' ')}{per_gpu}"
    headers = ("Scenario", "Framework", "Candidate", "SLA", "Load", rate, "P50 TTFT ms", "P50 TPOT ms")
    yield Table(headers, cells, empty="No row has all three figures.")


def _handoff(records: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    if not records:
        yield Text("The target is behind nowhere.")
    for record in records:
        gap = "unknown" if record["gap_pct"] is None else f"{record['gap_pct']:.2f}%"
        noise = (
            " This is within the noise of single runs: repeat both before profiling." if record["within_noise"] else ""
        )
        sla = f" The target cannot win there: {'; '.join(record['sla_gap'])}." if record["sla_gap"] else ""
        names = [f"{record[f'{side}_framework']}/{record[f'{side}_candidate']}" for side in ("slow", "fast")]
        lengths = f"{record['input_len']} -> {record['output_len']} tokens ({record['bucket']})"
        running = "an unknown number of" if record["concurrency"] is None else record["concurrency"]
        behind = f"{names[0]} is behind {names[1]} by {gap} of {record['metric']}"
        yield Text(f"{record['scenario']}, {lengths}: {behind}.{sla}{noise}")
        yield Items([f"profile with {running} requests running"])
        yield Code("\n".join(f"{stage}: {text}" for stage, text in record["commands"].items()))


def _origins(rows: Iterable[Row]) -> list[str]:
    told = {(f"{row['framework']}/{row['candidate_id']}", row["normalization"].get("notes")) for row in rows}
    return [f"{name}: {_plain(note)}" for name, note in sorted(told, key=str) if note]


def _id(row: Row) -> str:
    return f"{row['framework']}/{row['candidate_id']}"


def _sla(row: Row) -> str:
    return "passed" if row["sla"]["passed"] else "failed"


def _metrics(row: Row, *names: str) -> Cells:
    return [_number(row["metrics"][name]) for name in names]


def _observed(row: Row) -> Cells:
    figures = (row["spec_decode"]["mean_accept_length"], row["phase_metrics"].get("pre_scheduler_ms"))
    gpus = row["hardware"]["gpu_count"]
    return [*map(_number, (*figures, row["cache"]["prefix_cache_hit_rate"])), "" if gpus is None else str(gpus)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _artifacts(found: Any) -> str:
    if not isinstance(found, Mapping):
        return ""
    return ", ".join(f"{name}: {_plain(found[name])}" for name in ARTIFACTS if found.get(name))
