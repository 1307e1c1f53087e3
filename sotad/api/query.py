"""Numbers in a request."""

from __future__ import annotations

from sotad.errors import BadInput


def whole(text: str, name: str) -> int:
    """A whole number from 0 to 10**18.

    Raises:
        BadInput: it is not one.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadInput(f"{name}={text[:40]!r}: not a whole number", f"give {name} as 0 or more")
    return int(text)
