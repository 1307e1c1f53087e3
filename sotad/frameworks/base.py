"""What sotad needs to know about a serving framework."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]+)")
PORT = "{port}"  # stands for the port in recorded commands: the port is not part of the command's identity

Value = str | int | float | bool


class Framework(Protocol):
    """One framework's command line and endpoints."""

    kind: str

    def help_command(self, python: str) -> tuple[str, ...]:
        """The command that prints the server's help."""

    def version_command(self, python: str) -> tuple[str, ...]:
        """The command that prints its version."""

    def launch_command(self, python: str, model: Mapping[str, Any], flags: Mapping[str, Value]) -> list[str]:
        """The server's argv with ``{port}`` where the port goes."""

    def served_model(self, model: Mapping[str, Any]) -> str:
        """The model's name in requests."""

    def failure_status(self, log: str) -> str:
        """``oom`` when the log tells of memory that did not suffice, else ``failed``."""

    def profile_flags(self, folder: str) -> dict[str, Value]:
        """Further flags that let the server write traces into a folder."""


def flags_in(help_text: str) -> list[str]:
    """Every long flag that a help text mentions, sorted."""
    return sorted(set(FLAG.findall(help_text)))


def render(flags: Mapping[str, Value]) -> list[str]:
    """Flags as arguments: ``true`` is a bare flag, ``false`` its ``--no-`` form."""
    argv: list[str] = []
    for name, value in flags.items():
        if value is True:
            argv.append(f"--{name}")
        elif value is False:
            argv.append(f"--no-{name}")
        else:
            argv += [f"--{name}", str(value)]
    return argv


def split_known(flags: Mapping[str, Value], known: Sequence[str]) -> tuple[dict[str, Value], list[str]]:
    """The flags that the help text knows, and the names of those that it does not."""
    kept = {name: value for name, value in flags.items() if f"--{name}" in known}
    return kept, [name for name in flags if name not in kept]
