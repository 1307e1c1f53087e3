"""Rows without secrets: no known token shape, no value of a secret-looking variable, nothing that its flag holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sotad.redact import redactor

_HELD = re.compile(
    r"\b(?P<scheme>bearer|basic)(?P<gap>\s+)[\w.~+/=-]{8,}"
    r"|(?P<flag>--(?:[a-z]+[-_])*(?:api[-_]?key|token|password|passwd|secret)(?:=|\s+)['\"]?)(?!\[redacted)[^\s'\"$]{8,}"
    r"|(?P<name>\b[a-z0-9_]*(?:token|secret|password|passwd|api_?key)=['\"]?)(?!\[redacted)[^\s'\"$]{8,}",
    re.IGNORECASE,
)


def scrubber(environment: Mapping[str, str]) -> Callable[[Any], Any]:
    """A function that returns a JSON value without secrets; all else in it stays as it is."""
    redact = redactor(environment)

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return _HELD.sub(_keep_name, value)
        if isinstance(value, dict):
            return {key: clean(entry) for key, entry in value.items()}
        return [clean(entry) for entry in value] if isinstance(value, list) else value

    return lambda value: clean(redact(value))


def _keep_name(found: re.Match[str]) -> str:
    scheme, gap, flag, name = found.group("scheme", "gap", "flag", "name")
    return f"{scheme}{gap}[redacted]" if scheme else f"{flag or name}[redacted]"
