"""Implementers and reviewers: command lines of coding agents, programs of the user's, and scripts of ours."""

from sotad.agents.call import Call, NoAnswer, Said, Tool, Usage
from sotad.agents.claude import Claude
from sotad.agents.codex import Codex
from sotad.agents.program import Program, Script

TOOLS: dict[str, Tool] = {
    "claude": Claude(),
    "codex": Codex(),
    "command": Program(),
    "scripted": Script("scripted"),
    "none": Script("none"),
    "cheater": Script("cheater"),
}
"""The driver of each value of ``driver`` in a campaign file."""

__all__ = ["TOOLS", "Call", "NoAnswer", "Said", "Tool", "Usage"]
