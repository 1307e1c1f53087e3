"""A triage as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sotad.report.document import Document, Table

WHOLE = "whole step"  # the first cell of a row that sums up its table
NOISE = "within noise"  # the last cell of a row that proves nothing
_NUMBER = re.compile(r"[+-]?[\d.]+( (±|to) [+-]?[\d.]+)?|not known|")


def html(document: Document) -> bytes:
    """The document as HTML, UTF-8. All text is escaped; the charts' SVG, which escapes its own, is not."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["anchor"] = lambda title: re.sub(r"\W+", "-", title).strip("-").lower() or "answer"
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    environment.tests["numeric"] = _numeric
    page = environment.get_template("triage.html.j2")
    return page.render(document=document, whole=WHOLE, noise=NOISE).encode()


def _numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows]
    return any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)
