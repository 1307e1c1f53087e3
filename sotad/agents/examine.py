"""Whether the tool of an agent is there and knows every flag that a call would pass."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from sotad.agents import TOOLS
from sotad.agents.call import Call, Command
from sotad.agents.desk import everyday
from sotad.agents.flags import BadTool, manual
from sotad.config.sections import Agent


async def version_of(driver: str, command: Command, environment: Mapping[str, str], folder: str) -> str:
    """The tool's version; empty for a program that is not asked.

    Raises:
        BadTool: it is not there, or lacks a flag of the command.
    """
    tool = TOOLS[driver]
    if not tool.help:
        return ""
    own = command.argv.index(command.first)
    found = await manual(driver, command.argv[:own], tool.help, environment, folder)
    if problem := found.missing(command.argv[own:]):
        raise BadTool(problem)
    return found.version


async def examine(agent: Agent) -> str:
    """The version of an agent's tool, asked without starting a call, in an empty home; empty for other programs.

    Raises:
        BadTool: it is not there, or lacks a flag that a call passes, one that goes on with a session included.
    """
    with tempfile.TemporaryDirectory(prefix="sotad-") as folder:
        call = Call(
            role="implementer",
            folder=folder,
            desk=folder,
            schema={},
            argv=tuple(agent.argv),
            model=agent.model,
            effort=agent.effort,
            money_usd=agent.budget.money_usd,
            writes=True,
            resume="session",
        )
        environment = everyday(Path(folder), Path(folder))
        (Path(folder) / "tmp").mkdir()
        return await version_of(agent.driver, TOOLS[agent.driver].command(call), environment, folder)
