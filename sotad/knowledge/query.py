"""Asking a corpus: which documents bear on a model and on some words, and where in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

from sotad.knowledge.document import Document
from sotad.knowledge.names import MATCHES, closeness, squeezed
from sotad.knowledge.words import occurrences

JSON = dict[str, Any]
SNIPPETS = 6
SNIPPET_CHARS = 220
BEFORE = 80
LIMIT = 10


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked. ``frameworks`` are names of one framework; a document without one may be of any.

    ``language`` chooses among translations of a document; one without a translation is taken in any language.
    ``mentioned`` asks for documents that have a term, however near the others are.
    """

    frameworks: tuple[str, ...] = ()
    model: str = ""
    terms: tuple[str, ...] = ()
    language: str = "en"
    limit: int = LIMIT
    mentioned: bool = False


@dataclass(frozen=True)
class Answer:
    """A document, how near its slug is to the model, how often it has each term, and the lines that say so.

    ``marks`` are where in those lines the first term begins.
    """

    document: Document
    near: int
    counts: dict[str, int]
    lines: list[int]
    marks: dict[int, int]

    @property
    def match(self) -> str:
        """Why it was returned: slug, version, family or terms."""
        return MATCHES[self.near]

    @property
    def snippets(self) -> list[str]:
        """Up to six `path:line: text`; headings when no line has a term."""
        document = self.document
        shown = self.lines or [section.first for section in document.backfills + document.sections][:SNIPPETS]
        return [snippet(document, number, self.marks.get(number, 0)) for number in dict.fromkeys(shown)]


def search(documents: Iterable[Document], query: Query) -> list[Answer]:
    """What bears on the query: the nearest slug first, then the most occurrences of the terms, then the path.

    Lists of open pull requests are no answer: see :func:`watched`. A query of nothing returns everything.
    """
    terms = [term for term in dict.fromkeys(query.terms) if term.strip()]
    found = [_answer(document, query, terms) for document in _of(documents, query)]
    everything = not (query.model or terms)
    bearing = [each for each in found if each.counts or (not query.mentioned and (each.near or everything))]
    bearing.sort(key=_rank)
    return bearing[: query.limit]


def watched(documents: Iterable[Document]) -> list[str]:
    """Paths of the lists of open pull requests, to be read and never to be cited."""
    return [document.path for document in documents if document.watch]


def log_entry(query: Query, answers: Sequence[Answer]) -> JSON:
    """The query and the paths that it returned, for the record."""
    asked = {"frameworks": list(query.frameworks), "model": query.model, "terms": list(query.terms)}
    return {**asked, "language": query.language, "returned": [answer.document.path for answer in answers]}


def _of(documents: Iterable[Document], query: Query) -> list[Document]:
    names = {squeezed(name) for name in query.frameworks}
    framed = [each for each in documents if not each.watch and (not names or each.framework in names | {""})]
    wanted = {_place(each) for each in framed if each.language == query.language}
    return [each for each in framed if each.language in ("", query.language) or _place(each) not in wanted]


def _place(document: Document) -> tuple[str, str]:
    """What translations of one document have in common."""
    return document.path.rpartition("/")[0], document.path.rpartition("/")[2].split(".")[0]


def _answer(document: Document, query: Query, terms: Sequence[str]) -> Answer:
    near = closeness(query.model, document.slug) if query.model else 0
    places = {term: list(occurrences(document.lowered, term)) for term in terms}
    found = {term: where for term, where in places.items() if where}
    lines, marks = _lines(document, found)
    return Answer(document, near, {term: len(where) for term, where in found.items()}, lines, marks)


def _lines(document: Document, places: Mapping[str, Sequence[int]]) -> tuple[list[int], dict[int, int]]:
    """The lines with the terms: of the newest backfill first, then those with most different terms, then in order."""
    terms: dict[int, set[str]] = defaultdict(set)
    marks: dict[int, int] = {}
    for term, where in places.items():
        for place in where:
            number, column = document.line_at(place)
            terms[number].add(term)
            marks[number] = min(column, marks.get(number, column))
    best = nsmallest(SNIPPETS, terms, key=lambda number: (_age(document, number), -len(terms[number]), number))
    return best, {number: marks[number] for number in best}


def snippet(document: Document, number: int, mark: int = 0) -> str:
    """`path:line: text`, of a long line the part around ``mark``."""
    line = document.lines[number - 1]
    begin = max(0, mark - BEFORE) if mark > SNIPPET_CHARS - BEFORE else 0
    return f"{document.path}:{number}: {line[begin:].strip()[:SNIPPET_CHARS]}"


def _age(document: Document, number: int) -> int:
    inside = (place for place, each in enumerate(document.backfills) if each.first <= number <= each.last)
    return next(inside, len(document.backfills))


def _rank(answer: Answer) -> tuple[int, int, bool, str]:
    return -answer.near, -sum(answer.counts.values()), not answer.document.framework, answer.document.path
