"""A corpus that is being asked for a campaign: queries are logged, notes are checked against what they rest on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from sotad.knowledge import checks
from sotad.knowledge.corpus import Corpus
from sotad.knowledge.document import Document
from sotad.knowledge.names import FAMILY
from sotad.knowledge.notes import document_text, merged, note
from sotad.knowledge.query import Answer, Query, log_entry, search

JSON = dict[str, Any]
PER_SUBJECT = 4
EVENT_BYTES = 400_000
REQUEST_BYTES = 60_000


class Side(NamedTuple):
    """A framework of the campaign; ``names`` are what a corpus may call it."""

    name: str
    names: tuple[str, ...]
    target: bool


class Subject(NamedTuple):
    """What a patch is about, a row or a file, in search terms."""

    label: str
    terms: tuple[str, ...]


@dataclass
class Reading:
    """``about`` describes the corpus, see `sotad.knowledge.origin`; the rest is what the reading yields.

    Notes beyond ``most_bytes`` are left out, which the text says: they have to fit into an event, or into a request.
    """

    corpus: Corpus
    about: JSON
    most_bytes: int = EVENT_BYTES
    log: list[JSON] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    _notes: list[JSON] = field(default_factory=list)

    def consult(self, sides: Iterable[Side], model: str, words: tuple[str, ...]) -> bool:
        """Note what bears on a model in each framework; return whether the target's own history is there."""
        known = False
        for side in sides:
            for answer in self._ask(Query(frameworks=side.names, model=model, terms=words)):
                self._add(answer, _decision(side, answer))
                known = known or (side.target and answer.near >= FAMILY)
        return known

    def inquire(self, sides: Sequence[Side], model: str, subjects: Iterable[Subject]) -> list[str]:
        """Note what mentions each subject; return the labels of those that no history of the target mentions."""
        unknown = []
        for subject in subjects:
            mentioned = False
            for side in sides:
                query = Query(
                    frameworks=side.names, model=model, terms=subject.terms, limit=PER_SUBJECT, mentioned=True
                )
                answers = self._ask(query)
                mentioned = mentioned or (side.target and bool(answers))
                for answer in answers:
                    self._add(answer, f"{subject.label}: shown to the implementer before it patches")
            unknown += [] if mentioned else [subject.label]
        return unknown

    def documents(self) -> list[JSON]:
        """The notes, one per document, as many as fit."""
        notes = merged(self._notes)
        sizes = accumulate(len(json.dumps(each)) for each in notes)
        return [each for each, size in zip(notes, sizes, strict=True) if size <= self.most_bytes]

    def text(self) -> str:
        """The notes as Markdown, with the query log and all that could not be read."""
        notes = self.documents()
        beyond = [each["document"] for each in merged(self._notes)[len(notes) :]]
        unsaid = [f"{path}: bears on this too, but the notes are full" for path in beyond]
        return document_text(self.about, self.log, notes, [*self.corpus.remarks, *self.remarks, *unsaid])

    def _ask(self, query: Query) -> list[Answer]:
        answers = search(self.corpus.documents, query)
        self.log.append(log_entry(query, answers))
        return answers

    def _add(self, answer: Answer, decision: str) -> None:
        """Note a document, unless the note would say what the document does not."""
        made = note(answer, decision)
        wrong = checks.problems(made, self.log[-1:], self._by_path)
        self.remarks += [f"not noted: {problem}" for problem in wrong]
        self._notes += [] if wrong else [{**made, "stale": bool(self.about["stale"])}]

    @property
    def _by_path(self) -> dict[str, Document]:
        return {document.path: document for document in self.corpus.documents}


def _decision(side: Side, answer: Answer) -> str:
    if not side.target:
        return f"read for what the competitor {side.name} did before; asked again for the very rows where it leads"
    if answer.near >= FAMILY:
        return f"bears on the target's model ({answer.match}); asked again for the rows and files of every patch"
    return "has words of the query, but is of another model: background only"
