"""The rows that no other row beats: more throughput, lower TTFT, lower TPOT. Pure.

A point is dominated when another is at least as good in every figure and better in one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Point = tuple[float, ...]


def point(row: Mapping[str, Any], by: str, per_gpu: bool) -> Point | None:
    """(throughput, -TTFT, -TPOT), larger is better; None when one of them is unknown, or the GPUs when needed."""
    m = row["metrics"]
    throughput = normalised(row, by) if per_gpu else m[by]
    values = (throughput, _negative(m["p50_ttft_ms"]), _negative(m["p50_tpot_ms"]))
    return values if all(value is not None and math.isfinite(value) for value in values) else None  # type: ignore[return-value]


def normalised(row: Mapping[str, Any], name: str) -> float | None:
    """A rate per GPU; None without a rate or GPUs."""
    value, gpus = row["metrics"][name], row["hardware"]["gpu_count"]
    return value / gpus if value is not None and gpus else None


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def front(points: Sequence[Point | None]) -> list[int]:
    """The places of the points that none of the others dominates; None is never among them."""
    known = [(each, place) for place, each in enumerate(points) if each is not None]
    kept: list[tuple[Point, int]] = []
    for each, place in sorted(known, reverse=True):  # whoever dominates comes before
        if not any(dominates(other, each) for other, _ in kept):
            kept.append((each, place))
    return sorted(place for _, place in kept)


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
