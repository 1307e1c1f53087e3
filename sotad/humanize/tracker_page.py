"""The goal tracker: what is fixed since the start, and where the work stands.

Monitors count rows between headings, so every table has its two head lines even when it has no row, no cell holds a
pipe, and no line of a text can begin a heading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ledger.events import Event
from sotad.humanize.plan_page import aim
from sotad.humanize.rounds import in_round, owners
from sotad.report.document import plain
from sotad.report.facts import Facts, cite
from statemachine.plan import changes
from statemachine.state import JSON, Attempt

Rows = Iterator[tuple[str, ...]]


def tracker_page(f: Facts, started: Event) -> str:
    """The whole tracker."""
    return "\n\n".join((*_immutable(f, started), "---", *_mutable(f))) + "\n"


def _immutable(f: Facts, started: Event) -> Iterator[str]:
    goal, criteria = aim(f, started)
    yield "# Goal Tracker"
    yield "## IMMUTABLE SECTION"
    yield f"### Ultimate Goal\n\n{plain(goal)}"
    listed = "\n".join(f"- {name}: {plain(str(text))}" for name, text in criteria)
    yield f"### Acceptance Criteria\n\n{listed or 'not recorded'}"


def _mutable(f: Facts) -> Iterator[str]:
    yield "## MUTABLE SECTION"
    yield f"### Plan Version: {f.c.plan.get('version', 1)} (Updated: Round {f.c.round})"
    yield _table("#### Plan Evolution Log", ("Round", "Change", "Reason", "Impact on AC"), _evolution(f))
    yield _table("#### Active Tasks", ("Task", "Target AC", "Status", "Tag", "Owner", "Notes"), _active(f))
    side = ("Issue", "Discovered Round")
    yield _table("### Blocking Side Issues", (*side, "Blocking AC", "Resolution Path"), _blocking(f))
    yield _table("### Queued Side Issues", (*side, "Why Not Blocking", "Revisit Trigger"), _queued(f))
    done = ("AC", "Task", "Completed Round", "Verified Round", "Evidence")
    yield _table("### Completed and Verified", done, _completed(f))
    later = ("Task", "Original AC", "Deferred Since", "Justification", "When to Reconsider")
    yield _table("### Explicitly Deferred", later, _deferred(f))


def _table(heading: str, headers: Sequence[str], rows: Rows) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return f"{heading}\n\n" + "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return plain(text).replace("|", "&#124;") or "-"


# --- rows --------------------------------------------------------------------------------------------------


def _evolution(f: Facts) -> Rows:
    """The plan, its amendments, and what was tried in vain."""
    plan: JSON = {}
    for e in f.all("plan.recorded", "plan.amended", "patch.reverted"):
        p = e.payload
        if e.type == "plan.recorded":
            plan = p["plan"]
            yield "0", f"plan recorded by {p['source']} {cite(e)}", "-", "-"
        elif e.type == "plan.amended":
            proposal = next(each for each in f.all("plan.amendment_proposed") if each.seq == p["proposal"])
            done, plan = changes(plan, proposal.payload["plan"]), proposal.payload["plan"]
            hit = [line.split()[1] for line in done if line.startswith("criterion ")]
            change = f"version {p['version']}: {'; '.join(done)} {cite(e)}"
            yield str(_round_at(f, e)), change, proposal.payload["reason"], ", ".join(hit)
        else:
            attempt = f.c.attempts[p["attempt_id"]]
            tried = f"{attempt.attempt_id} taken back: {attempt.hypothesis} {cite(e)}"
            yield str(attempt.round), tried, f"{p['gate']}: {p['reason']}", _criteria(attempt)


def _round_at(f: Facts, event: Event) -> int:
    """The round in which something happened that names none: rounds begin with the gap decision after the last."""
    return max((e.payload["round"] for e in f.all("gap.decided") if e.seq < event.seq), default=0)


def _active(f: Facts) -> Rows:
    """The attempt under way, what it has to mend, or the measurement between attempts."""
    implementer, _ = owners(f.c)
    if f.c.phase == "closed":
        return
    attempt = f.c.attempts.get(f.c.current_attempt)
    if attempt is not None and attempt.status in ("proposed", "applied"):
        task = f"{attempt.attempt_id}: {attempt.hypothesis}"
        notes = f"cites {', '.join(attempt.citations)}" if attempt.citations else attempt.kind
        yield task, _criteria(attempt), "in_progress", "coding", implementer, notes
    else:
        yield f"round {f.c.round}: {f.c.phase}", "-", "in_progress", "analyze", "daemon", f.c.blocked.get("reason", "")
    for name, issue in _open_issues(f, "mainline"):
        yield f"{name}: {issue['text']}", "-", "pending", "coding", implementer, f"found in round {issue['round']}"


def _blocking(f: Facts) -> Rows:
    for name, issue in _open_issues(f, "blocking"):
        yield f"{name} ({issue['severity']}): {issue['text']}", str(issue["round"]), "-", "a fix that a review confirms"
    for subject, wait in f.c.waits.items():
        yield wait["text"], str(f.c.round), "-", f"a person answers: sotactl approve or answer {f.c.id} {subject}"
    if f.c.blocked:
        yield f.c.blocked["reason"], str(f.c.round), "-", f.c.blocked.get("next", "")


def _queued(f: Facts) -> Rows:
    for name, issue in _open_issues(f, "queued"):
        text = f"{name} ({issue['severity']}): {issue['text']}"
        yield text, str(issue["round"]), "the reviewer queued it", "the next review of code that it is in"


def _open_issues(f: Facts, lane: str) -> Iterator[tuple[str, JSON]]:
    """Open issues of a lane. Older campaigns know no end of an issue: there only those of the present round count."""
    lasting = lane == "queued" or bool(f.c.plan)
    for name, issue in f.c.issues.items():
        if issue["lane"] == lane and issue["status"] == "open" and (lasting or issue["round"] == f.c.round):
            yield name, issue


def _completed(f: Facts) -> Rows:
    for attempt in f.c.attempts.values():
        if attempt.status == "accepted":
            accepted = next(e for e in f.all("patch.accepted") if e.payload["attempt_id"] == attempt.attempt_id)
            reviewed = in_round(f, attempt.round, "review.passed", "review.findings")
            evidence = f"commit {attempt.commit}, {attempt.gain_pct:+.2f}% where it gains least {cite(accepted)}"
            verified = f"{attempt.round} {cite(reviewed[-1])}" if reviewed and f.c.round > attempt.round else "not yet"
            task = f"{attempt.attempt_id}: {attempt.hypothesis}"
            yield _criteria(attempt), task, str(attempt.round), verified, evidence
    yield from _met(f)


def _met(f: Facts) -> Rows:
    """The criteria that the last review of all of them found met."""
    asked = [event for event in f.all("verdict.recorded") if event.payload.get("criteria")]
    for entry in asked[-1].payload["criteria"] if asked else ():
        if str(entry.get("status", "")).upper() == "MET":
            at, evidence = str(asked[-1].payload["round"]), f"{entry.get('evidence', '')} {cite(asked[-1])}"
            yield str(entry.get("id", "-")), "criterion reviewed", at, at, evidence


def _deferred(f: Facts) -> Rows:
    for e in f.all("idea.rejected"):
        for row in e.payload["rows"]:
            since, reason = f"round {e.payload['round']}", f"{e.payload['reason']} {cite(e)}"
            yield f"kernel row {row}", "-", since, reason, "when a later profile shows it slow"


def _criteria(attempt: Attempt) -> str:
    return ", ".join(attempt.contract.get("criteria", ())) or "-"
