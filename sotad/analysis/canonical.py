"""One name for all the forms in which a kernel's name is written."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
_RETURNS = "void "


def canonical(name: str) -> str:
    """The name with single spaces, `0xADDR` for addresses, and without a C++ kernel's return type and argument list.

    Template arguments stay: they tell kernels apart that share their name.
    """
    text = _ADDRESS.sub("0xADDR", " ".join(name.split()))
    if not text.endswith(")"):
        return text
    at = _arguments(text)
    if at <= 0 or not (text.startswith(_RETURNS) or "<" in text[:at] or "::" in text[:at]):
        return text
    return text[:at].removeprefix(_RETURNS).rstrip()


def _arguments(text: str) -> int:
    """Where the balanced list of arguments at the end of `text` begins; -1 when it is not balanced."""
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        if text[place] == ")":
            depth += 1
        elif text[place] == "(":
            depth -= 1
            if depth == 0:
                return place
    return -1
