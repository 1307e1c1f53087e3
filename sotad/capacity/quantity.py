"""A number with where it comes from: read from lines, derived by a formula, or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sotad.capacity.rules import Event
from sotad.capacity.units import GIB, gib


@dataclass(frozen=True, slots=True)
class Quantity:
    """Bytes of memory; ``value`` None is unknown, and ``why`` then says what the log lacks."""

    name: str
    value: int | None
    source: str  # read, derived, unknown
    lines: tuple[int, ...] = ()
    formula: str = ""
    why: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return self.value is not None

    def named(self, name: str) -> Quantity:
        """The same number under another name."""
        return replace(self, name=name)

    def as_json(self) -> dict[str, Any]:
        """GiB for people, bytes for programs, and the provenance."""
        shown: dict[str, Any] = {"gib": gib(self.value), "bytes": self.value, "source": self.source}
        shown["lines"] = list(self.lines)
        return shown | ({"formula": self.formula} if self.formula else {}) | ({"why": self.why} if self.why else {})


def unknown(name: str, why: str) -> Quantity:
    """What the log does not say."""
    return Quantity(name, None, "unknown", why=why)


def read(name: str, events: Sequence[Event], *parts: str, why: str = "") -> Quantity:
    """The sum of those parts of all events that have one; unknown if none has."""
    found = [
        (event.line, part, value) for event in events for part in parts if (value := event.whole(part)) is not None
    ]
    if not found:
        return unknown(name, why or "the log does not say")
    terms = [f"{part} {value / GIB:.2f}" for _, part, value in found]
    formula = " + ".join(terms) + " GiB" if len(terms) > 1 else ""
    return Quantity(name, sum(value for *_, value in found), "read", lines_of(line for line, *_ in found), formula)


def lines_of(numbers: Any) -> tuple[int, ...]:
    """Line numbers, each once, in order."""
    return tuple(sorted(set(numbers)))


def difference(name: str, whole: Quantity, *parts: Quantity) -> Quantity:
    """``whole`` less the parts, signed; unknown as soon as one of them is."""
    missing = [each.name for each in (whole, *parts) if not each.known]
    if missing:
        return unknown(name, f"needs {', '.join(missing)}")
    value = (whole.value or 0) - sum(part.value or 0 for part in parts)
    formula = " - ".join(_term(each) for each in (whole, *parts)) + f" = {value / GIB:.2f} GiB"
    return Quantity(name, value, "derived", lines_of(line for each in (whole, *parts) for line in each.lines), formula)


def total(name: str, parts: Sequence[Quantity]) -> Quantity:
    """The sum of the parts that are known; unknown when none is."""
    known = [part for part in parts if part.known]
    if not known:
        return unknown(name, "nothing of it is known")
    value = sum(part.value or 0 for part in known)
    formula = " + ".join(_term(part) for part in known) + f" = {value / GIB:.2f} GiB"
    return Quantity(name, value, "derived", lines_of(line for each in known for line in each.lines), formula)


def first(*choices: Quantity) -> Quantity:
    """The first that is known, else the first."""
    return next((choice for choice in choices if choice.known), choices[0])


def _term(quantity: Quantity) -> str:
    return f"{quantity.name.replace('_', ' ')} {(quantity.value or 0) / GIB:.2f}"
