"""Numbers as logs print them. All engines read here divide by powers of 1024, whether they print GB or GiB."""

from __future__ import annotations

import re

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_SCALE = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}
_SIZE = re.compile(r"(-?\d[\d,]*(?:\.\d+)?)\s?([KMGT]?)i?B\b")
SIZE = r"(-?\d[\d,]*(?:\.\d+)?\s?[KMGT]?i?B\b)"  # a size always has its unit
COUNT = r"(-?\d[\d,]*|None|none)"
FLOAT = r"(-?\d+(?:\.\d+)?)"


def size(text: str) -> int:
    """Bytes of ``15.28 GB``, ``0.09GB`` or ``143771 MiB``.

    Raises:
        ValueError: the text has no unit.
    """
    found = _SIZE.match(text)
    if found is None:
        raise ValueError(f"{text!r} is no size with a unit")
    return round(float(found[1].replace(",", "")) * _SCALE[found[2]])


def gib_number(text: str) -> int:
    """Bytes of a number whose unit, GiB, stands elsewhere in the line."""
    return round(float(text.replace(",", "")) * GIB)


def count(text: str) -> int | None:
    """A count with or without thousands separators; None for ``None`` and for -1, which engines use for no limit."""
    if text.lower() == "none" or text.startswith("-"):
        return None
    return int(text.replace(",", ""))


def gib(value: int | None) -> float | None:
    """GiB with the two decimals that logs have, None for unknown."""
    return None if value is None else round(value / GIB, 2)
