"""Canonical bytes and the hash chain.

A row's canonical bytes are the compact JSON array ``[previous_hash,[seq,campaign,campaign_seq,time_ns,epoch,
type,version,actor,cause,key]]`` directly followed by the payload's canonical JSON; its hash is their SHA-256
in hex. An array ends where its bracket closes, so no two rows share canonical bytes.
"""

from __future__ import annotations

import math
import re
from hashlib import sha256
from typing import Any

from orjson import OPT_PASSTHROUGH_DATACLASS, OPT_PASSTHROUGH_DATETIME, OPT_SORT_KEYS, dumps, loads

from ledger.errors import InvalidEvent

GENESIS = "0" * 64
"""The hash before the first row."""

MAX_PAYLOAD = 1 << 20
"""Bytes of one payload; more belongs into an artifact."""

Row = tuple[Any, ...]
"""The twelve columns in table order; the payload as bytes."""

_CANONICAL = OPT_SORT_KEYS | OPT_PASSTHROUGH_DATETIME | OPT_PASSTHROUGH_DATACLASS
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def row_hash(previous: str, head: Row, payload: bytes) -> str:
    """Hash one row: ``head`` is its first ten columns.

    Raises:
        TypeError: a column holds something that no ledger ever wrote.
    """
    return sha256(dumps((previous, head)) + payload).hexdigest()


def canonical(payload: Any) -> tuple[bytes, dict[str, Any]]:
    """Encode a payload once; return the bytes to store and what reading them back will give.

    Raises:
        InvalidEvent: not a JSON object, not exactly representable, or too large.
    """
    if not isinstance(payload, dict):
        raise InvalidEvent(f"payload: must be a JSON object, not {type(payload).__name__}")
    try:
        data = dumps(payload, option=_CANONICAL)
    except TypeError as error:
        raise InvalidEvent(f"payload: {error}; store plain JSON values only") from None
    if len(data) > MAX_PAYLOAD:
        raise InvalidEvent(f"payload: {len(data)} bytes, the limit is {MAX_PAYLOAD}; store it as an artifact")
    decoded: dict[str, Any] = loads(data)
    if b"null" in data and decoded != payload:
        _refuse_non_finite(payload, "payload")
    return data, decoded


def plain_text(name: str, value: str) -> str:
    """Return ``value`` if it can stand in a column: valid Unicode without control characters.

    Raises:
        InvalidEvent: it cannot.
    """
    if not isinstance(value, str):
        raise InvalidEvent(f"{name}: must be text, not {value!r}")
    if _CONTROL.search(value):
        raise InvalidEvent(f"{name}: control characters are not allowed in {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(f"{name}: {value!r} is not valid Unicode") from None
    return value


def _refuse_non_finite(value: Any, where: str) -> None:
    """JSON has no NaN, and the encoder would quietly write null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidEvent(f"{where}: {value} is not a JSON number; leave it out or say why it is missing")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")
