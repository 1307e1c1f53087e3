"""When candidates that are still to be tried need not be: their framework, or a value of theirs, has failed enough.

A result is ``{"candidate": id, "flags": {...}, "status": ..., "reason": ...}`` in the order of the search, the
baseline first; its status is ``ok``, ``failed``, ``oom``, ``timeout`` or ``skipped``. A candidate that ran but missed
the SLA is ``ok`` here: the server was healthy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Result: TypeAlias = Mapping[str, Any]
BAD = ("failed", "oom", "timeout")
_CHANGING = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?", re.IGNORECASE)


def to_skip(results: Sequence[Result], waiting: Sequence[Result], max_in_a_row: int = 3) -> list[dict[str, str]]:
    """The waiting candidates (``candidate`` and ``flags`` of each) to skip, each with the reason in words.

    Raises:
        ValueError: ``max_in_a_row`` is below 1.
    """
    if max_in_a_row < 1:
        raise ValueError(f"max_in_a_row must be at least 1, not {max_in_a_row}")
    tried = [result for result in results if result["status"] != "skipped"]
    if why := hopeless(tried, max_in_a_row):
        return [{"candidate": found["candidate"], "reason": why} for found in waiting]
    pruned = pruned_values(tried, max_in_a_row)
    reasons = ((found["candidate"], _first_reason(found["flags"], pruned)) for found in waiting)
    return [{"candidate": name, "reason": why} for name, why in reasons if why]


def hopeless(tried: Sequence[Result], enough: int = 3) -> str:
    """Why a framework is given up: its baseline and all others failed, ``enough`` of them; empty when it is not."""
    if len(tried) < enough or any(result["status"] not in BAD for result in tried):
        return ""
    statuses = ", ".join(f"{result['candidate']}: {result['status']}" for result in tried)
    return f"none of {len(tried)} candidates became a healthy server, the baseline included ({statuses})"


def pruned_values(tried: Sequence[Result], in_a_row: int = 3) -> dict[tuple[str, str], str]:
    """Values (flag, value as JSON) that identical failures in a row share and no candidate ran with, and why."""
    healthy = {item for result in tried if result["status"] not in BAD for item in _items(result["flags"])}
    pruned: dict[tuple[str, str], str] = {}
    for end in range(in_a_row, len(tried) + 1):
        run = tried[end - in_a_row : end]
        if any(result["status"] not in BAD for result in run) or len(set(map(_kind, run))) > 1:
            continue
        shared = set.intersection(*(_items(result["flags"]) for result in run)) - healthy
        names = ", ".join(result["candidate"] for result in run)
        for flag, value in sorted(shared):
            why = f"{flag} = {value} failed {in_a_row} times in a row in the same way ({names}): {run[-1]['reason']}"
            pruned.setdefault((flag, value), why)
    return pruned


def _first_reason(flags: Mapping[str, Any], pruned: Mapping[tuple[str, str], str]) -> str:
    return next((pruned[item] for item in sorted(_items(flags)) if item in pruned), "")


def _items(flags: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(flag, json.dumps(value, sort_keys=True)) for flag, value in flags.items()}


def _kind(result: Result) -> tuple[str, str]:
    """What makes two failures identical: status and reason, without the numbers in it (sizes, ports, addresses)."""
    return result["status"], _CHANGING.sub("#", result["reason"])
