"""The final report, section by section. Every figure names the event that it comes from."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.humanize.layout import LOOPS, loop_name
from sotad.report import (
    agents,
    analysis,
    attempts,
    charts,
    cleanups,
    conditions,
    costs,
    gaps,
    gpus,
    issues,
    measurements,
    people,
    plans,
)
from sotad.report.document import Block, Document, Items, Section, Table, Text
from sotad.report.facts import Facts, cite, file_name, number, said
from sotad.report.outcome import MEANING, reason, succeeded, terminal

GAIN = "The gain is 100 times the natural log of patched over unpatched throughput, both measured in the same blocks."


def final_document(f: Facts) -> Document:
    """``final_report.md`` and ``final_report.html``."""
    sections = [
        Section("Result", _result(f)),
        Section("Conditions", conditions.condition_blocks(f)),
        Section("Frameworks and versions", conditions.framework_blocks(f)),
        Section("Plan", plans.plan_blocks(f)),
        Section("Winner commands", measurements.winner_blocks(f)),
        Section("Candidates", [*measurements.ranking_tables(f), *charts.throughput_charts(f)]),
        Section("Failed and SLA-missing candidates", [measurements.rejected_table(f)]),
        Section("Goodput under the SLA", [measurements.goodput_table(f)]),
        Section("GPUs", gpus.gpu_blocks(f)),
        Section("Disturbed samples", [measurements.disturbed_table(f)]),
        Section("Before and after: the gap, round by round", _gap(f)),
        Section("What the patches changed", [Text(GAIN), gaps.improvement_table(f)]),
        Section("Quarantined patches", people.quarantine_blocks(f)),
        Section("Held-out check", people.heldout_blocks(f)),
        Section("Gap analysis", [*analysis.root_cause_blocks(f), *charts.kernel_chart(f), _paths(f)]),
        Section("Changes, tests, output equivalence", _accepted(f)),
        Section("Failed attempts", _failed(f)),
        Section("Reviews", [issues.review_table(f)]),
        Section("Findings of the reviews", [issues.issue_table(f)] if f.all("verdict.recorded") else []),
        Section("Questions and approvals", people.wait_blocks(f)),
        Section("Agents", agents.agent_blocks(f)),
        Section("Stop reason and residual gap", _stop(f)),
        Section("Caveats", [Items(conditions.caveats(f), empty="none recorded")]),
        Section("Cost", costs.cost_blocks(f)),
        Section("Cleanup", cleanups.cleanup_blocks(f)),
        Section("Artifacts", _artifacts(f)),
    ]
    return Document(f"Campaign {f.c.id}: final report", [section for section in sections if section.blocks])


def _result(f: Facts) -> list[Block]:
    compares = f.spec.get("goal") == "compare"
    asked = "Target level with the best competitor, or ahead," if compares else "SOTA"
    answer = "yes" if succeeded(f.c) else "no"
    established = cite(f.c.stop["seq"], f.last("campaign.closed")) if terminal(f.c) else ""
    lines: list[Block] = [
        Text(f"{asked} under the recorded conditions: {answer} {established}", strong=True),
        Text(MEANING),
        Text(": ".join(filter(None, ("State", terminal(f.c) or f.c.phase, reason(f.c))))),
    ]
    return lines + [Text(line) for line in _headline(f)]


def _headline(f: Facts) -> Iterator[str]:
    """What changed from the first to the last decision, in a sentence per scenario."""
    decided = f.all("gap.decided")
    for scenario, last in (decided[-1].payload["decisions"] if decided else {}).items():
        first = decided[0].payload["decisions"].get(scenario, {})
        now = f"{number(last.get('g_pct'))}% [{number(last.get('lo_pct'))}, {number(last.get('hi_pct'))}]"
        if len(decided) == 1:
            yield f"{scenario}: gap to the leader {now} {cite(decided[0])}."
        else:
            yield (
                f"{scenario}: gap to the leader {number(first.get('g_pct'))}% in round "
                f"{decided[0].payload['round']} {cite(decided[0])}, {now} in round "
                f"{decided[-1].payload['round']} {cite(decided[-1])}."
            )


def _gap(f: Facts) -> list[Block]:
    note = Text(
        "The gap is 100 times the natural log of leader over target: above 0 the target is behind. A call "
        "needs the interval, the estimate alone is never enough. Both sides are measured again in every "
        "round, in the same blocks."
    )
    return [note, gaps.gap_table(f), gaps.level_table(f), *charts.gap_chart(f), gaps.reasons(f)]


def _paths(f: Facts) -> Items:
    files = [*analysis.profile_files(f), "analysis/root-cause.md", "analysis/layer-pipeline.md"]
    return Items([*files, "analysis/kernel-table.md", "analysis/capacity.md", "history/model-pr-history-notes.md"])


def _accepted(f: Facts) -> list[Block]:
    blocks: list[Block] = []
    for attempt in f.c.attempts.values():
        if attempt.status != "reverted":
            blocks += [Text(attempts.attempt_title(f, attempt), strong=True), *attempts.attempt_blocks(f, attempt)]
    return blocks or [Text(f"No patch stands. {_why_no_patch(f)}")]


def _why_no_patch(f: Facts) -> str:
    decided = f.last("gap.decided")
    if decided and decided.payload["verdict"] in ("ahead", "par_or_better"):
        return f"None was needed: the target was not behind {cite(decided)}."
    return f"{said(reason(f.c))} {cite(f.c.stop.get('seq'))}"


def _failed(f: Facts) -> list[Block]:
    blocks: list[Block] = []
    for attempt in f.c.attempts.values():
        if attempt.status == "reverted":
            blocks += [Text(attempts.attempt_title(f, attempt), strong=True), *attempts.attempt_blocks(f, attempt)]
    refused = [attempts.refused_table(f)] if f.all("patch.refused") else []
    return [*(blocks or [Text("No attempt failed.")]), *refused, _rejected_ideas(f)]


def _rejected_ideas(f: Facts) -> Table:
    rows = [
        (str(e.payload["round"]), ", ".join(e.payload["rows"]), e.payload["reason"], cite(e))
        for e in f.all("idea.rejected")
    ]
    return Table(("round", "rows", "rejected because", "event"), rows, empty="No idea was rejected.")


def _stop(f: Facts) -> list[Block]:
    stop, closed, decided = f.c.stop, f.last("campaign.closed"), f.last("gap.decided")
    if f.c.phase in ("stopping", "closed"):
        ended = f"{stop['condition']}: {stop['reason']} {cite(stop['seq'])}"
        evidence = (
            cite(*closed.payload["evidence"]) if closed else "not recorded: this report precedes the closing event"
        )
    else:
        ended, evidence = f"none: the campaign is in {f.c.phase}", "not recorded"
    residual = [
        f"residual gap on {name}: {number(found.get('g_pct'))}% "
        f"[{number(found.get('lo_pct'))}, {number(found.get('hi_pct'))}], {found['verdict']} {cite(decided)}"
        for name, found in (decided.payload["decisions"].items() if decided else ())
    ] or ["residual gap: not recorded"]
    rejected = [
        f"an earlier stop was rejected, it lacked: {', '.join(e.payload['missing'])} {cite(e)}"
        for e in f.all("stop.rejected")
    ]
    return [Items([f"stop: {ended}", f"evidence: {evidence}", *residual, *rejected])]


def _artifacts(f: Facts) -> list[Block]:
    root = Text(
        "The artifact root is the folder that holds this report; every copied file is an artifact of the ledger."
    )
    rows = [
        (name, event.payload[key]["sha256"], str(event.payload[key]["bytes"]), cite(event))
        for files, key in (
            (conditions.help_files(f), "help"),
            (analysis.profile_files(f), "trace"),
            (attempts.patch_files(f), "diff"),
        )
        for name, event in files.items()
    ]
    problems = [f"{digest} could not be read: {why}" for digest, why in sorted(f.problems.items())]
    return [root, Table(("file", "SHA-256", "bytes", "event"), rows), *_mirror(f), Items(problems, empty="")]


def _mirror(f: Facts) -> list[Block]:
    """Where the loop is mirrored as Humanize lays loops out."""
    asked, started = f.spec.get("humanize", {}), f.last("loop.started")
    if not asked.get("mirror") or started is None:
        return []
    folder = asked.get("folder") or f"humanize/{file_name(f.c.id)} of the state directory"
    place = f"{LOOPS}/{loop_name(started.time_ns)}"
    return [Text(f"The loop is mirrored as Humanize lays loops out: {place} in {folder} {cite(started)}")]
