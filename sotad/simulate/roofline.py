"""The least time that a GPU needs for a step: per operator the larger of computing and moving bytes.

`Roofline.ms` is their sum, as if operators followed one another and each wrote its result to memory. Fusing and
overlapping can save some of that; `Roofline.limit_ms` is what neither can beat.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from sotad.simulate.gpus import ALL_REDUCE_US, ALL_TO_ALL_US, SEND_US, Gpu
from sotad.simulate.ops import Op
from sotad.simulate.step import Part, Pass


@dataclass(frozen=True, slots=True)
class Timed:
    """One operator with its times in microseconds; ``bound`` is compute, memory or comm."""

    op: Op
    compute_us: float
    memory_us: float
    comm_us: float

    @property
    def us(self) -> float:
        """Its roofline time."""
        return max(self.compute_us, self.memory_us, self.comm_us)

    @property
    def bound(self) -> str:
        """What limits it."""
        if self.comm_us:
            return "comm"
        return "compute" if self.compute_us > self.memory_us else "memory"


@dataclass(frozen=True, slots=True)
class Roofline:
    """A step with the times of its operators, part by part."""

    step: Pass
    gpu: Gpu
    parts: tuple[tuple[Part, tuple[Timed, ...]], ...]

    def timed(self) -> Iterator[tuple[Part, Timed]]:
        """Every operator with the part that it belongs to."""
        return ((part, each) for part, ops in self.parts for each in ops)

    @property
    def ms(self) -> float:
        """The step's bound."""
        return sum(part.times * each.us for part, each in self.timed()) / 1e3

    @property
    def flops(self) -> float:
        """FLOPs of one GPU."""
        return sum(op.flops * times for op, times in self.step.ops())

    @property
    def matrix_flops(self) -> float:
        """FLOPs of multiplications and scores alone: what MFU counts."""
        return sum(op.flops * times for op, times in self.step.ops() if op.math not in ("", "vector"))

    @property
    def bytes(self) -> float:
        """Bytes of one GPU's memory traffic."""
        return sum(op.bytes * times for op, times in self.step.ops())

    @property
    def least_bytes(self) -> float:
        """Bytes that no fusion can save: weights, and the cache or state."""
        return sum((op.weight_bytes + op.kv_bytes) * times for op, times in self.step.ops())

    @property
    def limit_ms(self) -> float:
        """The larger of all multiplying and of reading weights and cache once, with no activation going to memory.

        No schedule of this model on these peaks can be faster, whatever it fuses or overlaps.
        """
        return max(self.peak_seconds, self.least_bytes / self.gpu.memory_rate) * 1e3

    @property
    def peak_seconds(self) -> float:
        """Seconds that the multiplications would take at their peaks."""
        ops = ((op, times) for op, times in self.step.ops() if op.math not in ("", "vector"))
        return sum(op.flops * times / self.gpu.peak(op.math) for op, times in ops)

    def shares(self) -> dict[str, float]:
        """Percent of the step's bound by what limits it."""
        return _percent(((each.bound, part.times * each.us) for part, each in self.timed()))

    def categories(self) -> dict[str, float]:
        """Milliseconds of the step's bound by category of operator."""
        found: dict[str, float] = defaultdict(float)
        for part, each in self.timed():
            found[each.op.category] += part.times * each.us / 1e3
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def bound(self) -> str:
        """What limits most of the step."""
        shares = self.shares()
        return max(shares, key=lambda name: shares[name])


def roofline(step: Pass, gpu: Gpu) -> Roofline:
    """The step's operators with their times on that GPU."""
    parts = tuple((part, tuple(_timed(op, gpu) for op in part.ops)) for part in step.parts)
    return Roofline(step, gpu, parts)


def _timed(op: Op, gpu: Gpu) -> Timed:
    compute = op.flops / gpu.peak(op.math or "vector") * 1e6
    comm = op.comm_bytes / gpu.link_rate * 1e6 + _latency(op.name) if op.comm_bytes else 0.0
    return Timed(op, compute, op.bytes / gpu.memory_rate * 1e6, comm)


def _latency(name: str) -> float:
    if name.startswith("all_to_all"):
        return ALL_TO_ALL_US
    return SEND_US if name == "send" else ALL_REDUCE_US


def _percent(found: Iterator[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for name, value in found:
        sums[name] += value
    whole = sum(sums.values()) or 1.0
    return {name: 100 * value / whole for name, value in sums.items()}
