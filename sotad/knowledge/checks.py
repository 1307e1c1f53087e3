"""Whether notes say what was read: every statement is checked against the query log and the documents themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sotad.knowledge.document import Document, pulls
from sotad.knowledge.names import FAMILY, closeness
from sotad.knowledge.rows import of_files
from sotad.knowledge.words import mentions

JSON = dict[str, Any]


def problems(note: JSON, log: Sequence[JSON], documents: Mapping[str, Document]) -> list[str]:
    """What is wrong with one note; nothing when it holds.

    A cited path was returned by a logged query and is in the corpus with that digest; it is no list of open pull
    requests; its pull requests occur in it and are not called open there; the note names a decision.
    """
    path = note.get("document", "")
    found = [] if any(path in entry["returned"] for entry in log) else [f"{path}: no logged query returned it"]
    found += [] if str(note.get("decision", "")).strip() else [f"{path}: names no decision"]
    document = documents.get(path)
    if document is None:
        return [*found, f"{path}: not in the corpus"]
    if note.get("digest") != document.digest:
        found.append(f"{path}: it was read as {note.get('digest')}, and is {document.digest}")
    if document.watch:
        found.append(f"{path}: a list of open pull requests is nobody's behaviour")
    return found + _pull_problems(note, document)


def _pull_problems(note: JSON, document: Document) -> list[str]:
    named = frozenset(pulls(document.text))
    cited = [*note.get("prs", []), *note.get("open_prs", [])]
    found = [f"{document.path}: #{number} does not occur in it" for number in cited if number not in named]
    opened = document.open_pulls.intersection(note.get("prs", []))
    return found + [f"{document.path}: #{number} is open, and cited as done" for number in sorted(opened)]


def cites_model(notes: Sequence[JSON], model: str) -> bool:
    """Whether a note is of the model itself or its family: what the gate asks for when there is a corpus."""
    return any(closeness(model, note["model"]) >= FAMILY for note in notes)


def unnoted(paths: Collection[str], notes: Sequence[JSON], log: Sequence[JSON]) -> list[str]:
    """Paths that no note mentions and no logged query asked about: nobody has looked for prior changes of them."""
    asked = {term for entry in log for term in entry["terms"]}
    named = "\n".join(file for note in notes for file in [*note["files"], *note["lines"]])
    return [
        path
        for path, term in ((path, of_files([path])[0]) for path in paths)
        if not (term in asked or mentions(named, term))
    ]
