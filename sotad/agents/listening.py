"""Following what a tool prints, as it prints it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from sotad.agents.call import JSON, Said, Tool


@dataclass(slots=True)
class Listener:
    """Folds a tool's output, given in pieces of any size; lines that are no JSON object are passed over."""

    tool: Tool
    said: Said = field(default_factory=Said)
    read: int = 0
    _held: bytes = b""

    def take(self, data: bytes) -> None:
        """More of the output; a line counts once it is complete."""
        self.read += len(data)
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._line(line)

    def close(self) -> Said:
        """All that it said, a last line without an end included."""
        self._line(self._held)
        self._held = b""
        return self.said

    def _line(self, data: bytes) -> None:
        if (line := _object(data)) is not None:
            self.said = self.tool.heard(self.said, line)


def _object(data: bytes) -> JSON | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
