"""Programs with a request file in and a result file out: the user's own, and our scripts.

A program may print lines of JSON as it works: ``{"usage": {"input_tokens", "cached_input_tokens",
"output_tokens", "cost_usd"}}`` adds to what it used, ``{"session": ID}`` names its session. Other lines are its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from sotad.agents.call import COUNTS, JSON, REQUEST, Call, Command, Said, Usage, money, section, text, whole


class Program:
    """The driver ``command``: ``argv REQUEST RESULT``."""

    silence_s: float | None = None
    result = "result.json"
    help: tuple[tuple[str, ...], ...] = ()
    resumes = False
    moves = False
    counts_sessions = False

    def command(self, call: Call) -> Command:
        """It gets the request as data, not as text for a model."""
        return Command((*call.argv, call.on_desk(REQUEST), call.on_desk(self.result)))

    def schema(self, schema: JSON) -> JSON:
        """As it is."""
        return schema

    def heard(self, said: Said, line: JSON) -> Said:
        """What it says of its usage and its session."""
        said = replace(said, session=text(line.get("session")) or said.session)
        found = section(line, "usage")
        counts = {name: whole(found.get(name)) for name in COUNTS}
        return said.using(f"line {len(said.usage)}", Usage(**counts, cost_usd=money(found.get("cost_usd"))))


class Script(Program):
    """A driver of ours, named as what it is: a recipe instead of a language model."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, call: Call) -> Command:
        """``python -m sotad.agents.ROLE NAME REQUEST RESULT``."""
        script = (sys.executable, "-m", f"sotad.agents.{call.role}", self.name)
        return Command((*script, call.on_desk(REQUEST), call.on_desk(self.result)))
