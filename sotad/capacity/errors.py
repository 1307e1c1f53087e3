"""What can be wrong with what the user gave."""

from __future__ import annotations


class CapacityError(ValueError):
    """A log or a file beside it cannot be used; the text says what, where and what to do next."""
