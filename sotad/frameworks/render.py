"""A configuration's flags as arguments of one server, by what that server's help says.

Null is left out; true is a bare flag, or the word true for a flag that needs a value; false is the flag's negation
where there is one, and left out where the flag is a switch that is off by itself; a list is several values or one
comma list, as the flag takes them; a mapping is compact JSON; a float is written without an exponent. A flag that the
help does not know is translated (a known rename) or dropped, and recorded; a value outside its choices is refused.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sotad.errors import CandidateFault
from sotad.frameworks.help import Flag, Help, plain

Value = str | int | float | bool | list[Any] | dict[str, Any] | None
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class BadFlag(CandidateFault):
    """A flag has a value that the server would refuse; nothing was launched."""

    code = "bad_flag"
    next = "correct the flag in the campaign's configuration"


@dataclass(frozen=True, slots=True)
class Rename:
    """A flag that later versions call ``new``; ``values`` maps old values, as JSON, to new ones (None: all stay)."""

    old: str
    new: str
    values: Mapping[str, Value] | None = None


@dataclass(slots=True)
class Rendered:
    """Arguments; the flags that they pass, by the server's names; those it does not know; those it calls otherwise.

    ``flags_from`` says what decided: the captured ``help``, the ``static`` list, or ``none`` (nothing was checked).
    """

    argv: list[str] = field(default_factory=list)
    passed: dict[str, Value] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    translated: dict[str, str] = field(default_factory=dict)
    flags_from: str = "help"


def render(flags: Mapping[str, Value], help: Help, renames: Sequence[Rename] = ()) -> Rendered:
    """The flags in their order, by the help; a text without help (``source`` none) lets every flag through.

    Raises:
        BadFlag: a value is outside the choices, has the wrong form, or one flag is given under two names.
    """
    rendered = Rendered(flags_from=help.source)
    seen: dict[str, str] = {}
    for key, value in flags.items():
        if value is None:
            continue
        found = _resolve(key, value, help, renames)
        if found is None:
            rendered.dropped.append(key)
            continue
        flag, spelling, known_value = found
        if help.source != "none" and help.find(key) is None:
            rendered.translated[key] = spelling
        if known_value is None:
            continue
        if seen.setdefault(flag.name, key) != key:
            raise BadFlag(f"{key} and {seen[flag.name]} are the same flag of the server ({flag.name}): keep one")
        rendered.argv += arguments(flag, spelling, known_value)
        rendered.passed[plain(flag.name)] = known_value
    return rendered


def _resolve(key: str, value: Value, help: Help, renames: Sequence[Rename]) -> tuple[Flag, str, Value] | None:
    """The server's flag for a key, under this name or a known other one, and the value in its terms."""
    if help.source == "none":
        spelling = "--" + key.lstrip("-").replace("_", "-")
        return Flag(spelling, _guess(value)), spelling, value
    for name, translated in ((key, value), *_other_names(key, value, renames)):
        if found := help.find(name):
            return help.flags[found], found, translated
    return None


def _guess(value: Value) -> Any:
    """What an unknown flag takes, by the value given to it."""
    return "none" if isinstance(value, bool) else "many" if isinstance(value, list) else "one"


def _other_names(key: str, value: Value, renames: Iterable[Rename]) -> Iterable[tuple[str, Value]]:
    """Later names of a flag, then earlier ones; a rename that changes values goes forward only."""
    name = plain(key)
    for rename in renames:
        if rename.old == name and rename.values is None:
            yield rename.new, value
        elif rename.old == name and (said := json.dumps(value)) in rename.values:  # type: ignore[operator]
            yield rename.new, rename.values[said]  # type: ignore[index]
    yield from ((rename.old, value) for rename in renames if rename.new == name and rename.values is None)


def arguments(flag: Flag, spelling: str, value: Value) -> list[str]:
    """One flag with its value as arguments; none for a false switch.

    Raises:
        BadFlag: the value has a form that the flag does not take, or is outside its choices.
    """
    if value is None:
        return []
    if isinstance(value, bool):
        return _boolean(flag, spelling, value)
    if flag.takes == "none":
        raise BadFlag(f"{spelling} is a switch and takes no value, not {value!r}: give true or false")
    if isinstance(value, list):
        return _list(flag, spelling, value)
    return [spelling, _checked(flag, spelling, text(value))]


def _boolean(flag: Flag, spelling: str, value: bool) -> list[str]:
    if flag.takes in ("none", "optional"):
        return [spelling] if value else [flag.negation] if flag.negation else []
    words = _TRUE if value else _FALSE
    word = next((choice for choice in flag.choices or () if choice.lower() in words), words[0])
    if not value and flag.choices is None and flag.metavar != "BOOLEAN":
        return []  # many parsers read any non-empty word as true: leaving the flag out is the only safe way to say no
    return [spelling, _checked(flag, spelling, word)]


def _list(flag: Flag, spelling: str, value: list[Any]) -> list[str]:
    if not value:
        raise BadFlag(f"{spelling} has an empty list: give at least one value, or null to leave the flag out")
    if flag.takes == "many":
        return [spelling, *(_checked(flag, spelling, text(item)) for item in value)]
    if any(isinstance(item, (list, dict)) for item in value):
        return [spelling, text(value)]
    return [spelling, ",".join(_checked(flag, spelling, text(item)) for item in value)]


def _checked(flag: Flag, spelling: str, word: str) -> str:
    """The word, when it is among the choices."""
    if flag.choices is None or word in flag.choices:
        return word
    near = difflib.get_close_matches(word, flag.choices, 1)
    shown = ", ".join(flag.choices[:20]) + (", …" if len(flag.choices) > 20 else "")
    hint = f"; did you mean {near[0]}?" if near else ""
    raise BadFlag(f"{spelling} cannot be {word!r}: this server takes one of {shown}{hint}")


def text(value: Any) -> str:
    """A value as one argument: JSON for mappings and lists, floats without exponent.

    Raises:
        BadFlag: not a number, or infinite.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadFlag(f"{value} is no value for a flag: give a finite number")
        return format(Decimal(repr(value)), "f")
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)
