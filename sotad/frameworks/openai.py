"""Any command that serves the OpenAI API: a template with ``{port}``, and ``{model}`` where the model goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sotad.frameworks.base import PORT, Framework
from sotad.frameworks.help import Help
from sotad.frameworks.render import BadFlag, Rendered, Value, render

MODEL = "{model}"


class OpenAI(Framework):
    """Ready when ``/v1/models`` answers; flags are checked only where a help text says which there are."""

    kind = "openai"
    help_hints = ("openai", "serve")
    ready_path = "/v1/models"

    def help_commands(self, command: Sequence[str]) -> dict[str, list[str]]:
        return {}

    def version_command(self, command: Sequence[str], python: str | None = None) -> list[str]:
        return []

    def launch(
        self, command: Sequence[str], model: Mapping[str, Any], flags: Mapping[str, Value], help: Help
    ) -> Rendered:
        if not any(PORT in word for word in command):
            raise BadFlag("the command of an openai framework must hold {port}, or its server cannot be reached")
        rendered = render(flags, help if help.complete else Help({}, "none", help.note), self.renames)
        argv = [word.replace(MODEL, str(model["id"])) for word in command]
        rendered.argv = [*argv, *rendered.argv]
        return rendered
