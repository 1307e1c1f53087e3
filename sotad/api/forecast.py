"""A forecast in words, for terminals and the dashboard. Loads nothing: `sotactl status` shows it."""

from __future__ import annotations

import time
from typing import Any

JSON = dict[str, Any]


def duration(seconds: float) -> str:
    """A length of time in the unit that fits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def between(low: str, high: str) -> str:
    """A range, or one value."""
    return low if low == high else f"{low} to {high}"


def left(expected: JSON) -> str:
    """What is left and when it ends; empty when nothing is foreseen."""
    if not expected["parts"]:
        return ""
    said = between(*map(duration, expected["left_s"]))
    if expected["end_ns"]:
        said += f", until {between(*map(_clock, expected['end_ns']))}"
    return said


def gpu_hours(expected: JSON) -> str:
    """GPU hours spent and to come; empty without GPUs."""
    if not expected["gpus"]:
        return ""
    hours = expected["gpu_hours"]
    said = [f"{_hours(hours['spent'])} GPU hours spent"] if hours["spent"] else []
    said += [f"{between(*map(_hours, hours['left']))} GPU hours to come"] if expected["parts"] else []
    return ", ".join(said)


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 0.1 else f"{hours:.3f}"


def one_line(expected: JSON) -> str:
    """Done, left, end, GPU hours."""
    done = expected["done"]
    said = [f"{done['launches']} launches and {done['runs']} runs done"]
    said += [f"{text} left" for text in [between(*map(duration, expected["left_s"]))] if expected["parts"]]
    said += [f"until {between(*map(_clock, expected['end_ns']))}"] if expected["parts"] and expected["end_ns"] else []
    return ", ".join([*said, *filter(None, [gpu_hours(expected)])])


def in_full(expected: JSON) -> list[str]:
    """A line per part, the sum, and what is assumed."""
    lines = [
        f"  {part['part']}: {between(*map(str, part['launches']))} launches, {between(*map(str, part['runs']))} runs, "
        f"{between(*map(duration, part['seconds']))}"
        for part in expected["parts"]
    ]
    lines.append(together(expected))
    if expected["left_s"][1] > expected["budget_s"]:
        sure = "before that" if expected["left_s"][0] > expected["budget_s"] else "before that, at worst"
        lines += [f"  budget.wall_clock_s ends it {sure}: {duration(max(0.0, expected['budget_s']))} are left of it"]
    return lines + [f"  assumed: {text}" for text in expected["assumed"]]


def together(expected: JSON) -> str:
    """The sum of all parts in one line."""
    total, hours = f"  together {between(*map(duration, expected['left_s']))}", gpu_hours(expected)
    return f"{total} on {expected['gpus']} GPUs; {hours}" if hours else total


def _clock(time_ns: int) -> str:
    return time.strftime("%d %b %H:%MZ", time.gmtime(time_ns // 1_000_000_000))
