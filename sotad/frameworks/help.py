"""What a server's ``--help`` says about its flags: names, values, choices, negations.

Reads the two layouts that serving frameworks print: argparse (a usage block, then entries indented by two spaces,
``--flag VALUE``, ``--flag, --no-flag``, ``{a,b}``, ``[X ...]``) and click (``--flag INTEGER``, ``--flag / --no-flag``,
``[a|b]``). https://docs.python.org/3/library/argparse.html#formatter-class, https://click.palletsprojects.com
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LONGEST = 20000  # characters of one entry's choices; an unclosed bracket ends there
Takes = Literal["none", "optional", "one", "many"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # argparse colours its help from Python 3.14 on
_ENTRY = re.compile(r"^( +)(-{1,2}[A-Za-z][^\s,]*)", re.M)
_SPELLING = re.compile(r"^(-{1,2}[A-Za-z][\w.+-]*)(?:[ =]?(.*))?$", re.S)
_PIECES = re.compile(r",\s+| / ")
_BRACES = re.compile(r"\{([^{}]*)\}")
_BARS = re.compile(r"^\[([^\[\]|]+(?:\|[^\[\]|]+)+)\]$")
_CLICK_TYPE = re.compile(r" RANGE\b.*$")


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its canonical long spelling, all its spellings, what it takes and how it is switched off.

    ``takes``: none (a switch), optional, one or many values. ``choices`` is None when any value will do.
    """

    name: str
    takes: Takes
    negation: str | None = None
    choices: tuple[str, ...] | None = None
    spellings: tuple[str, ...] = ()
    metavar: str = ""


@dataclass(frozen=True, slots=True)
class Help:
    """The flags of a server by every long spelling; ``source`` says where they come from, ``note`` what is wrong."""

    flags: Mapping[str, Flag]
    source: Literal["help", "static", "none"] = "help"
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether this describes a server: every server has a port, so a text without ``--port`` does not."""
        return "--port" in self.flags

    def find(self, key: str) -> str | None:
        """The spelling of a flag that may be written with ``-`` or ``_``, with or without leading dashes."""
        bare = key.lstrip("-")
        for name in (bare, bare.replace("_", "-"), bare.replace("-", "_")):
            if f"--{name}" in self.flags:
                return f"--{name}"
        return next((name for name in self.flags if name.replace("_", "-") == f"--{bare.replace('_', '-')}"), None)

    def names(self) -> list[str]:
        """Every long spelling, negations included, sorted."""
        return sorted(self.flags)


def plain(key: str) -> str:
    """A flag's name without its dashes, as configurations write it."""
    return key.lstrip("-").replace("-", "_")


def parse_help(text: str) -> Help:
    """The flags of a help text; a text that has none, or no ``--port``, says so in ``note``."""
    text = _COLOUR.sub("", text)
    flags: dict[str, Flag] = {}
    for invocation in _invocations(text) or _usage(text):
        _add(flags, invocation)
    flags = {name: flag for name, flag in flags.items() if name != "--help"}
    if not flags:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "nothing")
        return Help({}, "none", f"no flag in the help text, which begins: {first[:120]}")
    note = "" if "--port" in flags else "the help text names no --port, so it does not describe the whole server"
    return Help(flags, "help", note)


def static_help(names: Iterable[str], separator: str, negatable: Iterable[str] = ()) -> Help:
    """A stand-in for a help that could not be captured: names known to exist; ``enable_`` and such are switches."""
    off = set(negatable)
    flags: dict[str, Flag] = {}
    for name in names:
        spelled = "--" + name.replace("_", separator)
        switch = name.startswith(("enable_", "disable_", "trust_"))
        negation = f"--no-{spelled[2:]}" if name in off else None
        flags[spelled] = Flag(spelled, "none" if switch else "one", negation, None, (spelled,))
    return Help(flags, "static", "no help was captured: only flags of the static list are passed")


def find_help(folder: Path, hints: tuple[str, str]) -> tuple[Path, Help] | None:
    """The server's help among saved texts: a ``*.txt`` whose name has both hints and not ``bench``; most flags win."""
    found = []
    for path in sorted(folder.rglob("*.txt")):
        name = path.name.lower()
        if all(hint in name for hint in hints) and "bench" not in name:
            help = parse_help(path.read_text(errors="replace"))
            if help.flags:
                found.append((path, help))
    return max(found, key=lambda entry: len(entry[1].flags), default=None)


def _invocations(text: str) -> list[str]:
    """The left side of each entry: what precedes two spaces or the end of the line, brackets closed."""
    starts = [(match.start(), len(match[1])) for match in _ENTRY.finditer(text)]
    if not starts:
        return []
    indent = min(width for _, width in starts)
    return [_left_side(text, start + width) for start, width in starts if width == indent]


def _left_side(text: str, start: int) -> str:
    """One invocation; a list of choices that was wrapped over lines is joined again."""
    end = text.find("\n", start)
    left = text[start : end if end >= 0 else None].rstrip()
    while not _balanced(left) and end >= 0 and len(left) < LONGEST:
        begin, end = end + 1, text.find("\n", end + 1)
        line = text[begin : end if end >= 0 else None].strip()
        left += ("" if left.endswith((",", "|", "{")) else " ") + line
    return _columns(left)


def _balanced(text: str) -> bool:
    """Whether every bracket is closed in the first column."""
    left = _columns(text)
    return all(left.count(a) <= left.count(b) for a, b in ("{}", "[]"))


def _columns(text: str) -> str:
    """The first column: two spaces end it."""
    return re.split(r" {2,}", text, maxsplit=1)[0].strip()


def _usage(text: str) -> list[str]:
    """The invocations in an argparse usage block: an error message prints nothing else."""
    match = re.search(r"^usage: (.*?)(?:\n\s*\n|\Z)", text, re.S | re.M)
    if not match:
        return []
    block = re.sub(r"([,{|])\s*\n\s*", r"\1", match[1])
    parts = _groups(" ".join(block.split()))
    return [part.replace(" | ", ", ") for part in parts if part.startswith("-")]


def _groups(block: str) -> list[str]:
    """The bracketed parts of a usage block, and the required flags between them."""
    parts, depth, current = [], 0, ""
    for char in block:
        depth += (char in "[{(") - (char in "]})")
        if (char in "[(" and depth == 1) or (char in "])" and depth == 0):
            parts.append(current)
            current = ""
        else:
            current += char
    parts.append(current)
    return [piece.strip() for part in parts for piece in _required(part)]


def _required(part: str) -> list[str]:
    """``prog --a A --b B`` outside of brackets holds several flags; inside, ``|`` already ties them."""
    return [part] if " | " in part else re.split(r" (?=--[A-Za-z])", part)


def _add(flags: dict[str, Flag], invocation: str) -> None:
    """Add the flag of one invocation under each long spelling that is not taken."""
    pieces = [match for part in _split(invocation) if (match := _SPELLING.match(part.strip()))]
    spellings = [match[1] for match in pieces]
    longs = [name for name in spellings if name.startswith("--")]
    if not longs:
        return
    shown = next((match[2].strip() for match in reversed(pieces) if match[2] and match[2].strip()), "")
    off = _negation(longs, invocation)
    names = [name for name in longs if name != off and name not in _negatives(longs)]
    takes, choices = _value(shown)
    flag = Flag(names[0], takes, off, choices, tuple(spellings), shown)
    for name in names:
        flags.setdefault(name, flag)
    if off:
        flags.setdefault(off, Flag(off, "none", None, None, (off,)))


def _split(invocation: str) -> list[str]:
    """An invocation at its commas and slashes outside of brackets."""
    parts, depth, last = [], 0, 0
    marks = {match.start(): match.end() for match in _PIECES.finditer(invocation)}
    for at, char in enumerate(invocation):
        depth += (char in "[{<(") - (char in "]}>)")
        if depth == 0 and at in marks and at >= last and invocation[marks[at] :].startswith("-"):
            parts.append(invocation[last:at])
            last = marks[at]
    return [*parts, invocation[last:]]


def _negatives(longs: list[str]) -> set[str]:
    return {f"--no-{name[2:]}" for name in longs} & set(longs)


def _negation(longs: list[str], invocation: str) -> str | None:
    """``--no-x`` beside ``--x``, or what follows click's slash."""
    off = next((name for name in longs if name in _negatives(longs)), None)
    if off is None and " / " in invocation and len(longs) > 1:
        off = longs[-1]
    return off


def _value(shown: str) -> tuple[Takes, tuple[str, ...] | None]:
    """What a metavar says: how many values, and which."""
    if not shown:
        return "none", None
    choices = _choices(shown)
    if "..." in shown:
        return "many", choices
    if shown.startswith("[") and not _BARS.match(shown):
        return "optional", choices
    words = _BRACES.sub("X", _CLICK_TYPE.sub("", shown)).split()
    return ("many" if len(words) > 1 else "one"), choices


def _choices(shown: str) -> tuple[str, ...] | None:
    inner = shown[1:-1] if shown.startswith("[{") else shown
    bars = _BARS.match(shown)
    if bars:
        return tuple(part.strip() for part in bars[1].split("|"))
    braces = _BRACES.match(inner.strip())
    return tuple(part.strip().strip("'\"") for part in braces[1].split(",")) if braces else None
