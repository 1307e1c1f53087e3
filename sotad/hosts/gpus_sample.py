"""The GPUs over one sample: its readings cut to its time, and what they come to in a few figures. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

from sotad.hosts.gpus_reading import Gpu, Reading

JSON = dict[str, Any]


def until(readings: Sequence[Reading], ended_ns: int | None) -> list[Reading]:
    """The readings up to the first one after the end of what was measured: what comes later disturbs nothing.

    A watcher goes on while no daemon runs, and that may be hours after the sample.
    """
    found: list[Reading] = []
    for reading in readings:
        found.append(reading)
        if ended_ns is not None and reading.time_ns >= ended_ns:
            break
    return found


def summary(readings: Sequence[Reading], ours: Collection[int]) -> list[JSON]:
    """A few figures for each GPU: memory before, most and after in MiB, load in percent, W, MHz, degrees Celsius.

    ``throttled_ms`` is by the driver's counters, ``throttles`` what the readings saw; ECC errors are those that came
    up meanwhile; ``used`` says whether a process of ours was seen on it, null where the driver shows none at all.
    """
    uuids = dict.fromkeys(gpu.uuid for reading in readings for gpu in reading.gpus)
    histories = [[gpu for reading in readings for gpu in reading.gpus if gpu.uuid == uuid] for uuid in uuids]
    return [_figures(history, ours) for history in histories]


def host_cpu(readings: Sequence[Reading]) -> JSON:
    """How many of the host's cores were busy, and how many were stolen, on the mean from first to last reading."""
    if len(readings) < 2:
        return {}
    first, last = readings[0], readings[-1]
    seconds = (last.time_ns - first.time_ns) / 1e9
    counted = {"busy_cores": "busy_s", "stolen_cores": "stolen_s"}.items()
    return {
        name: round((last.cpu[counter] - first.cpu[counter]) / seconds, 2)
        for name, counter in counted
        if counter in first.cpu and counter in last.cpu
    }


def _figures(history: Sequence[Gpu], ours: Collection[int]) -> JSON:
    first, last = history[0], history[-1]
    pids = {process.pid for gpu in history for process in gpu.processes}
    return {
        "index": first.index,
        "uuid": first.uuid,
        "memory_mib": [first.memory_used_mib, _most(gpu.memory_used_mib for gpu in history), last.memory_used_mib],
        "utilization_pct": _mean([gpu.utilization_pct for gpu in history]),
        "power_w": _mean([gpu.power_w for gpu in history]),
        "power_w_most": _most(gpu.power_w for gpu in history),
        "temperature_c_most": _most(gpu.temperature_c for gpu in history),
        "sm_clock_mhz": _range([gpu.sm_clock_mhz for gpu in history]),
        "memory_clock_mhz": _range([gpu.memory_clock_mhz for gpu in history]),
        "throttles": sorted({reason for gpu in history for reason in gpu.throttles}),
        "throttled_ms": _throttled(first, last),
        "ecc_corrected": _grown(first.ecc_corrected, last.ecc_corrected),
        "ecc_uncorrected": _grown(first.ecc_uncorrected, last.ecc_uncorrected),
        "used": bool(pids & set(ours)) if pids else None,
        "foreign_pids": sorted(pids - set(ours)),
    }


def _known(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _most(values: Iterator[Any]) -> Any:
    return max(_known(list(values)), default=None)


def _mean(values: Sequence[Any]) -> float | None:
    known = _known(values)
    return round(sum(known) / len(known), 1) if known else None


def _range(values: Sequence[Any]) -> list[int] | None:
    known = _known(values)
    return [min(known), max(known)] if known else None


def _throttled(first: Gpu, last: Gpu) -> dict[str, float]:
    """Only the reasons that held clocks down at all, a power cap included."""
    held = {
        reason: (last.throttled_us[reason] - before) / 1000
        for reason, before in first.throttled_us.items()
        if reason in last.throttled_us
    }
    return {reason: round(ms, 1) for reason, ms in held.items() if ms > 0}


def _grown(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def longest_gap_s(readings: Sequence[Reading]) -> float:
    """The longest time that nobody looked, in seconds: a watcher that stood still saw nothing."""
    times = [reading.time_ns for reading in readings]
    return max(((later - earlier) / 1e9 for earlier, later in pairwise(times)), default=0.0)
