"""How lines are recognised: a stable head, and after it named parts in any order, each of them optional."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sotad.capacity.ranks import Rank
from sotad.capacity.units import COUNT, FLOAT, SIZE, count, gib_number, size

Value = int | float | str | None
LONGEST = 32  # characters of a number
_PARSE: dict[str, tuple[str, Callable[[str], Value]]] = {
    "size": (SIZE, size),
    "gib": (r"(-?\d+(?:\.\d+)?)", gib_number),
    "count": (COUNT, count),
    "float": (FLOAT, float),
    "word": (r"([^\s,;()]+)", str),
}
# Where the next message begins when two processes wrote into one line.
_NEXT = re.compile(r"\[\d{4}-\d{2}-\d{2} \d{2}:\d{2}|\((?:Vllm)?(?:Worker|EngineCore)\w* [^()]*pid=\d+\)")


@dataclass(frozen=True, slots=True)
class Part:
    """A value of a line: ``before`` is what stands directly before it, ``kind`` how it is read and of what unit."""

    name: str
    before: str
    kind: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of line of one framework. A line counts if it has the head and the parts that the rule needs.

    ``words``, in lower case and parted by ``|``: one of them is in every such line. They cost far less than the head.
    """

    framework: str
    name: str
    words: str
    head: str
    parts: tuple[Part, ...] = ()
    needs: tuple[str, ...] = ()  # parts without which the line means something else


@dataclass(frozen=True, slots=True)
class Event:
    """A recognised line: sizes in bytes, counts as numbers; a part that the line lacks is not in ``values``."""

    framework: str
    name: str
    rank: Rank
    line: int
    text: str
    values: dict[str, Value] = field(default_factory=dict)

    def whole(self, name: str) -> int | None:
        """A size in bytes or a count."""
        found = self.values.get(name)
        return found if isinstance(found, int) else None


def by_name(events: Iterable[Event]) -> Mapping[str, list[Event]]:
    """Events by name; a name that did not occur has an empty list."""
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.name].append(event)
    return found


class Compiled:
    """Rules ready for use."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._words = [(word, rule) for rule in rules for word in rule.words.split("|")]
        self._compiled = {id(rule): (re.compile(rule.head, re.I), _parts(rule)) for rule in rules}

    def candidates(self, text: str) -> list[Rule]:
        """The rules that the text may match."""
        lowered = text.lower()
        found = [rule for word, rule in self._words if word in lowered]
        return found if len(found) < 2 else list({id(rule): rule for rule in found}.values())

    def matches(self, rules: Iterable[Rule], text: str) -> Iterator[tuple[Rule, int, str, dict[str, Value]]]:
        """Rule, start, message and values of every recognised message of a line, by rule."""
        for rule in rules:
            head, parts = self._compiled[id(rule)]
            for found in head.finditer(text):
                following = _NEXT.search(text, found.end())
                message = text[found.start() : following.start() if following else len(text)]
                values = _values(message, parts)
                if all(name in values for name in rule.needs):
                    yield rule, found.start(), message, values


def _parts(rule: Rule) -> list[tuple[Part, re.Pattern[str]]]:
    return [(part, re.compile(part.before + _PARSE[part.kind][0] + part.after)) for part in rule.parts]


def _values(message: str, parts: list[tuple[Part, re.Pattern[str]]]) -> dict[str, Value]:
    found = ((part, pattern.search(message)) for part, pattern in parts)
    return {part.name: value for part, match in found if match for value in _read(part, match[1])}


def _read(part: Part, text: str) -> list[Value]:
    """The value; none of a number that is too long to be one."""
    try:
        return [_PARSE[part.kind][1](text)] if part.kind == "word" or len(text) <= LONGEST else []
    except (ValueError, OverflowError):
        return []
