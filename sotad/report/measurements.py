"""What the search measured: every row, the winners and their commands, and what did not make it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator

from ledger.events import Event
from sotad.benchmark.metrics import failed_row
from sotad.report.document import Block, Code, Document, Section, Table, Text
from sotad.report.facts import Facts, Measured, cite, number, said
from statemachine.ranking import SlaFailure, passes, ranking_key, sla_failures
from statemachine.state import JSON

FIGURES = ("request_throughput", "output_token_throughput", "p50_ttft_ms", "p50_tpot_ms", "success_rate")
FIGURE_HEADERS = ("requests/s", "output tokens/s", "p50 TTFT ms", "p50 TPOT ms", "success rate")


def json_lines(entries: Iterable[JSON]) -> bytes:
    """One JSON object per line, keys sorted."""
    return "".join(json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n" for entry in entries).encode()


def candidate_rows(f: Facts) -> list[JSON]:
    """Every row of the campaign, and one for each candidate that failed, was lost or was skipped.

    Beside the row's own keys: ``event`` (its seq), ``launch``, ``attempt``, ``purpose``, ``run``, ``seed``,
    and ``counts``, which is false when the row became void and was not used.
    """
    rows = [*map(_measured_row, f.rows), *_unmeasured_rows(f)]
    return sorted(rows, key=lambda row: row["event"])


def _measured_row(found: Measured) -> JSON:
    origin = {"event": found.seq, **{name: getattr(found, name) for name in _ORIGIN}}
    return {"framework": found.framework, "candidate_id": found.candidate, **found.row, **origin}


_ORIGIN = ("launch", "attempt", "purpose", "scenario", "run", "seed", "counts")


def _unmeasured_rows(f: Facts) -> Iterator[JSON]:
    for event in f.all("candidate.failed", "candidate.lost"):
        start = f.launched[event.payload["launch"], event.payload["attempt"]].payload
        status = event.payload.get("status", "lost")
        origin = {"launch": start["launch"], "attempt": start["attempt"], "purpose": start["purpose"]}
        yield _unmeasured(f, event, status, start) | origin
    for event in f.all("candidate.skipped"):
        yield _unmeasured(f, event, "skipped", event.payload) | {"purpose": "search"}
    for event in f.all("candidate.curtailed"):
        origin = {name: event.payload[name] for name in ("launch", "attempt", "scenario")}
        yield _unmeasured(f, event, "skipped", event.payload) | {"purpose": "search"} | origin


def _unmeasured(f: Facts, event: Event, status: str, start: JSON) -> JSON:
    known: JSON = {
        "framework": start["framework"],
        "framework_version": f.c.probes.get(start["framework"], {}).get("version"),
        "framework_commit": start.get("commit"),
        "candidate_id": start["candidate"],
        "model": f.spec["model"]["id"],
        "server_command": shlex.join(start["command"]) if "command" in start else None,
    }
    row = failed_row("failed", event.payload["reason"], known, f.spec["sla"])
    return row | {"status": status, "event": event.seq, "counts": False}


# --- tables ---------------------------------------------------------------------------------------------


def ranking(f: Facts, scenario: str) -> list[Measured]:
    """The search's rows of a scenario, best first."""
    sla = f.spec["sla"]
    rows = [found for found in f.search_rows() if found.scenario == scenario]
    return sorted(rows, key=lambda found: ranking_key(found.row, sla), reverse=True)


def sla_text(f: Facts, row: JSON) -> str:
    """``met``, or every limit that the row misses and by what."""
    if row["status"] != "ok":
        return f"not judged: {row['status']}"
    return "; ".join(map(_miss, sla_failures(row["metrics"], f.spec["sla"]))) or "met"


def _miss(missed: SlaFailure) -> str:
    if missed.limit is None:
        return f"the SLA has no {missed.key}"
    return f"misses {missed.key} {missed.limit:g}: {number(missed.observed)}"


def figures(metrics: JSON | None) -> list[str]:
    """The figures of a row, in the order of ``FIGURE_HEADERS``."""
    return [number((metrics or {}).get(name)) for name in FIGURES]


def ranking_tables(f: Facts) -> list[Block]:
    """Per scenario, every candidate of every framework by rank."""
    blocks: list[Block] = []
    for scenario in f.c.scenarios if f.spec else []:
        rows = [
            (str(rank), m.framework, m.candidate, sla_text(f, m.row), *figures(m.row["metrics"]), cite(m.seq))
            for rank, m in enumerate(ranking(f, scenario), 1)
        ]
        headers = ("rank", "framework", "candidate", "SLA", *FIGURE_HEADERS, "event")
        blocks += [Text(f"Scenario {scenario}:"), Table(headers, rows)]
    return blocks or [Text("not recorded")]


def rejected_table(f: Facts) -> Table:
    """Candidates of the search that failed, were lost or skipped, or miss the SLA, each with its reason."""
    rows = [
        (
            str(row["framework"]),
            str(row["candidate_id"]),
            row["status"],
            said(row["failure_reason"]),
            cite(row["event"]),
        )
        for row in _unmeasured_rows(f)
        if row["purpose"] == "search"
    ]
    rows += [
        (m.framework, m.candidate, _out(m), _why_out(f, m), cite(m.seq))
        for m in f.search_rows()
        if not passes(m.row, f.spec["sla"])
    ]
    return Table(("framework", "candidate", "status", "reason", "event"), rows, empty="none recorded")


def _out(found: Measured) -> str:
    status = "SLA missed" if found.row["status"] == "ok" else found.row["status"]
    return f"{status} on {found.scenario}"


def _why_out(f: Facts, found: Measured) -> str:
    return sla_text(f, found.row) if found.row["status"] == "ok" else said(found.row.get("failure_reason"))


def winner_blocks(f: Facts) -> list[Block]:
    """Per framework and scenario the winner, why it won, and the commands to repeat it."""
    blocks: list[Block] = []
    for event in f.latest("winner.selected", "framework", "scenario"):
        p = event.payload
        name = p.get("candidate") or "no winner"
        blocks.append(Text(f"{p['framework']}, {p['scenario']}: {name}. {p['reason']} {cite(event)}", strong=True))
        if p.get("candidate"):
            blocks += _commands(f, p["framework"], p["scenario"], p["candidate"])
    return blocks or [Text("not recorded")]


def _commands(f: Facts, framework: str, scenario: str, candidate: str) -> Iterator[Block]:
    launches = [
        e.payload | {"seq": e.seq}
        for e in f.launched.values()
        if (e.payload["purpose"], e.payload["framework"], e.payload["candidate"]) == ("search", framework, candidate)
    ]
    rows = [m for m in ranking(f, scenario) if (m.framework, m.candidate) == (framework, candidate)]
    for launch in launches[-1:]:
        yield Text(f"Server, commit {launch['commit']} {cite(launch['seq'])}:")
        yield Code(shlex.join(launch["command"]))
        if launch["dropped_flags"]:
            yield Text(f"Flags that the help text does not know, left out: {', '.join(launch['dropped_flags'])}")
        if launch.get("translated_flags"):
            renamed = ", ".join(f"{old} as {new}" for old, new in launch["translated_flags"].items())
            yield Text(f"Flags that this version calls otherwise: {renamed}")
        if launch.get("flags_from") == "static":
            yield Text("No help text could be captured: only flags of the driver's own list were passed.")
    for found in rows[:1]:
        command = found.row.get("benchmark_command")
        yield Text(f"Load, seed {found.seed} {cite(found.seq)}:")
        yield Code(command if isinstance(command, str) else shlex.join(command or ["not recorded"]))


def goodput_table(f: Facts) -> Table:
    """The highest request rate within the SLA of each winner, and every rate that was tested."""
    rows = [
        (
            str(e.payload["framework"]),
            str(e.payload["scenario"]),
            number(e.payload.get("rate")),
            str(e.payload["reason"]),
            ", ".join(f"{number(t['rate'])} {'met' if t['passed'] else 'missed'}" for t in e.payload["tests"]),
            cite(e),
        )
        for e in f.latest("goodput.found", "framework", "scenario")
    ]
    headers = ("framework", "scenario", "goodput, requests/s", "meaning", "tested rates", "event")
    return Table(headers, rows, empty="No rate search was asked for.")


def disturbed_table(f: Facts) -> Table:
    """Samples that were thrown out and measured again, with the reason."""
    rows = [
        (str(p["launch"]), str(p["scenario"]), str(p["run"]), "; ".join(p["reasons"]), cite(e))
        for e in f.all("benchmark.disturbed")
        for p in (e.payload,)
    ]
    return Table(("launch", "scenario", "run", "reason", "event"), rows, empty="No sample was disturbed.")


def summary_document(f: Facts) -> Document:
    """``benchmark/summary.md``."""
    return Document(
        f"Benchmark summary of {f.c.id}",
        [
            Section("Candidates by rank", ranking_tables(f)),
            Section("Failed and SLA-missing candidates", [rejected_table(f)]),
            Section("Goodput under the SLA", [goodput_table(f)]),
            Section("Disturbed samples", [disturbed_table(f)]),
        ],
    )
