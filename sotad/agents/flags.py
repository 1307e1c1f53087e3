"""What a tool on this machine can do: its version, and the flags that its own help names.

Command lines of agents change every few days. A flag that is not there is refused before anything is spent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PATIENCE_S = 60.0
_ENTRY = re.compile(r"^ {1,8}(-[^\n]*?|[a-z][\w|-]*)(?: {2,}.*| <.*| \[.*)?$", re.M)
_WORD = re.compile(r"(?<![\w-])(-{0,2}[A-Za-z][\w-]*)")


class BadTool(Exception):
    """The tool cannot be run, or not as it would have to be; the text says which, what, and what to do."""


@dataclass(frozen=True, slots=True)
class Manual:
    """A tool as it describes itself: flags and subcommands by name."""

    tool: str
    version: str
    words: frozenset[str]

    def missing(self, argv: Sequence[str]) -> str | None:
        """Why the arguments cannot be passed; None when every flag is there."""
        absent = [part for part in argv if part.startswith("--") and part.split("=")[0] not in self.words]
        absent += [part for part in argv if part == "resume" and part not in self.words]
        if not absent:
            return None
        return f"{self.tool} {self.version} has no {absent[0]}: install a version that has it, or choose another driver"


async def manual(
    tool: str, program: Sequence[str], helps: Sequence[Sequence[str]], environment: Mapping[str, str], folder: str
) -> Manual:
    """What a tool says of itself, asked in an environment with nothing else in it.

    Raises:
        BadTool: it cannot be run, or does not answer.
    """
    version = (await _asked([*program, "--version"], environment, folder)).strip()
    texts = [await _asked([*program, *arguments], environment, folder) for arguments in helps]
    return Manual(tool, _short(version), words("\n".join(texts)))


def words(help: str) -> frozenset[str]:
    """The flags and subcommands that the entries of a help text begin with."""
    entries = _ENTRY.findall(help)
    return frozenset(word for entry in entries for word in _WORD.findall(entry))


def _short(version: str) -> str:
    """The number in ``tool 1.2.3`` or ``1.2.3 (Tool)``; the first line where there is none."""
    found = re.search(r"\d+\.\d+[\w.+-]*", version)
    return found[0] if found else (version.splitlines() or ["of unknown version"])[0][:60]


async def _asked(argv: Sequence[str], environment: Mapping[str, str], folder: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
        )
    except OSError as error:
        raise BadTool(f"cannot run {argv[0]}: {error.strerror}: install it, or name its path in argv") from None
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    except (TimeoutError, asyncio.CancelledError) as interrupted:
        process.kill()
        await process.wait()
        if isinstance(interrupted, asyncio.CancelledError):
            raise
        raise BadTool(f"{' '.join(argv)}: no answer after {PATIENCE_S:g} s: run it by hand and see why") from None
    if process.returncode:
        last = (err.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise BadTool(f"{' '.join(argv)} failed: {last}: run it by hand and see why")
    return out.decode(errors="replace")
