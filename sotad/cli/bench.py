"""``bench``: measure an endpoint, compare results; neither needs a daemon."""

from __future__ import annotations

from typing import Any

from sotad.cli import bench_compare, bench_run


def add(commands: Any) -> None:
    """Add the group to the parser."""
    bench = commands.add_parser("bench", help="measure an OpenAI-compatible endpoint, compare result rows")
    inner = bench.add_subparsers(metavar="COMMAND", required=True)
    for part in (bench_run, bench_compare):
        part.add(inner)
