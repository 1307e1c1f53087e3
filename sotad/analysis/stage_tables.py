"""The tables of every stage: of one trace, of several added up, and cut to the rows that matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from sotad.analysis.attribution import Attribution
from sotad.analysis.categories import OTHER
from sotad.analysis.fusion import find_fusions
from sotad.analysis.gaps import LaunchGaps
from sotad.analysis.kernel_rows import copy_rows, kernel_rows
from sotad.analysis.mapping import Mapped
from sotad.analysis.operators import OperatorTables
from sotad.analysis.origin import Origin
from sotad.analysis.overlap import Overlap
from sotad.analysis.overlap_rows import overlap_rows
from sotad.analysis.stages import Stages
from sotad.trace.columns import Trace

JSON = dict[str, Any]
UNKNOWN = 5.0  # percent of a stage's kernel time in no category that deserves a warning
UNCERTAIN = "none"  # how a location is known that is not
COUNTED = ("kernel_rows", "copy_rows", "operator_rows")  # these add up by row; other tables are of one file
ADDED = (
    *("kernels", "gpu_time_ms", "copies", "copy_ms", "busy_ms", "single_stream_ms", "multi_stream_ms", "steps_ms"),
    *("idle_ms", "exposed_communication_ms"),
)
LISTS = ("kernel_rows", "overlap_rows", "fuse_rows", "fused_rows", "copy_rows", "operator_rows")


def of_kernels(
    trace: Trace,
    stages: Stages,
    overlap: Overlap,
    sources: Attribution,
    mapped: Mapped | None,
    told: Origin,
    min_share: float,
) -> dict[str, JSON]:
    """The tables of a trace with a device; kernel and copy rows in full. `mapped` knows more than its own sources."""
    if mapped is not None:
        sources = replace(sources, sites=mapped.sites, kernel_site=mapped.kernel_site)
    kernels, copies = kernel_rows(trace, stages, sources, mapped), copy_rows(trace, stages, sources)
    beside = overlap_rows(trace, stages, overlap, sources, framework=told.framework, min_share=min_share)
    known: JSON = {"framework": told.framework, "tp_size": told.tp_size, "model": told.model, "min_share": min_share}
    fusions = find_fusions(trace, stages, sources, **known)
    return {
        name: {
            **_sums(kernels[name], copies[name]),
            **_times(overlap, name),
            "kernel_rows": kernels[name],
            "copy_rows": copies[name],
            "overlap_rows": beside[name],
            "fuse_rows": fusions[name].missing,
            "fused_rows": fusions[name].present,
            "launch_bound": fusions[name].launch_bound,
            "operator_rows": [],
        }
        for name in stages.names
    }


def of_operators(tables: OperatorTables) -> dict[str, JSON]:
    """The tables of a trace without a device."""
    found: dict[str, JSON] = {}
    for row in tables.rows:
        empty: JSON = {**dict.fromkeys(ADDED, 0), **{name: [] for name in LISTS}, "launch_gaps": None}
        empty["launch_bound"] = False
        found.setdefault(row["stage"], empty)["operator_rows"].append(row)
    for stage, row in tables.stages.items():
        if stage in found:
            found[stage]["steps_ms"] = row["total_ms"]
    return found


def _sums(kernels: Sequence[JSON], copies: Sequence[JSON]) -> JSON:
    return {
        "kernels": sum(row["count"] for row in kernels),
        "gpu_time_ms": sum(row["time_ms"] for row in kernels),
        "copies": sum(row["count"] for row in copies),
        "copy_ms": sum(row["time_ms"] for row in copies),
    }


def _times(overlap: Overlap, name: str) -> JSON:
    time = overlap.stages[name]
    return {
        "busy_ms": time.busy_ns / 1e6,
        "single_stream_ms": time.single_stream_ns / 1e6,
        "multi_stream_ms": time.multi_stream_ns / 1e6,
        "steps_ms": time.window_ns / 1e6,
        "idle_ms": time.idle_ns / 1e6,
        "exposed_communication_ms": time.exposed_communication_ns / 1e6,
        "launch_gaps": _gaps(time.gaps),
    }


def _gaps(gaps: LaunchGaps) -> JSON:
    """`between`: the pairs of kernels whose gaps add up to most."""
    return {
        "count": gaps.count,
        "total_ms": gaps.total_ns / 1e6,
        "median_us": gaps.median_ns / 1e3,
        "largest_us": gaps.largest_ns / 1e3,
        "between": [
            {"after": pair.after, "before": pair.before, "count": pair.count, "total_ms": pair.total_ns / 1e6}
            for pair in gaps.between
        ],
    }


def added(parts: Sequence[JSON]) -> JSON:
    """The tables of one stage of several traces as one, at least one; what does not add up is the first one's."""
    return reduce(_added, parts)


def _added(first: JSON, other: JSON) -> JSON:
    sums = {key: first[key] + other[key] for key in ADDED}
    tables = {table: _added_rows(first[table], other[table]) for table in COUNTED}
    return {**first, **sums, **tables}


def _added_rows(first: Sequence[JSON], other: Sequence[JSON]) -> list[JSON]:
    rows = {row["row_id"]: row for row in first}
    for row in other:
        known = rows.get(row["row_id"])
        rows[row["row_id"]] = _added_row(known, row) if known else row
    return sorted(rows.values(), key=lambda row: (-row["time_ms"], row["row_id"]))


def _added_row(first: JSON, other: JSON) -> JSON:
    row = {**first, **{key: first[key] + other[key] for key in ("time_ms", "count")}}
    if "locations" in first:
        row["locations"] = _added_places(first, other, row["time_ms"])
    return row


def _added_places(first: JSON, other: JSON, whole_ms: float) -> list[JSON]:
    """The places of both rows by their share of the time of both."""
    times: dict[tuple[tuple[str, Any], ...], float] = defaultdict(float)
    for row in (first, other):
        for place in row["locations"]:
            times[tuple((key, place[key]) for key in place if key != "share")] += row["time_ms"] * place["share"]
    places = [{**dict(place), "share": time / whole_ms if whole_ms else 0.0} for place, time in times.items()]
    return sorted(places, key=lambda place: (-place["share"], place["matched"] == UNCERTAIN, place["location"]))


def finished(stages: dict[str, JSON], min_share: float) -> list[str]:
    """Fill in shares, categories and what is unresolved, and cut the rows below `min_share`; returns warnings.

    `left_out` tells the number, time and share of the kernel (or operator) rows that were cut.
    """
    warnings = []
    for name, stage in stages.items():
        table = "kernel_rows" if stage["kernels"] else "operator_rows"
        rows = _shared(stage[table])
        stage["copy_rows"] = _shared(stage["copy_rows"])
        stage["categories"] = _categories(rows)
        stage |= _resolved(stage["kernel_rows"])
        kept = [row for row in rows if row["share"] >= min_share]
        stage["left_out"] = _left_out(rows[len(kept) :])
        stage[table] = kept
        other = sum(entry["share"] for entry in stage["categories"] if entry["category"] == OTHER)
        stage["other_share"] = other if stage["kernels"] else None
        if stage["kernels"] and other > UNKNOWN:
            warnings.append(f"{name}: {other:.1f}% of the kernel time is in kernels whose names no rule knows")
    return warnings


def _shared(rows: Sequence[JSON]) -> list[JSON]:
    """Rows with their share of the time of all of them, largest first."""
    whole = sum(row["time_ms"] for row in rows)
    return [{**row, "share": 100 * row["time_ms"] / whole if whole else 0.0} for row in rows]


def _categories(rows: Sequence[JSON]) -> list[JSON]:
    times: dict[str, float] = defaultdict(float)
    for row in rows:
        times[row["category"]] += row["time_ms"]
    entries = [{"category": category, "time_ms": time} for category, time in times.items()]
    return sorted(_shared(entries), key=lambda entry: (-entry["time_ms"], entry["category"]))


def _resolved(rows: Sequence[JSON]) -> JSON:
    """Kernel time without a known line of source; `replay_ms` is the part whose line only replays a CUDA graph."""
    whole = sum(row["time_ms"] for row in rows)
    unknown = [(row, place) for row in rows for place in row["locations"] if place["matched"] == UNCERTAIN]
    unresolved = sum(row["time_ms"] * place["share"] / 100 for row, place in unknown)
    replay = sum(row["time_ms"] * place["share"] / 100 for row, place in unknown if place["replay"])
    share = 100 * unresolved / whole if whole else 0.0
    return {"unresolved_ms": unresolved, "unresolved_share": share, "replay_ms": replay}


def _left_out(rows: Sequence[JSON]) -> JSON:
    sums = {key: sum(row[key] for row in rows) for key in ("count", "time_ms", "share")}
    return {"rows": len(rows), **sums}
