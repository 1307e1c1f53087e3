"""Notes on what was read: per document its pull requests, files, symbols and risks, and the decision it bears on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sotad.knowledge.document import Document, files, pulls, symbols
from sotad.knowledge.query import SNIPPETS, Answer, snippet

JSON = dict[str, Any]
MOST = 20


def note(answer: Answer, decision: str) -> JSON:
    """One document as a record. Its items are those of the matching lines; of the whole where no line matches.

    Pull requests that the document calls open are kept apart: they are nobody's behaviour yet.
    """
    document, text = answer.document, _cited(answer)
    numbers, opened = pulls(text), document.open_pulls
    items: JSON = {
        "prs": [number for number in numbers if number not in opened][:MOST],
        "open_prs": [number for number in numbers if number in opened][:MOST],
        "files": files(text)[:MOST],
        "symbols": symbols(text)[:MOST],
        "risks": [snippet(document, number) for number in _risks(answer)],
    }
    about: JSON = {"document": document.path, "digest": document.digest, "match": answer.match}
    about |= {"framework": document.framework, "model": document.slug, "lines": answer.snippets}
    if document.backfills:
        about["backfill"] = document.backfills[0].date
    return {**about, **items, "terms": answer.counts, "decision": decision}


def _cited(answer: Answer) -> str:
    """The matching lines, each with the heading of its card, which names the pull request."""
    document = answer.document
    if not answer.lines:
        newest = [line for each in document.backfills for line in document.lines[each.first - 1 : each.last]]
        return "\n".join([*newest, document.text])
    return "\n".join(f"{document.lines[n - 1]}\n{_card(document, n)}" for n in answer.lines)


def _card(document: Document, number: int) -> str:
    title = document.heading_of(number)
    return title if len(pulls(title)) == 1 else ""


def _risks(answer: Answer) -> list[int]:
    """Lines of risk nearest to the matching ones; the first of the document where no line matches."""
    risks = answer.document.risks
    if answer.lines:
        risks = sorted(risks, key=lambda n: (min(abs(n - line) for line in answer.lines), n))
    return sorted(risks[:SNIPPETS])


def merged(notes: Sequence[JSON]) -> list[JSON]:
    """One note per document, in order; what several queries found in it is joined, and so are their decisions."""
    found: dict[str, JSON] = {}
    for each in notes:
        known = found.setdefault(each["document"], each)
        if known is not each:
            found[each["document"]] = _joined(known, each)
    return list(found.values())


def _joined(one: JSON, other: JSON) -> JSON:
    lists = ("lines", "prs", "open_prs", "files", "symbols", "risks")
    both = {key: list(dict.fromkeys([*one[key], *other[key]]))[:MOST] for key in lists}
    decisions = dict.fromkeys((one["decision"], other["decision"]))
    return {**one, **both, "terms": {**other["terms"], **one["terms"]}, "decision": "; ".join(decisions)}


def document_text(corpus: Mapping[str, Any], log: Sequence[JSON], notes: Sequence[JSON], remarks: Sequence[str]) -> str:
    """The notes as Markdown, with the corpus, the queries and what could not be read."""
    lines = ["# History notes", "", f"Corpus: {corpus['folder']}, {_version(corpus)}", ""]
    if corpus["stale"]:
        lines += [f"STALE: {corpus['stale']}. What is noted here holds only where the checkout confirms it.", ""]
    lines += ["## Queries", ""]
    for number, entry in enumerate(log, 1):
        asked = " ".join(part for part in (*entry["frameworks"], entry["model"], *entry["terms"]) if part)
        lines.append(f"{number}. `{asked}` ({entry['language']}): {', '.join(entry['returned']) or 'nothing'}")
    lines += ["", "## Documents", ""]
    lines += [line for each in notes for line in _lines(each)] or ["None bears on this.", ""]
    if corpus.get("watch"):
        lines += [
            "## Lists of open pull requests, never to be cited",
            "",
            *(f"- {path}" for path in corpus["watch"]),
            "",
        ]
    if remarks:
        lines += ["## Not read as it is", "", *(f"- {remark}" for remark in remarks), ""]
    return "\n".join(lines)


def _version(corpus: Mapping[str, Any]) -> str:
    commit = f"commit {corpus['commit']}" if corpus.get("commit") else "no git repository"
    changed = ", changed since" if corpus.get("changed") else ""
    return f"{commit}{changed}, as of {corpus.get('as_of') or 'an unknown date'}, content {corpus['digest']}"


def _lines(each: JSON) -> list[str]:
    shown = {
        "pull requests": ", ".join(f"#{number}" for number in each["prs"]),
        "open, not to be cited": ", ".join(f"#{number}" for number in each["open_prs"]),
        "files": ", ".join(each["files"]),
        "symbols": ", ".join(each["symbols"]),
        "newest backfill": each.get("backfill", ""),
        "sha256": each["digest"],
    }
    lines = [f"### {each['document']} ({each['match']})", "", f"Decision influenced: {each['decision']}", ""]
    lines += [f"- {key}: {value}" for key, value in shown.items() if value]
    lines += [f"- risk: {line}" for line in each["risks"]]
    return [*lines, *(f"- {line}" for line in each["lines"]), ""]
