"""``analyze``: what traces and logs of a serving engine say; none of it needs a daemon."""

from __future__ import annotations

from typing import Any

from sotad.cli import analyze_capacity, analyze_capture, analyze_pipeline, analyze_trace


def add(commands: Any) -> None:
    """Add the group to the parser."""
    group = commands.add_parser("analyze", help="explain traces and start-up logs of a serving engine")
    inner = group.add_subparsers(metavar="COMMAND", required=True)
    for part in (analyze_trace, analyze_pipeline, analyze_capacity, analyze_capture):
        part.add(inner)
