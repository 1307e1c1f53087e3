"""Taking secrets out of what is kept: known token shapes, and the values of secret-looking variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sotad.shim import Scrubber

NAMES = re.compile(r"TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)


def scrubber(environment: Mapping[str, str], given: Collection[str] = ()) -> Callable[[bytes], bytes]:
    """A function that returns bytes with every secret replaced by its name, and nothing else changed.

    ``given`` are names of variables that are secret whatever they are called.
    """
    return Scrubber({name: value for name, value in environment.items() if name in given or NAMES.search(name)}).clean


def redactor(environment: Mapping[str, str], given: Collection[str] = ()) -> Callable[[Any], Any]:
    """The same for the texts of a JSON value."""
    scrub = scrubber(environment, given)

    def text(value: str) -> str:
        return scrub(value.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, dict):
            return {text(str(key)): clean(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [clean(entry) for entry in value]
        return value

    return clean
