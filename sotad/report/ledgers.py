"""The loop's ledgers: attempts, optimizations, ideas, lineage. Failed attempts are kept like the others."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from statistics import fmean

from ledger.events import Event
from sotad.report.document import Block, Document, Items, Section, Table, Text
from sotad.report.facts import Facts, cite, file_name, number, said
from sotad.report.gaps import INTERVAL_HEADERS, interval, interval_cells
from statemachine.state import JSON, Attempt


def patch_files(f: Facts) -> dict[str, Event]:
    """Where the diff of each applied patch lies in the tree."""
    return {f"patches/{file_name(e.payload['attempt_id'])}.diff": e for e in f.all("patch.applied")}


def of_attempt(f: Facts, attempt_id: str, *types: str) -> list[Event]:
    """The events of these types that name the attempt."""
    return [event for event in f.all(*types) if event.payload["attempt_id"] == attempt_id]


# --- attempts ---------------------------------------------------------------------------------------------


def attempt_document(f: Facts) -> Document:
    """``humanize/attempt-ledger.md``: every attempt, also the failed and the refused."""
    sections = [Section(attempt_title(a), attempt_blocks(f, a)) for a in f.c.attempts.values()]
    sections.append(Section("Refused before they became attempts", [refused_table(f)]))
    return Document(f"Attempts of {f.c.id}", sections)


def attempt_title(attempt: Attempt) -> str:
    """Its name and how it ended."""
    by = f" by {attempt.refused_by}" if attempt.refused_by else ""
    return f"{attempt.attempt_id}: {attempt.status}{by}"


def attempt_blocks(f: Facts, attempt: Attempt) -> list[Block]:
    """Hypothesis and citations, commit and files, gates, tests, equivalence, effect."""
    facts = [
        f"round {attempt.round}; based on {attempt.base} {cite(attempt.seq)}",
        f"hypothesis: {said(attempt.hypothesis)}",
        f"cited rows: {', '.join(attempt.citations) or 'not recorded'}",
        *_commit_lines(f, attempt),
        *_check_lines(f, attempt),
        *(f"review finding: {_finding(item)}" for item in attempt.findings),
        *_end_lines(f, attempt),
    ]
    return [Items(facts), _gates(f, attempt), _effect(f, attempt)]


def _commit_lines(f: Facts, attempt: Attempt) -> Iterator[str]:
    applied = of_attempt(f, attempt.attempt_id, "patch.applied")
    if not applied:
        yield "commit: not recorded"
    for event in applied:
        p = event.payload
        yield f"commit {p['commit']} on {p['branch']}: {p['subject']} {cite(event)}"
        yield f"files: {', '.join(p['files'])}; diff SHA-256 {p['diff']['sha256']}"


def _check_lines(f: Facts, attempt: Attempt) -> Iterator[str]:
    for event in of_attempt(f, attempt.attempt_id, "tests.finished"):
        p = event.payload
        verdict = "passed" if p["passed"] else "failed"
        ended = f"exit {said(p.get('exit_code'))}, log {p['log']['sha256']}"
        yield f"tests {verdict}: {shlex.join(p['command'])}, {ended} {cite(event)}"
    for event in of_attempt(f, attempt.attempt_id, "equivalence.finished"):
        p = event.payload
        verdict = "equal" if p["passed"] else "differ"
        counts = f"{p['differing']} of {p['prompts']} prompts differ"
        yield f"outputs {verdict}: {counts}; {said(p['detail'])} {cite(event)}"


def _end_lines(f: Facts, attempt: Attempt) -> Iterator[str]:
    for event in of_attempt(f, attempt.attempt_id, "patch.accepted"):
        yield f"accepted {cite(event)}"
    for event in of_attempt(f, attempt.attempt_id, "patch.reverted"):
        p = event.payload
        yield f"refused by gate {p['gate']}: {p['reason']}; back at {p['restored_commit']} {cite(event)}"


def _finding(item: JSON) -> str:
    return "; ".join(f"{key}: {value}" for key, value in sorted(item.items()))


def _gates(f: Facts, attempt: Attempt) -> Table:
    rows = [
        (p["gate"], "passed" if p["passed"] else "refused", p["detail"], p["satisfy"], cite(event))
        for event in of_attempt(f, attempt.attempt_id, "gate.evaluated")
        for p in [event.payload]
    ]
    return Table(("gate", "result", "detail", "to satisfy", "event"), rows, empty="no gate was evaluated")


def _effect(f: Facts, attempt: Attempt) -> Table:
    rows = [
        (scenario, *interval_cells(decision, -1), cite(event))
        for event in of_attempt(f, attempt.attempt_id, "patch.accepted", "patch.reverted")
        for scenario, decision in event.payload.get("decisions", {}).items()
    ]
    headers = ("scenario", *(f"gain: {name}" for name in INTERVAL_HEADERS), "event")
    return Table(headers, rows, empty="no effect was measured")


def refused_table(f: Facts) -> Table:
    """Proposals that a rule refused."""
    rows = [(e.payload["attempt_id"], e.payload["rule"], e.payload["reason"], cite(e)) for e in f.all("patch.refused")]
    return Table(("attempt", "rule", "reason", "event"), rows, empty="none recorded")


def review_table(f: Facts) -> Table:
    """Every review verdict, and every review that gave none."""
    rows = [
        (
            str(p["round"]),
            f"{p['mainline']}, {p['control']}",
            str(len(p["findings"])),
            p["summary"],
            e.actor,
            cite(e),
        )
        for e in f.all("verdict.recorded")
        for p in [e.payload]
    ]
    rows += [
        (str(e.payload["round"]), "no verdict", "", e.payload["reason"], e.actor, cite(e))
        for e in f.all("review.failed")
    ]
    return Table(("round", "verdict", "findings", "said", "by", "event"), rows)


# --- optimizations -------------------------------------------------------------------------------------


def optimization_document(f: Facts) -> Document:
    """``humanize/optimization-ledger.md``: only what is correct and measurably better."""
    rows, total = [], 0.0
    for number_, event in enumerate(f.all("patch.accepted"), 1):
        decisions = event.payload["decisions"]
        gain = geometric_gain(decisions)
        total += gain
        per_scenario = "; ".join(f"{name} {_range(found)}" for name, found in decisions.items())
        rows.append(
            (
                f"opt-{number_}",
                event.payload["attempt_id"],
                event.payload["commit"],
                per_scenario,
                number(gain),
                number(total),
                _residual(f, event),
                cite(event),
            )
        )
    headers = (
        "optimization",
        "attempt",
        "commit",
        "gain % [interval]",
        "mean gain %",
        "sum of gains %",
        "residual gap %",
        "event",
    )
    note = Text("Gains are 100 times the natural log of the throughput ratio, so that they add up over patches.")
    return Document(f"Optimizations of {f.c.id}", [Section("", [note, Table(headers, rows, empty="none")])])


def geometric_gain(decisions: JSON) -> float:
    """The gain over the scenarios' geometric mean, as 100 ln(ratio)."""
    return fmean(-found["g_pct"] for found in decisions.values())


def _range(decision: JSON) -> str:
    estimate, low, high = interval(decision, -1)
    return f"{number(estimate)} [{number(low)}, {number(high)}]"


def _residual(f: Facts, accepted: Event) -> str:
    after = [event for event in f.all("gap.decided") if event.seq > accepted.seq]
    if not after:
        return "not recorded"
    gaps = "; ".join(f"{name} {number(found.get('g_pct'))}" for name, found in after[0].payload["decisions"].items())
    return f"{gaps} {cite(after[0])}"


# --- ideas, lineage ---------------------------------------------------------------------------------


def idea_document(f: Facts) -> Document:
    """``humanize/source-idea-ledger.md``: profile rows that a root cause offered, and what became of each."""
    rows = [
        (f"r{event.payload['round']}/{row}", f"profile row {row}", *_idea(f, event, row), cite(event))
        for event in f.all("rootcause.written")
        for row in event.payload["rows"]
    ]
    headers = ("idea", "origin", "status", "reason or hypothesis", "attempts", "event")
    documents = [
        "; ".join(f"{key}: {value}" for key, value in sorted(found.items())) + f" {cite(event)}"
        for event in f.all("history.noted")
        for found in event.payload["documents"]
    ]
    return Document(
        f"Source ideas of {f.c.id}",
        [Section("Rows", [Table(headers, rows)]), Section("Documents consulted", [Items(documents)])],
    )


def _idea(f: Facts, cause: Event, row: str) -> tuple[str, str, str]:
    """(status, reason, attempts) of a row that a root cause offered."""
    round_ = cause.payload["round"]
    tried = [a for a in f.c.attempts.values() if a.round == round_ and row in a.citations]
    if tried:
        return "tried", tried[-1].hypothesis, ", ".join(a.attempt_id for a in tried)
    for event in f.all("idea.rejected"):
        if event.seq > cause.seq and event.payload["round"] == round_ and row in event.payload["rows"]:
            return "rejected", f"{event.payload['reason']} {cite(event)}", ""
    return "open", "", ""


def lineage(f: Facts) -> Iterator[JSON]:
    """One entry per version of the target: the base, then every patch that was committed."""
    for event in f.all("loop.started"):
        base = event.payload["base_commit"]
        yield _version(f, event, base, None, "base", "as checked at intake", [], "base")
    for event in f.all("patch.applied"):
        p = event.payload
        attempt = f.c.attempts[p["attempt_id"]]
        yield _version(
            f,
            event,
            p["commit"],
            p["base"],
            p["subject"],
            attempt.hypothesis,
            attempt.citations,
            attempt.status,
        )


def _version(
    f: Facts,
    event: Event,
    commit: str,
    parent: str | None,
    mutation: str,
    motivation: str,
    rows: list[str],
    result: str,
) -> JSON:
    return {
        "version_id": commit,
        "parent_id": parent,
        "commit": commit,
        "mutation": mutation,
        "motivation": motivation,
        "evidence": rows,
        "result": result,
        "selected": commit == f.c.champion,
        "event": event.seq,
    }
