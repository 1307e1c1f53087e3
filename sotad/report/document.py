"""Documents as plain blocks, written as Markdown here and as HTML by :mod:`sotad.report.page`.

Blocks hold plain text, never markup: whatever a server, an agent or a reviewer said is escaped where it is
written, so that it can neither draw a heading nor load a picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NOT_RECORDED = "not recorded"
Cells = Sequence[str]


@dataclass(frozen=True, slots=True)
class Text:
    """One paragraph; ``strong`` for the few lines that nobody may miss."""

    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list, in order; ``empty`` is said when there is none."""

    items: Cells
    empty: str = NOT_RECORDED


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headers; ``empty`` is said when there is no row."""

    headers: Cells
    rows: Sequence[Cells]
    empty: str = NOT_RECORDED


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be kept as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A Markdown document of the campaign, taken over whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart: SVG for the HTML page, its caption everywhere."""

    svg: str
    caption: str


Block = Text | Items | Table | Code | Verbatim | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """A title and its sections."""

    title: str
    sections: Sequence[Section]


def markdown(document: Document) -> bytes:
    """The document as GitHub-flavoured Markdown, UTF-8."""
    parts = [f"# {plain(document.title)}"]
    for section in document.sections:
        if section.title:
            parts.append(f"## {plain(section.title)}")
        parts += [text for block in section.blocks if (text := _markdown(block))]
    return ("\n\n".join(parts) + "\n").encode()


def plain(text: str) -> str:
    """Text on one line that Markdown shows as it is: no HTML, no link, no picture."""
    flat = " ".join(text.split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def _markdown(block: Block) -> str:
    match block:
        case Text(text, strong):
            return f"**{plain(text)}**" if strong else plain(text)
        case Items(items, empty):
            return "\n".join(f"- {plain(item)}" for item in items) or empty
        case Table(headers, rows, empty):
            return _table(headers, rows) if rows else empty
        case Code(text):
            return fenced(text)
        case Verbatim(text):
            return text.strip()
        case Picture():
            return ""


def _table(headers: Cells, rows: Sequence[Cells]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
