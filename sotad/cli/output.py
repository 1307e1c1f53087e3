"""What commands print: tables and JSON on stdout, remarks on stderr.

Tables are aligned here, because importing a library for it costs more than all the rest of ``status``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}") | {9: " ", 10: "\n"}


def emit_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """Tell the person, not the program that reads our output."""
    print(clean(text), file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """Text from files and other programs without what would steer the terminal."""
    return text.translate(_CONTROL)


def table(rows: Iterable[Sequence[Any]], header: Sequence[str]) -> str:
    """Columns, left aligned, two spaces apart."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _cell(value: Any) -> str:
    return "" if value is None else clean(str(value)).replace("\n", " ")


def utc(time_ns: int) -> str:
    """A time as ``2026-11-21 22:01:03Z``."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))
