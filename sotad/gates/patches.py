"""What git prints about commits, read: added lines, numbers of lines, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sotad.gates.facts import Added, Change

HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
NUMBERS = re.compile(r"(\d+|-)\t(\d+|-)\t(.+)", re.DOTALL)


def added_lines(patch: str) -> Iterator[Added]:
    """The lines that a unified diff adds, whatever they look like: hunks are counted, not guessed."""
    path, old, new = "", 0, 0
    for line in patch.split("\n"):
        if old > 0 or new > 0:
            old -= line[:1] in " -"
            new -= line[:1] in " +"
            if line[:1] == "+":
                yield Added(path, line[1:])
        elif line.startswith("+++ "):
            path = line[4:].strip().strip('"').removeprefix("b/")
        elif found := HUNK.match(line):
            old, new = (int(count or 1) for count in found.groups())


def numbers(listed: str) -> dict[str, tuple[int, bool]]:
    """Of ``git log --numstat -z``: the lines that the commits add to each file, and whether it is binary."""
    found: dict[str, tuple[int, bool]] = {}
    for entry in listed.split("\0"):
        if parts := NUMBERS.match(entry.strip("\n")):
            lines, _, path = parts.groups()
            before, binary = found.get(path, (0, False))
            found[path] = (before + (0 if lines == "-" else int(lines)), binary or lines == "-")
    return found


def changes(
    lines: Mapping[str, tuple[int, bool]], sizes: Mapping[str, int], before: Mapping[str, int], net: set[str]
) -> list[Change]:
    """One change for each file that any of the commits touches; see ``Change`` for what is said of each."""
    return [
        Change(path, count, sizes.get(path, 0), before.get(path, 0), binary, path in net)
        for path, (count, binary) in sorted(lines.items())
    ]
