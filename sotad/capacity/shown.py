"""The report as Markdown: what a person reads first comes first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LABELS = {
    "framework_overhead": "driver, contexts, communication (before the weights)",
    "communicators": "of it process groups",
    "before_weights": "(free before the weights)",
    "weights": "model weights",
    "kv_pool": "KV cache pool",
    "state_pool": "recurrent-state pool",
    "draft_weights": "draft model's weights",
    "draft_kv_pool": "draft model's KV pool",
    "cuda_graph": "CUDA graphs",
    "activation": "activation peak",
    "non_torch": "outside PyTorch",
    "unattributed_pool": "between weights and pool, in no line",
    "after_pool": "(free after the pools)",
    "unattributed_graph": "after the pool, in no line",
    "unattributed": "in no line",
    "free": "free after the start",
    "known_sum": "sum of what is known",
    "smi_used": "in use by nvidia-smi",
    "other": "in use, in no line",
    "requested": "asked for",
    "unbudgeted": "asked for, in no line",
    "device_total": "device",
}
_ALWAYS = ("weights", "kv_pool", "cuda_graph", "free", "device_total")


def markdown(report: Mapping[str, Any]) -> str:
    """All of it, ending with a newline."""
    parts = [
        _head(report),
        _problems(report),
        _memory(report),
        _ranks(report["ranks"]),
        _concurrency(report),
        _observed(report),
        _tuning(report["tuning"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; None is unknown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    shown = "unknown" if value is None else f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
    return shown.replace("|", "\\|").replace("\n", " ")


def _head(report: Mapping[str, Any]) -> str:
    session, tokens = report["session"], report["kv_cache_tokens"]
    version = f" {report['framework_version']}" if report["framework_version"] else ""
    source = report["kv_cache_tokens_from"]
    cited = f" ({_from(source)})" if tokens is not None else ""
    rows = [
        f"# Capacity of {report['model'] or 'a model that the log does not name'}",
        "",
        f"- framework: {report['framework']}{version}; log: {report['log']}, session {session['number']} of "
        f"{session['of']}, lines {session['lines'][0]}-{session['lines'][1]}",
        f"- KV cache: {_cell(tokens)} tokens{cited}, {_cell(report['kv_cache_dtype'])}, "
        f"page {_cell(report['page_size'])}",
        f"- bytes for a token: {_cell(report['kv_bytes_per_token'])} ({_from(report['kv_bytes_per_token_from'])})",
        f"- requests at once: {_cell(report['max_running_requests'])}; "
        f"context: {_cell(report['context_length'])} tokens",
        f"- parallelism: {_parallel(report['settings'])}",
        f"- evidence: {report['evidence']}",
    ]
    if len(report["pools"]) > 1:
        rows.append(f"- pools: {len(report['pools'])}, together {_cell(report['kv_cache_tokens_all_pools'])} tokens")
    return "\n".join(rows)


def _parallel(settings: Mapping[str, Mapping[str, Any]]) -> str:
    named = [("TP", "tp_size"), ("PP", "pp_size"), ("DP", "dp_size"), ("EP", "ep_size")]
    return ", ".join(f"{name} {settings[key]['value'] if key in settings else 'unknown'}" for name, key in named)


def _from(source: Mapping[str, Any]) -> str:
    """``read, line 12`` or ``derived: formula, lines 3 and 4``."""
    lines = sorted(set(source.get("lines", ())))
    cited = (f"line {lines[0]}" if len(lines) == 1 else f"lines {', '.join(map(str, lines[:6]))}") if lines else ""
    formula = source.get("formula", "")
    told = source["source"] + (f": {formula}" if formula else "")
    return f"{told}, {cited}" if cited else told


def _problems(report: Mapping[str, Any]) -> str:
    lines = []
    if oom := report["oom"]:
        lines += ["## Out of memory", "", f"Line {oom['line']}, phase {oom['phase']}: {oom['cause']}.", ""]
        lines += [f"> {oom['text']}", "", *(f"{at}. {remedy}" for at, remedy in enumerate(oom["remedies"], 1))]
        if fraction := oom["smallest_fraction"]:
            lines.append(
                f"\nSmallest memory fraction that leaves a pool: {fraction['formula']}; "
                f"with a margin {fraction['with_margin']}"
            )
        if oom["longest_model_length"]:
            lines.append(f"\nThe server says that a context of {oom['longest_model_length']} tokens would fit.")
        lines.append("")
    if report["warnings"]:
        lines += ["## Warnings", "", *(f"- {warning}" for warning in report["warnings"])]
    return "\n".join(lines).rstrip()


def _memory(report: Mapping[str, Any]) -> str:
    memory = report["memory_breakdown"]
    parts = memory["provenance"]
    whole = parts["device_total"]["bytes"]
    rows = []
    for name, label in LABELS.items():
        part = parts.get(name)
        if part is None or (part["bytes"] is None and name not in _ALWAYS):
            continue
        share = f"{100 * part['bytes'] / whole:.1f}" if whole and part["bytes"] is not None else None
        rows.append((label, part["gib"], share, _from(part) if part["bytes"] is not None else part.get("why", "")))
    ways = [name for name in parts if name.startswith("weights_") and parts[name]["bytes"] is not None]
    note = (
        ""
        if len(ways) < 2
        else "\n\nWeights by other ways: "
        + "; ".join(f"{name.removeprefix('weights_').replace('_', ' ')} {parts[name]['gib']} GiB" for name in ways)
    )
    return f"## Memory of {memory['rank']}\n\n" + table(("what", "GiB", "% of device", "from"), rows) + note


def _ranks(ranks: Sequence[Mapping[str, Any]]) -> str:
    if len(ranks) < 2:
        return ""
    names = ("before_weights", "weights", "kv_pool", "after_pool", "cuda_graph", "free")
    rows = [(rank["rank"], *(rank[f"{name}_gib"] for name in names)) for rank in ranks]
    return "## Ranks, GiB\n\n" + table(("rank", *(name.replace("_", " ") for name in names)), rows)


def _concurrency(report: Mapping[str, Any]) -> str:
    header = ("tokens a request", "by tokens", "by request limit", "at once", "binding")
    rows = [
        (row["request_tokens"], row["token_limit"], row["request_limit"], row["max_concurrent"], row["binding"])
        for row in report["concurrency"]
    ]
    lines = ["## Requests at once", "", table(header, rows)]
    for row in report["concurrency"]:
        if "token_limit_at_mean_length" in row:
            mean = _cell(row["token_limit_at_mean_length"])
            lines.append(
                f"\nAt {row['request_tokens']} tokens with {row['input_tokens']} of them input: {mean} by mean length."
            )
    for row in report["reported_concurrency"]:
        off = _cell(row["difference_pct"])
        lines.append(
            f"\nThe server itself says {row['reported']} of {row['request_tokens']} tokens; "
            f"here {row['computed']} ({off} %)."
        )
    return "\n".join(lines)


def _observed(report: Mapping[str, Any]) -> str:
    seen = report["observed"]
    if not seen:
        return ""
    rows = [
        (name.replace("_", " "), seen[name]["max"], seen[name]["p95"])
        for name in ("running", "queued", "pool_usage")
        if seen[name]
    ]
    told = f"{seen['load_lines']} load lines, retractions: {seen['retractions']}, met first: {seen['met_first']}"
    return "## Seen under load\n\n" + table(("what", "max", "p95"), rows) + "\n\n" + told


def _tuning(notes: Sequence[Mapping[str, Any]]) -> str:
    if not notes:
        return ""
    header = ("note", "flag", "from", "to", "tokens then", "formula", "risk")
    rows = [
        (
            note["note"],
            note["flag"],
            _plain(note["from"]),
            _plain(note["to"]),
            _plain(note["expected_tokens"]),
            note["formula"],
            note["risk"],
        )
        for note in notes
    ]
    return "## Could be changed\n\n" + table(header, rows)


def _plain(value: object) -> object:
    return "" if value is None else value
