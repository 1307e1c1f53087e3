"""One Markdown dossier, and what it says: sections, pull requests, source files, symbols, risks."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import PurePosixPath
from typing import NamedTuple

from sotad.knowledge.names import squeezed
from sotad.knowledge.words import lowered

FRAMEWORKS = frozenset({"sglang", "vllm", "tensorrtllm", "trtllm", "tokenspeed", "reference"})
MOST_BACKFILLS = 20
_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_DATE = re.compile(r"(?<!\d)20\d\d-[01]\d-[0-3]\d(?!\d)")
_BACKFILL = re.compile(r"back-?fill|addendum|refresh|回填|补充|补录|更新|刷新", re.IGNORECASE)
_WATCH = re.compile(r"open[-_ ]?prs?(?![a-z])|pr[-_ ]?watch|open pull requests?", re.IGNORECASE)
_PULL = re.compile(r"(?<![\w&])#(\d{1,7})\b|/pull/(\d{1,7})\b")
_OPEN_CELL = re.compile(r"\|\s*`?(?:open|draft)`?\s*\|", re.IGNORECASE)
_OPEN_STATE = re.compile(r"(?:\b(?:state|status)\b|状态)[\w/ *]{0,12}[:：]\W{0,4}(?:open|draft)\b", re.IGNORECASE)
_FILE = re.compile(r"`([\w.+-]+(?:/[\w.,=+ \[\]-]+)*\.(?:py|pyx|cu|cuh|cpp|cc|c|h|hpp|rs|json|yaml|toml))(?::\d+)?`")
_CODE = re.compile(r"`([^`\n]+)`")
_SYMBOL = re.compile(r"((?:[A-Za-z_]\w*(?:\.|::))*[A-Za-z_]\w*)(?:\(\))?")
_RISK = re.compile(r"risk|validat|regress|caveat|风险|验证|回归", re.IGNORECASE)
_LANGUAGE = re.compile(r"[._-](en|zh|cn|ja|ko)$", re.IGNORECASE)


class Section(NamedTuple):
    """A heading and its lines, numbered from 1; ``date`` when the section is a dated backfill."""

    title: str
    first: int
    last: int
    date: str


@dataclass(frozen=True)
class Document:
    """A file of the corpus. ``digest`` is the SHA-256 of the whole file, ``path`` relative to the corpus."""

    path: str
    text: str
    digest: str

    @cached_property
    def lines(self) -> list[str]:
        """The lines; line N of the file is ``lines[N - 1]``."""
        return self.text.split("\n")

    @cached_property
    def lowered(self) -> str:
        """The text in lower case, to look for words quickly."""
        return lowered(self.text)

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate((len(line) + 1 for line in self.lines), initial=0))

    def line_at(self, place: int) -> tuple[int, int]:
        """Number of the line that holds a place in the text, and the column."""
        number = bisect_right(self._starts, place)
        return number, place - self._starts[number - 1]

    @cached_property
    def language(self) -> str:
        """`en` or `zh` as the file's name says; empty where it says none."""
        found = _LANGUAGE.search(_stem(self.path))
        return found.group(1).lower().replace("cn", "zh") if found else ""

    @cached_property
    def framework(self) -> str:
        """The folder above the model's, squeezed; empty in a flat folder."""
        folders = PurePosixPath(self.path).parts[:-1]
        if len(folders) >= 2:
            return squeezed(folders[-2])
        return squeezed(folders[0]) if folders and squeezed(folders[0]) in FRAMEWORKS else ""

    @cached_property
    def slug(self) -> str:
        """The model's folder; the file's name in a flat folder."""
        folders, name = PurePosixPath(self.path).parts[:-1], _LANGUAGE.sub("", _stem(self.path))
        flat = not folders or squeezed(folders[-1]) in FRAMEWORKS
        return name if flat else folders[-1]

    @cached_property
    def watch(self) -> bool:
        """Whether it lists open pull requests, which are nobody's behaviour yet."""
        title = next((section.title for section in self.sections), "")
        return bool(_WATCH.search(_stem(self.path)) or _WATCH.match(title))

    @cached_property
    def sections(self) -> list[Section]:
        """Every heading outside code, in order; a section ends where one of its rank or higher begins."""
        found: list[Section] = []
        open_: list[tuple[int, int]] = []  # rank and place of the sections around this line
        for rank, title, number in self._headings():
            while open_ and open_[-1][0] >= rank:
                _, place = open_.pop()
                found[place] = found[place]._replace(last=number - 1)
            open_.append((rank, len(found)))
            found.append(Section(title, number, len(self.lines), _backfilled(title) if rank > 1 else ""))
        return found

    def _headings(self) -> Iterator[tuple[int, str, int]]:
        """Rank, title and line of each heading outside code."""
        fenced = False
        for number, line in enumerate(self.lines, 1):
            if _FENCE.match(line):
                fenced = not fenced
            elif not fenced and (heading := _HEADING.match(line)):
                yield len(heading.group(1)), heading.group(2), number

    @cached_property
    def backfills(self) -> list[Section]:
        """The dated sections, which are newer than the rest, the newest first."""
        dated = (section for section in self.sections if section.date)
        return sorted(dated, key=lambda section: section.date, reverse=True)[:MOST_BACKFILLS]

    def heading_of(self, number: int) -> str:
        """The innermost heading above a line; empty before the first."""
        place = bisect_right(self.sections, number, key=lambda section: section.first)
        return self.sections[place - 1].title if place else ""

    @cached_property
    def open_pulls(self) -> frozenset[int]:
        """Pull requests that the document itself calls open."""
        rows = [number for line in self.lines if _OPEN_CELL.search(line) for number in pulls(line)[:1]]
        states = [number for number, line in enumerate(self.lines, 1) if _OPEN_STATE.search(line)]
        named = [pulls(self.lines[number - 1]) or pulls(self.heading_of(number)) for number in states]
        return frozenset(rows + [numbers[0] for numbers in named if numbers])

    @cached_property
    def risks(self) -> list[int]:
        """Numbers of the lines that speak of validation or risk, headings apart."""
        return [
            number
            for number, line in enumerate(self.lines, 1)
            if line.strip() and not _HEADING.match(line) and _RISK.search(line + self.heading_of(number))
        ]


def _backfilled(title: str) -> str:
    """The date of a backfill by its title; empty when it is none."""
    date = _DATE.search(title)
    return date.group() if date and _BACKFILL.search(title) else ""


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def pulls(text: str) -> list[int]:
    """Numbers of the pull requests that a text names, in its order, each once."""
    return list(dict.fromkeys(int(short or long) for short, long in _PULL.findall(text)))


def files(text: str) -> list[str]:
    """Source files that a text names in backticks, each once."""
    return list(dict.fromkeys(_FILE.findall(text)))


def symbols(text: str) -> list[str]:
    """Names in backticks, alone or in a list, that look like code: with an underscore, a dot, or a capital within."""
    parts = (part for span in _CODE.findall(text) for part in re.split(r",\s*", span))
    found = (hit.group(1) for part in parts if (hit := _SYMBOL.fullmatch(part)))
    return list(dict.fromkeys(name for name in found if re.search(r"_|\.|::|[a-z][A-Z]", name)))
