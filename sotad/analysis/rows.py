"""What every table of a trace shares: the ids of its rows, and the medians of what happens per step."""

from __future__ import annotations

import re
from hashlib import sha256

import numpy as np

from sotad.trace.columns import I64

_PLAIN = re.compile(r"[A-Za-z0-9_:.()<>, -]{1,80}")


def row_id(stage: str, annotation: str | None, name: str) -> str:
    """The same for the same row in every trace: `decode/aten::addmm`, `decode/attention/aten::bmm`.

    Names that are long or hold other characters are shortened and marked with a digest of the whole.
    """
    parts = [part for part in (stage, annotation, name) if part is not None]
    if all(_PLAIN.fullmatch(part) for part in parts):
        return "/".join(parts)
    short = "/".join(re.sub(r"[^A-Za-z0-9_:.()<>, -]+", "_", part)[:80] for part in parts)
    return f"{short}~{sha256(repr(parts).encode()).hexdigest()[:8]}"


def spread(values: I64, steps: int) -> tuple[float, float]:
    """Median and median absolute deviation over `steps` steps, of which those without a value count as 0."""
    zeros = steps - len(values)
    median = _median(np.sort(values).astype(np.float64), 0.0, zeros)
    return median, _median(np.sort(np.abs(values - median)), abs(median), zeros)


def _median(values: np.ndarray[tuple[int], np.dtype[np.float64]], other: float, others: int) -> float:
    """The median of sorted values and `others` times another one, without writing those out."""
    count = len(values) + others
    if not count:
        return 0.0
    place = int(np.searchsorted(values, other))

    def at(index: int) -> float:
        if place <= index < place + others:
            return other
        return float(values[index if index < place else index - others])

    return (at((count - 1) // 2) + at(count // 2)) / 2
