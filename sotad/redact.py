"""Taking secrets out of what is kept: known token shapes, and the values of secret-looking variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sotad.shim import SHORTEST_SECRET, TOKEN_SHAPES

SHAPES = re.compile(TOKEN_SHAPES)
NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)


def redactor(environment: Mapping[str, str]) -> Callable[[Any], Any]:
    """A function that returns a JSON value with every secret replaced by its name, and nothing else changed."""
    values = {
        value: name for name, value in environment.items() if NAMES.search(name) and len(value) >= SHORTEST_SECRET
    }
    longest_first = sorted(values, key=len, reverse=True)

    def text(value: str) -> str:
        for secret in longest_first:
            if secret in value:
                value = value.replace(secret, f"[redacted:{values[secret]}]")
        return SHAPES.sub("[redacted]", value)

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, dict):
            return {text(str(key)): clean(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [clean(entry) for entry in value]
        return value

    return clean
