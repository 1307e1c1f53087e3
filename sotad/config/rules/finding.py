"""One remark of a rule about one key."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from sotad.config.section import one_line

JSON: TypeAlias = dict[str, Any]


class Finding(NamedTuple):
    """``error``: the campaign is refused. ``warning``: it can run, but may not do what was meant."""

    key: str
    message: str
    level: Literal["error", "warning"] = "error"

    def under(self, prefix: str) -> Finding:
        """The finding with its key below another one."""
        return self._replace(key=f"{prefix}.{self.key}" if self.key else prefix)

    def __str__(self) -> str:
        return one_line(f"{self.key}: {self.message}")


def warning(key: str, message: str) -> Finding:
    """A finding that refuses nothing."""
    return Finding(key, message, "warning")
