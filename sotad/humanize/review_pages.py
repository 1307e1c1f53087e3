"""Reviews: what the reviewer was given, and what it answered, in the grammar that monitors parse.

The last line that names the verdict and the last line of all are the daemon's, whatever a reviewer wrote: its own
words come before, one line each, and cannot show a severity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ledger.events import Event
from sotad.humanize.round_pages import finding_line
from sotad.humanize.rounds import in_round
from sotad.report.document import Code, Document, Items, Section, Table, Text, markdown
from sotad.report.facts import Facts, cite
from statemachine.state import JSON

SHOWN = 1 << 16
"""Characters of a request that are shown; the whole of it is an artifact."""
LANES = {"mainline": "Mainline Gaps", "blocking": "Blocking Side Issues", "queued": "Queued Side Issues"}


def review_prompt_page(f: Facts, number: int) -> str:
    """Every request for a review in the round, and why one came to nothing."""
    sections = [_asked(f, event) for event in in_round(f, number, "review.requested", "review.failed")]
    return markdown(Document(f"Review Requests of Round {number}", sections)).decode()


def _asked(f: Facts, event: Event) -> Section:
    p = event.payload
    if event.type == "review.failed":
        return Section(f"No usable verdict {cite(event)}", [Text(p["reason"])])
    text = f.text_of(p["inputs"])
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}\n… {len(text) - SHOWN} more characters"
    about = Text(f"artifact {p['inputs']['sha256']}, {p['inputs']['bytes']} bytes")
    return Section(f"{_kind(event)} review of {p['attempt_id']} {cite(event)}", [about, Code(shown)])


def review_result_page(f: Facts, number: int) -> str:
    """Every verdict of the round, and at the end the one on the round itself."""
    verdicts = in_round(f, number, "verdict.recorded")
    sections = [section for event in verdicts for section in _verdict(event)]
    body = markdown(Document(f"Review of Round {number}", sections)).decode()
    about_round = [event for event in verdicts if event.payload.get("kind") != "code"]
    said = (about_round or verdicts)[-1].payload
    control = f"\n{said['control']}\n" if said["control"] in ("COMPLETE", "STOP") else ""
    return f"{body}\nMainline Progress Verdict: {said['mainline']}\n{control}"


def _verdict(event: Event) -> Iterator[Section]:
    p = event.payload
    head = Text(f"{p['mainline'].lower()}, {p['control'].lower()}; result {p['result']['sha256']}")
    yield Section(f"{_kind(event)} review {cite(event)}", [head, Text(_quoted(p["summary"]))])
    for lane, title in LANES.items():
        found = [_finding(each) for each in p["findings"] if each.get("lane") == lane]
        if found:
            yield Section(title, [Items(found)])
    if p.get("resolved"):
        yield Section("Seen Mended", [Items(p["resolved"])])
    if p.get("criteria"):
        yield _alignment(p["criteria"])


def _alignment(criteria: list[JSON]) -> Section:
    rows = [tuple(_quoted(str(entry.get(key, ""))) for key in ("id", "status", "evidence")) for entry in criteria]
    met = sum(1 for entry in criteria if str(entry.get("status", "")).upper() == "MET")
    return Section(f"Goal Alignment: {met} of {len(criteria)} met", [Table(("AC", "status", "evidence"), rows)])


def _finding(finding: JSON) -> str:
    return finding_line({**finding, "text": _quoted(str(finding.get("text", "")))})


def _quoted(text: str) -> str:
    return re.sub(r"\[(P[0-9])\]", r"(\1)", text)


def _kind(event: Event) -> str:
    return str(event.payload.get("kind", "summary")).capitalize()
