"""The attempt ledger: every attempt on record, the failed, refused and abandoned like the accepted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ledger.events import Event
from sotad.report import agents, gaps
from sotad.report.costs import job_spans_of, union_ns
from sotad.report.document import Block, Document, Items, Section, Table
from sotad.report.facts import Facts, cite, file_name, number, pairs, said
from sotad.report.gaps import INTERVAL_HEADERS, interval, interval_cells
from statemachine.state import JSON, Attempt

ENDS = ("patch.accepted", "patch.reverted")
OPEN = ("proposed", "applied")
_ENDED = ("candidate.stopped", "candidate.failed", "candidate.lost")


def patch_files(f: Facts) -> dict[str, Event]:
    """Where the diff of each applied patch lies in the tree."""
    return {f"patches/{file_name(e.payload['attempt_id'])}.diff": e for e in f.all("patch.applied")}


def verdict_of(f: Facts, attempt: Attempt) -> str:
    """Its status; one that was open when the campaign ended is abandoned."""
    over = f.c.phase in ("stopping", "closed") and attempt.status in OPEN
    if over and f.of_attempt(attempt.attempt_id, "finalize.unchanged"):
        return "unchanged"
    return "abandoned" if over else attempt.status


def kind_of(attempt: Attempt) -> str:
    """``patch``, ``fix`` or ``finalize``; attempts of an earlier release say it by their name only."""
    return "fix" if attempt.kind == "patch" and "-fix" in attempt.attempt_id else attempt.kind


# --- data -----------------------------------------------------------------------------------------------


def attempt_entries(f: Facts) -> list[JSON]:
    """The attempts in order, and what a rule refused before it became one."""
    refused = [
        {"attempt_id": p["attempt_id"], "verdict": "refused", "failure": {"gate": p["rule"], "reason": p["reason"]}}
        | {"events": [e.seq]}
        for e in f.all("patch.refused")
        for p in [e.payload]
    ]
    return [*(attempt_entry(f, attempt) for attempt in f.c.attempts.values()), *refused]


def attempt_entry(f: Facts, attempt: Attempt) -> JSON:
    """One line of the ledger. Gains in percent, with the interval that decided; seconds; US dollars."""
    name = attempt.attempt_id
    return {
        "attempt_id": name,
        "round": attempt.round,
        "kind": kind_of(attempt),
        "parent": parent_of(f, attempt),
        "hypothesis": attempt.hypothesis,
        "contract": attempt.contract or None,
        "evidence": _evidence(f, attempt),
        **_change(f, attempt),
        "tests": _last(f, name, "tests.finished", "passed", "command", "exit_code", "counted", "log"),
        "accuracy": {
            "outputs": _last(f, name, "equivalence.finished", "passed", "prompts", "differing", "detail", "evidence"),
            "score": _last(f, name, "accuracy.finished", "passed", "score", "baseline", "max_drop", "command", "log"),
            "timed_outputs": next((g for g in reversed(_gates(f, name)) if g["gate"] == "timed_outputs"), None),
        },
        "gates": _gates(f, name),
        "metric": f.metric,
        "effect": effect(f, name),
        "verdict": verdict_of(f, attempt),
        "failure": {"gate": attempt.refused_by, "reason": attempt.reason} if attempt.refused_by else None,
        "quarantine": _last(f, name, "patch.quarantined", "gain_pct", "ceiling_pct", "why"),
        "findings": attempt.findings,
        **cost(f, name),
        "events": sorted({attempt.seq, *(event.seq for event in f.of_attempt(name, *_NAMING))}),
    }


_NAMING = (
    *("patch.proposed", "summary.recorded", "patch.applied", "gate.evaluated", "tests.finished"),
    *("equivalence.finished", "patch.quarantined", *ENDS, "finalize.opened", "finalize.unchanged"),
)


def parent_of(f: Facts, attempt: Attempt) -> str | None:
    """The attempt that it builds on: the one it mends, else the one that made its base. None: the first commit."""
    if attempt.parent:
        return attempt.parent
    made = (other.attempt_id for other in f.c.attempts.values() if other.commit and other.commit == attempt.base)
    return next(made, None)


def _evidence(f: Facts, attempt: Attempt) -> JSON:
    """The rows that it cites, and the events that they and its reasons come from."""
    sources = ("gap.decided", "tables.produced", "pipeline.written", "rootcause.written", "idea.recorded")
    found = {type_: event for type_ in sources if (event := f.before(attempt.seq, type_))}
    here = {
        type_: event.seq for type_, event in found.items() if event.payload.get("round", attempt.round) == attempt.round
    }
    history = f.before(attempt.seq, "history.noted", "history.unavailable")
    return {"rows": attempt.citations, **here, **({history.type: history.seq} if history else {})}


def _change(f: Facts, attempt: Attempt) -> JSON:
    """What was changed, and what the implementer said of it."""
    applied = _last(f, attempt.attempt_id, "patch.applied", "branch", "diff") or {"branch": None, "diff": None}
    summary = _last(f, attempt.attempt_id, "summary.recorded", "text", "files", "tests", "provenance", "complete")
    return {
        "base_commit": attempt.base,
        "patch_commit": attempt.commit or None,
        "branch": applied["branch"],
        "subject": attempt.subject or None,
        "files": attempt.files,
        "diff": applied["diff"],
        "claimed": summary,
    }


def _last(f: Facts, attempt_id: str, type_: str, *keys: str) -> JSON | None:
    found = f.of_attempt(attempt_id, type_)
    return {key: found[-1].payload.get(key) for key in keys} | {"event": found[-1].seq} if found else None


def _gates(f: Facts, attempt_id: str) -> list[JSON]:
    keys = ("gate", "passed", "detail", "satisfy")
    events = f.of_attempt(attempt_id, "gate.evaluated")
    return [{key: e.payload.get(key, "") for key in keys} | {"event": e.seq} for e in events]


def effect(f: Facts, attempt_id: str) -> JSON:
    """Per scenario the metric before and after, measured in the same blocks, and the gain that was decided on."""
    levels = gaps.contests(f, f"reval/{attempt_id}")
    decided = [event for event in f.of_attempt(attempt_id, *ENDS) if event.payload.get("decisions")]
    decisions: JSON = decided[-1].payload["decisions"] if decided else {}
    scenarios = dict.fromkeys([*decisions, *(scenario for scenario, _ in levels)])
    return {name: _effect(levels, name) | _gain(decisions.get(name, {})) for name in scenarios}


def _effect(levels: dict[tuple[str, str], gaps.Side], scenario: str) -> JSON:
    sides = {label.split(".")[0]: side for (found, label), side in levels.items() if found == scenario and side.values}
    before, after = sides.get("champion"), sides.get("challenger")
    return {"before": before.level if before else None, "after": after.level if after else None}


def _gain(decision: JSON) -> JSON:
    gain, low, high = interval(decision, -1)
    return {"gain_pct": gain, "lo_pct": low, "hi_pct": high, "n": decision.get("n"), "verdict": decision.get("verdict")}


def cost(f: Facts, attempt_id: str) -> JSON:
    """Seconds that servers of the attempt held the host, those times the GPUs, and what its agents used.

    ``gpu_s`` is None when the campaign names no GPU: what a framework took by itself is not known.
    """
    held = union_ns(_held(f, attempt_id)) / 1e9
    gpus = len(f.spec["hardware"].get("gpu_ids") or ()) or f.spec["hardware"].get("gpu_count")
    calls = agents.calls_for(f, attempt_id)
    return {"host_s": held, "gpu_s": held * gpus if gpus else None, "agents": agents.spent(calls) if calls else None}


def _held(f: Facts, attempt_id: str) -> Iterator[tuple[int, int]]:
    """When a server of the attempt was up: the launches of its measurement, and the jobs that ask for answers."""
    ended = {(e.payload["launch"], e.payload["attempt"]): e.time_ns for e in f.all(*_ENDED)}
    for key, event in f.launched.items():
        if key[0].startswith(f"reval/{attempt_id}/"):
            yield event.time_ns, ended.get(key, f.events[-1].time_ns)
    for activity in ("compare_outputs", "compare_timed"):
        yield from job_spans_of(f, activity, attempt_id)


# --- blocks ---------------------------------------------------------------------------------------------


def attempt_document(f: Facts) -> Document:
    """``attempt-ledger.md``."""
    sections = [Section(attempt_title(f, a), attempt_blocks(f, a)) for a in f.c.attempts.values()]
    sections.append(Section("Refused before they became attempts", [refused_table(f)]))
    return Document(f"Attempts of {f.c.id}", sections)


def attempt_title(f: Facts, attempt: Attempt) -> str:
    """Its name and how it ended."""
    by = f" by {attempt.refused_by}" if attempt.refused_by else ""
    return f"{attempt.attempt_id}: {verdict_of(f, attempt)}{by}"


def attempt_blocks(f: Facts, attempt: Attempt) -> list[Block]:
    """Hypothesis and contract, commit and files, gates, tests, outputs, effect, cost."""
    facts = [
        f"round {attempt.round}, {kind_of(attempt)}; based on {attempt.base}, "
        f"{parent_of(f, attempt) or 'the first commit'} {cite(attempt.seq)}",
        f"hypothesis: {said(attempt.hypothesis)}",
        *_contract_lines(attempt.contract),
        f"cited rows: {', '.join(attempt.citations) or 'not recorded'}",
        *_commit_lines(f, attempt),
        *_check_lines(f, attempt),
        *(f"review finding: {pairs(item)}" for item in attempt.findings),
        *_end_lines(f, attempt),
        _cost_line(cost(f, attempt.attempt_id)),
    ]
    return [Items(facts), _gate_table(f, attempt), _effect_table(f, attempt)]


def _contract_lines(contract: JSON) -> Iterator[str]:
    for key, value in contract.items():
        yield f"contract, {key}: {_plain(value)}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return pairs(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _commit_lines(f: Facts, attempt: Attempt) -> Iterator[str]:
    for event in f.of_attempt(attempt.attempt_id, "summary.recorded"):
        p = event.payload
        complete = "complete" if p["complete"] else "not complete"
        yield f"the implementer said: {p['text']} ({complete}; files {', '.join(p['files']) or 'none'}) {cite(event)}"
        yield from (f"provenance: {pairs(item)} {cite(event)}" for item in p["provenance"])
    applied = f.of_attempt(attempt.attempt_id, "patch.applied")
    if not applied:
        yield "commit: not recorded"
    for event in applied:
        p = event.payload
        yield f"commit {p['commit']} on {p['branch']}: {p['subject']} {cite(event)}"
        yield f"files: {', '.join(p['files'])}; diff SHA-256 {p['diff']['sha256']}"


def _check_lines(f: Facts, attempt: Attempt) -> Iterator[str]:
    for event in f.of_attempt(attempt.attempt_id, "tests.finished"):
        p = event.payload
        verdict = "passed" if p["passed"] else "failed"
        ended = f"exit {said(p.get('exit_code'))}, {said(p.get('counted'))} passed, log {p['log']['sha256']}"
        yield f"tests {verdict}: {shlex.join(p['command'])}, {ended} {cite(event)}"
    for event in f.of_attempt(attempt.attempt_id, "equivalence.finished"):
        p = event.payload
        verdict = "equal" if p["passed"] else "differ"
        counts = f"{p['differing']} of {p['prompts']} prompts differ"
        yield f"outputs {verdict}: {counts}; {said(p['detail'])} {cite(event)}"


def _end_lines(f: Facts, attempt: Attempt) -> Iterator[str]:
    for event in f.of_attempt(attempt.attempt_id, "patch.quarantined"):
        p = event.payload
        yield f"quarantined: a gain of {p['gain_pct']:.2f}% is above {p['ceiling_pct']:.2f}%, {p['why']} {cite(event)}"
    for event in f.of_attempt(attempt.attempt_id, "patch.accepted"):
        yield f"accepted {cite(event)}"
    for event in f.of_attempt(attempt.attempt_id, "patch.reverted"):
        p = event.payload
        yield f"refused by gate {p['gate']}: {p['reason']}; back at {p['restored_commit']} {cite(event)}"
    for event in f.of_attempt(attempt.attempt_id, "finalize.unchanged"):
        yield f"nothing was left to simplify {cite(event)}"


def _cost_line(found: JSON) -> str:
    gpu = f"{found['gpu_s']:.1f} GPU seconds" if found["gpu_s"] is not None else "GPU seconds: no GPU is named"
    agents_ = agents.spent_text(found["agents"]) if found["agents"] else "agent calls: not recorded"
    return f"cost: servers {found['host_s']:.1f} s, {gpu}; {agents_}"


def _gate_table(f: Facts, attempt: Attempt) -> Table:
    rows = [
        (g["gate"], "passed" if g["passed"] else "refused", g["detail"], g["satisfy"], cite(g["event"]))
        for g in _gates(f, attempt.attempt_id)
    ]
    return Table(("gate", "result", "detail", "to satisfy", "event"), rows, empty="no gate was evaluated")


def _effect_table(f: Facts, attempt: Attempt) -> Table:
    levels = effect(f, attempt.attempt_id)
    rows = [
        (
            *(scenario, number(levels[scenario]["before"], 3), number(levels[scenario]["after"], 3)),
            *(*interval_cells(decision, -1), cite(event)),
        )
        for event in f.of_attempt(attempt.attempt_id, *ENDS)
        for scenario, decision in event.payload.get("decisions", {}).items()
    ]
    headers = ("scenario", f"{f.metric} before", "after", *(f"gain: {name}" for name in INTERVAL_HEADERS), "event")
    return Table(headers, rows, empty="no effect was measured")


def refused_table(f: Facts) -> Table:
    """Proposals that a rule refused."""
    rows = [(e.payload["attempt_id"], e.payload["rule"], e.payload["reason"], cite(e)) for e in f.all("patch.refused")]
    return Table(("attempt", "rule", "reason", "event"), rows, empty="none recorded")
