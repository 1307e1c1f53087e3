"""A document as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sotad.report.document import Document

_CITATION = re.compile(r"\[#\d+(?:[,-] ?#\d+)*\]")


def html(document: Document) -> bytes:
    """The document as HTML, UTF-8. All text is escaped; the charts' SVG, which escapes its own, is not."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cited"] = cited
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    return environment.get_template("report.html.j2").render(document=document).encode()


def cited(text: str) -> Markup:
    """Escaped text in which citations of events are set apart."""
    return Markup(_CITATION.sub(r'<span class="event">\g<0></span>', str(escape(text))))
