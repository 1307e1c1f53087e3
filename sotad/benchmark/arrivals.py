"""When requests are due. Pure: the same seed gives the same moments."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from sotad.benchmark.randomness import numbers, uniforms

Arrival = Literal["closed", "poisson", "gamma", "constant", "trace"]


def arrivals(
    count: int, rate: float | None, seed: int, arrival: Arrival | None = None, burstiness: float = 1.0
) -> list[float]:
    """When each request is due, in seconds after the start; the first always at 0.0.

    closed: all at once, so that only the concurrency holds them back. constant: evenly, `rate` per second.
    poisson: exponential gaps. gamma: gaps of the same mean with shape `burstiness`: 1 is poisson, less comes
    in bursts, more is more even. Without `arrival`: closed without a rate, poisson with one.

    Raises:
        ValueError: a paced arrival without a rate, or trace, whose moments come with its rows.
    """
    kind = arrival or ("closed" if rate is None else "poisson")
    if kind == "closed":
        return [0.0] * count
    if rate is None or kind == "trace":
        raise ValueError(f"arrival {kind} {'takes its moments from a trace' if kind == 'trace' else 'needs a rate'}")
    if kind == "constant":
        return [index / rate for index in range(count)]
    gaps = _exponential(count, seed) if kind == "poisson" else _gamma(seed, burstiness)
    return _sums(gaps, count, 1 / rate)


def replayed(moments: Sequence[float], time_scale: float) -> list[float]:
    """The moments of a trace from its first on, its gaps multiplied by `time_scale` (0.5: twice as fast)."""
    return [(moment - moments[0]) * time_scale for moment in moments]


def _sums(gaps: Iterator[float], count: int, mean_s: float) -> list[float]:
    due, clock = [], 0.0
    for _ in range(count):
        due.append(clock)
        clock += next(gaps) * mean_s
    return due


def _exponential(count: int, seed: int) -> Iterator[float]:
    return (-math.log((number + 1) / 2**32) for number in numbers(f"arrivals/{seed}", count))


def _gamma(seed: int, shape: float) -> Iterator[float]:
    """Gaps of mean 1 (Marsaglia and Tsang 2000, with their boost for shapes below 1)."""
    source = uniforms(f"arrivals/gamma/{seed}")
    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    while True:
        x = math.sqrt(-2 * math.log(next(source))) * math.cos(2 * math.pi * next(source))
        v = (1 + x / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(next(source)) < 0.5 * x * x + d * (1 - v + math.log(v)):
            boost = 1.0 if shape >= 1 else next(source) ** (1 / shape)
            yield d * v * boost / shape
