"""A draft in Markdown: read with care, and taken apart by its headings."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sotad.errors import BadInput

JSON = dict[str, Any]
MAX_BYTES = 256 * 1024
MIN_LINES = 5
MIN_CONTENT = 3
ADVICE = "correct the draft, or leave plan.draft out to plan from the template"

_HIDDEN = re.compile(r"<!--.*?(-->|\Z)", re.DOTALL)
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_LEAD = r"^(?:[0-9.]+[.)]?\s+)?(?:the\s+|ultimate\s+|main\s+|overall\s+)?"
GOAL = re.compile(_LEAD + r"(?:goals?|objectives?|purpose)\b", re.IGNORECASE)
CRITERIA = re.compile(_LEAD + r"(?:acceptance|(?:success\s+)?criteria|requirements?)\b", re.IGNORECASE)
_ITEM = re.compile(r"^(\s*)(?:[-*+]|[0-9]+[.)])\s+(?:\[[ xX]\]\s+)?(.*)$")
_LABEL = re.compile(r"^\**\s*AC-[0-9.]+\s*\**\s*[:.–—-]*\s*\**\s*", re.IGNORECASE)
_SIDE = re.compile(r"^\**(positive|negative)\s+tests?\b[^:]*:?\**:?\s*(.*)$", re.IGNORECASE)


class BadDraft(BadInput):
    """A draft that no plan can be made of."""

    code = "bad_draft"
    next = ADVICE


def read_draft(path: Path) -> str:
    """The draft's text as it stands, but for a byte order mark.

    Raises:
        BadDraft: it is missing, a link, no file, too large, no text, or says too little.
    """
    text = _decoded(path, _bytes(path))
    lines = text.splitlines()
    content = content_lines(text)
    if len(lines) < MIN_LINES or content < MIN_CONTENT:
        said = f"{len(lines)} lines, {content} of them with content"
        raise BadDraft(f"{path}: says too little: {said}; {MIN_LINES} and {MIN_CONTENT} are the least")
    return text


def _bytes(path: Path) -> bytes:
    """The file's bytes; a link is not followed, so that what is read is what was named."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        linked = path.is_symlink()
        raise BadDraft(f"{path}: {'a symbolic link; name the file itself' if linked else error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise BadDraft(f"{path}: is no regular file")
    with os.fdopen(file, "rb") as source:
        data = source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadDraft(f"{path}: is larger than {MAX_BYTES} bytes")
    return data


def _decoded(path: Path, data: bytes) -> str:
    if b"\0" in data:
        raise BadDraft(f"{path}: holds a NUL byte at {data.index(0)}: no text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadDraft(f"{path}: is not UTF-8 at byte {error.start}") from None
    if "\r" in text:
        raise BadDraft(f"{path}: has carriage returns; save it with line ends of LF")
    return text


def content_lines(text: str) -> int:
    """Lines that say something: not blank, no heading, no HTML comment."""
    return sum(1 for line in _HIDDEN.sub("", text).splitlines() if line.strip() and not line.lstrip().startswith("#"))


def goal(text: str) -> str:
    """What the section Goal, Objective or Purpose says, else the first paragraph; one line. Empty when neither is."""
    body = section(text, GOAL)
    paragraphs = _paragraphs(text if body is None else body)
    return paragraphs[0] if paragraphs else ""


def criteria(text: str) -> list[JSON]:
    """The items of the section Acceptance, Criteria or Requirements: text and the tests named beneath each."""
    body = section(text, CRITERIA)
    if body is None:
        return []
    items = _items(body)
    return items or [_criterion(paragraph) for paragraph in _paragraphs(body)]


def section(text: str, title: re.Pattern[str]) -> str | None:
    """The text under the first heading of that title, down to the next heading of its level or above."""
    found: list[str] | None = None
    depth = 0
    for line in _lines(text):
        if found is None:
            if line.level and title.match(line.title):
                found, depth = [], line.level
        elif 0 < line.level <= depth:
            break
        else:
            found.append(line.text)
    return None if found is None else "\n".join(found)


class _Line(NamedTuple):
    """A line, the level and title of the heading that it is (0 for none), and whether it is in or of a fence."""

    text: str
    level: int
    title: str
    code: bool


def _lines(text: str) -> Iterator[_Line]:
    """The lines of a text without its HTML comments."""
    fence = ""
    for text_line in _HIDDEN.sub("", text).splitlines():
        mark = _FENCE.match(text_line)
        heading = None if fence else _HEADING.match(text_line)
        yield _Line(text_line, *((len(heading[1]), heading[2]) if heading else (0, "")), bool(mark or fence))
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]


def _paragraphs(text: str) -> list[str]:
    """Paragraphs outside fences and headings, each in one line."""
    found = [""]
    for line in _lines(text):
        if line.level or line.code or not line.text.strip():
            found.append("")
        else:
            found[-1] = f"{found[-1]} {line.text.strip()}".strip()
    return [paragraph for paragraph in found if paragraph]


def _items(body: str) -> list[JSON]:
    """Criteria from a list: outer items, and the positive and negative tests nested in them."""
    found: list[JSON] = []
    outer, tests = -1, ""
    for line in _lines(body):
        item = _ITEM.match(line.text)
        if line.code or item is None:
            continue
        indent, said = len(item.group(1).expandtabs(4)), item.group(2).strip()
        if not found or indent <= outer:
            outer, tests = indent, ""
            found.append(_criterion(_LABEL.sub("", said)))
        elif side := _SIDE.match(said):
            tests = f"{side.group(1).lower()}_tests"
            found[-1][tests] += [side.group(2)] if side.group(2) else []
        elif tests:
            found[-1][tests].append(said)
    return [criterion for criterion in found if criterion["text"]]


def _criterion(text: str) -> JSON:
    return {"text": text.strip(" *"), "positive_tests": [], "negative_tests": []}
