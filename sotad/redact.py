"""Taking secrets out of what is kept: known token shapes, and the values of secret-looking variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abp]-[A-Za-z0-9-]{10,}"
    r"|AKIA[0-9A-Z]{16})\b"
)
NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)
SHORTEST = 8  # shorter values occur in text by chance


def redactor(environment: Mapping[str, str]) -> Callable[[Any], Any]:
    """A function that returns a JSON value with every secret replaced by its name, and nothing else changed."""
    values = {value: name for name, value in environment.items() if NAMES.search(name) and len(value) >= SHORTEST}
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
