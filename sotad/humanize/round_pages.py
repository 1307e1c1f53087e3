"""What a round was asked for, what it promised, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sotad.humanize.layout import round_file
from sotad.humanize.rounds import attempts, in_round, of_attempt, was_worked_on
from sotad.report.document import Block, Code, Document, Items, Section, Table, Text, markdown
from sotad.report.facts import Facts, cite
from statemachine.state import JSON, Attempt

SAID = "As the implementer said; the validation below is the daemon's own."
LESSONS = "- Action: none\n- Lesson ID(s): NONE\n- Notes: what was learned stands in the campaign's ledgers."


def prompt_page(f: Facts, number: int) -> str:
    """What the round is about, from the record: the very requests are in the agents' transcripts."""
    sections = [Section("Goal", [Text(_task(f))]), *_gap(f, number), *_cause(f, number), *_to_mend(f, number)]
    files = [round_file(number, kind) for kind in ("contract", "summary")]
    bounds = Section("Boundary", [Items(_may_change(f), empty="nothing may change: the target is only measured")])
    asked = Section("Files of the Round", [Items(files)])
    return _page(f"Round {number}", [*sections, bounds, asked])


def _task(f: Facts) -> str:
    return f"Bring {f.target} to par with the best competitor or ahead of it: one minimal patch that cites slow rows."


def _may_change(f: Facts) -> list[str]:
    if f.c.plan:
        return list(f.c.plan["plan"]["boundary"]["may_change"])
    return [str(path) for path in f.frameworks.get(f.target, {}).get("paths", ())]


def _gap(f: Facts, number: int) -> Iterator[Section]:
    for e in in_round(f, number, "gap.decided"):
        rows = [
            (name, found["verdict"], f"{found['g_pct']:.2f}%", f"{found['lo_pct']:.2f}% to {found['hi_pct']:.2f}%")
            if found.get("g_pct") is not None
            else (name, found["verdict"], "-", "-")
            for name, found in sorted(e.payload["decisions"].items())
        ]
        table = Table(("scenario", "verdict", "behind by", "interval"), rows)
        yield Section(f"Gap: {e.payload['verdict']} against {e.payload['leader']} {cite(e)}", [table])


def _cause(f: Facts, number: int) -> Iterator[Section]:
    for e in in_round(f, number, "rootcause.written"):
        p = e.payload
        yield Section(f"Root Cause in {p['stage']} {cite(e)}", [Text(p["statement"]), Items(p["rows"])])


def _to_mend(f: Facts, number: int) -> Iterator[Section]:
    for attempt in attempts(f.c, number):
        if attempt.findings:
            yield Section(f"To Be Mended by {attempt.attempt_id}", [Items([finding_line(x) for x in attempt.findings])])


def finding_line(finding: JSON) -> str:
    """``[P1] path:line text``: the form in which monitors find a severity."""
    place = f"{finding['path']}:{finding['line']} " if finding.get("line") else f"{finding.get('path') or ''} ".lstrip()
    return f"[{finding.get('severity', 'P1')}] {place}{finding.get('text', '')}"


# --- contract ----------------------------------------------------------------------------------------------


def contract_page(f: Facts, number: int) -> str:
    """What each attempt of the round set out to do, in the order in which they were begun."""
    found = attempts(f.c, number)
    sections = [section for attempt in found for section in _contract(f, attempt, _mark(attempt, found))]
    return _page(f"Round {number} Contract", sections)


def _mark(attempt: Attempt, found: list[Attempt]) -> str:
    return f" ({attempt.attempt_id})" if len(found) > 1 else ""


def _contract(f: Facts, attempt: Attempt, mark: str) -> Iterator[Section]:
    contract = attempt.contract
    yield Section(f"Mainline Objective{mark}", [Text(contract.get("objective") or attempt.hypothesis)])
    yield Section(f"Target ACs{mark}", [Items(contract.get("criteria", ()), empty="not recorded")])
    in_scope = [finding_line(finding) for finding in attempt.findings]
    yield Section(f"Blocking Side Issues in Scope{mark}", [Items(in_scope, empty="none")])
    yield Section(f"Queued Side Issues out of Scope{mark}", [Items(_queued_at(f, attempt), empty="none")])
    success = contract.get("success") or "tests pass, outputs stay equal, and an interval of improvement leaves out 0"
    yield Section(f"Success Criteria{mark}", [Text(success)])
    if recovery := contract.get("recovery"):
        cause, flips = str(recovery.get("cause", "")), str(recovery.get("flips", ""))
        items = [f"cause of the drift: {cause}", f"what makes the next verdict ADVANCED: {flips}"]
        yield Section(f"Recovery{mark}", [Items(items)])
    base = [f"{attempt.attempt_id} {cite(attempt.seq)} on {attempt.base}", *(f"cites {x}" for x in attempt.citations)]
    yield Section(f"On Record{mark}", [Items(base)])


def _queued_at(f: Facts, attempt: Attempt) -> list[str]:
    """The queued issues that were open when the attempt began."""
    return [
        finding_line(issue)
        for issue in f.c.issues.values()
        if issue["lane"] == "queued" and issue["seq"] < attempt.seq <= issue.get("resolved_by", attempt.seq)
    ]


# --- summary -----------------------------------------------------------------------------------------------


def summary_page(f: Facts, number: int) -> str:
    """What became of each attempt of the round."""
    return _summary(f, f"Round {number} Summary", attempts(f.c, number))


def finalize_page(f: Facts, found: list[Attempt]) -> str:
    """What the simplification after a success did."""
    return _summary(f, "Finalize Summary", found)


def _summary(f: Facts, title: str, found: list[Attempt]) -> str:
    worked = [attempt for attempt in found if was_worked_on(f, attempt)]
    sections = [section for attempt in worked for section in _done(f, attempt, _mark(attempt, found))]
    return _page(title, sections).rstrip("\n") + f"\n\n## BitLesson Delta\n\n{LESSONS}\n"


def _done(f: Facts, attempt: Attempt, mark: str) -> Iterator[Section]:
    summary = attempt.summary
    said: list[Block] = [Text(SAID), Code(summary["text"])] if summary else [Text(attempt.hypothesis)]
    yield Section(f"Work Completed{mark}", said)
    subject = f"commit {attempt.commit}: {attempt.subject}" if attempt.commit else "no commit was taken over"
    yield Section(f"Files Changed{mark}", [Text(subject), Items(attempt.files, empty="none")])
    yield Section(f"Validation{mark}", [Table(("check", "passed", "detail"), _checks(f, attempt), empty="none yet")])
    yield Section(f"Outcome{mark}", [Text(_outcome(f, attempt))])
    if summary:
        left = "" if summary.get("complete") else "the implementer does not call it complete"
        yield Section(f"Remaining Items{mark}", [Items([left] if left else [], empty="none")])


def _checks(f: Facts, attempt: Attempt) -> list[tuple[str, str, str]]:
    return [
        (p["gate"], "yes" if p["passed"] else "no", f"{p['detail']} {cite(e)}")
        for e in of_attempt(f, attempt, "gate.evaluated")
        for p in (e.payload,)
    ]


def _outcome(f: Facts, attempt: Attempt) -> str:
    if of_attempt(f, attempt, "finalize.unchanged"):
        return "nothing was changed"
    if attempt.status == "reverted":
        return f"taken back by {attempt.refused_by}: {attempt.reason}"
    if attempt.status == "accepted":
        return f"accepted: {attempt.gain_pct:+.2f}% in the scenario that gains least"
    return f"{attempt.status}, under way"


def _page(title: str, sections: Iterable[Section]) -> str:
    return markdown(Document(title, list(sections))).decode()
