"""What is wrong with result rows, one line for each problem."""

from __future__ import annotations

from sotad.errors import BadConfig


class BadRows(BadConfig):
    """Rows that cannot be compared; ``problems`` says where and what, line by line."""

    code = "bad_rows"
    next = "correct or remove that row: a comparison never goes on without what it could not read"
