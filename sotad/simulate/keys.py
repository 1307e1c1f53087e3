"""Reading a config.json: one number under any of its names, with an error that says which names were looked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sotad.simulate.errors import SimulateError

MOST = 10**9


class Keys:
    """The keys of one config object, then ``defaults``; a null counts as missing. ``explicit`` are those of the
    config itself, ``used`` those asked for."""

    def __init__(self, found: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        self._found = {**(defaults or {}), **{key: value for key, value in found.items() if value is not None}}
        self.explicit = {key for key, value in found.items() if value is not None}
        self.used: set[str] = set()

    def get(self, *names: str) -> Any:
        """The value of the first of the names that is there, else None."""
        self.used.update(names)
        return next((self._found[name] for name in names if name in self._found), None)

    def number(self, *names: str, default: int | None = None, least: int = 0) -> int:
        """A whole number.

        Raises:
            SimulateError: it is missing and has no default, or is not a whole number of at least ``least``.
        """
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if value is None:
            raise SimulateError(f"{' or '.join(names)} is missing: give the model's whole config.json")
        if not _whole(value):
            raise SimulateError(f"{self._name(names)} is {value!r}, not a whole number: correct the config.json")
        if value < least:
            raise SimulateError(f"{self._name(names)} is {value}, below {least}: correct the config.json")
        return int(value)

    def width(self, *names: str, default: int | None = None) -> int:
        """A whole number that cannot be zero."""
        return self.number(*names, default=default, least=1)

    def flag(self, *names: str, default: bool = False) -> bool:
        """A truth value."""
        value = self.get(*names)
        return default if value is None else bool(value)

    def fraction(self, *names: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self.get(*names)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise SimulateError(f"{self._name(names)} is {value!r}, not from 0 to 1: correct the config.json")
        return float(value)

    def items(self, *names: str, length: int | None = None) -> list[Any] | None:
        """A list, of ``length`` where that is given; None when missing."""
        value = self.get(*names)
        if value is None:
            return None
        if not isinstance(value, list):
            raise SimulateError(f"{self._name(names)} is {value!r}, not a list: correct the config.json")
        if length is not None and len(value) != length:
            text = f"{self._name(names)} has {len(value)} entries for {length} layers"
            raise SimulateError(f"{text}: correct the config.json")
        return value

    def _name(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if name in self._found), names[0])


def _whole(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0 and value <= MOST
