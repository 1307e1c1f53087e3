"""The command that asks a framework's own interpreter what is installed there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sotad.frameworks.base import Framework
from sotad.frameworks.interpreter import interpreter

SCRIPT = Path(__file__).with_name("installed.py")


def identity_command(
    driver: Framework, command: Sequence[str], python: str | None = None, script: str = str(SCRIPT)
) -> list[str]:
    """The command that prints the identity of a framework's installed package; empty when it has none to ask.

    ``python`` is what the command runs under, where that is known; this machine is asked otherwise.
    """
    if not (command and driver.packages):
        return []
    found = interpreter(command) if python is None else python
    return [found, script, *driver.packages] if found else []
