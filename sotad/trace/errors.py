"""What is wrong with a trace file."""

from __future__ import annotations


class TraceError(ValueError):
    """A trace that cannot be used; the text is one line: what, where, what to do next."""
