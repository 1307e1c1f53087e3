"""Implementers and reviewers: programs with a request file in and a result file out."""

from __future__ import annotations

import sys
from typing import Any

SCRIPTED = {"scripted", "none", "cheater"}


def agent_command(agent: dict[str, Any], role: str, request: str, result: str) -> tuple[str, ...]:
    """The argv that runs an agent: ``command`` is the user's own program, the others are scripts of ours."""
    if agent["driver"] == "command":
        return (*agent["argv"], request, result)
    return (sys.executable, "-m", f"sotad.agents.{role}", agent["driver"], request, result)
