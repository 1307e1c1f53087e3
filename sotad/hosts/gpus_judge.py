"""Were the GPUs ours alone, and the same, while something was measured? Pure: readings in, reasons in words out.

A power cap alone is no disturbance: a GPU under full load runs into its own limit on every framework alike (an H200
does in prefill). Being held down by heat or by the power supply, or a limit that somebody changed, is one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sotad.hosts.gpus_reading import Gpu, Reading

THROTTLES = ("hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may differ before a sample is thrown out.

    ``memory_mib``: by how much memory that is not ours may exceed its level before; ``unseen_memory_pct``: the same
    as a share of the GPU's memory, where the driver does not show whose it is. ``foreign_mib``: a foreign process with
    less is let be (a display server). ``idle_memory_mib``, ``utilization_pct``: what an idle GPU may show.
    ``busy_pct``: from which load on clocks are compared. ``throttled_ms``: how long they may have been held down.
    ``sm_clock_drop_pct``, ``memory_clock_drop_pct``: how far a clock may lie below its highest (an H200 under load read
    3199 MHz once between readings of 3201). ``power_cap``: whether that is throttling.
    """

    memory_mib: int = 500
    unseen_memory_pct: float = 5.0
    foreign_mib: int = 64
    idle_memory_mib: int = 2048
    utilization_pct: int = 10
    busy_pct: int = 50
    throttled_ms: int = 50
    sm_clock_drop_pct: float = 30.0
    memory_clock_drop_pct: float = 1.0
    power_cap: bool = False

    @property
    def throttles(self) -> tuple[str, ...]:
        """The reasons that count."""
        return (*THROTTLES, "sw_power_cap") if self.power_cap else THROTTLES


_SETTINGS = {
    "power_limit_w": "power limit (W)",
    "application_sm_clock_mhz": "SM clock setting (MHz)",
    "mig": "MIG mode",
}


def occupied(now: Reading, ours: Collection[int] = (), limits: Limits = Limits()) -> list[str]:
    """Why a launch on these GPUs would not be alone; empty when they are idle.

    Memory and load without a process are looked at too: a container does not see the processes of its neighbours.
    """
    found = [f"GPU {index} is missing" for index in now.missing]
    for gpu in now.gpus:
        found += _foreign(gpu, ours, limits, "")
        hidden = _not_ours(gpu, [process.pid for process in gpu.processes]) or 0
        if hidden > limits.idle_memory_mib:
            found.append(f"GPU {gpu.index} has {hidden} MiB in use by a process that is not visible here")
        if not gpu.processes and (gpu.utilization_pct or 0) > limits.utilization_pct:
            found.append(f"GPU {gpu.index} is busy ({gpu.utilization_pct}%) with a process that is not visible here")
    return found


def disturbances(
    before: Reading,
    during: Sequence[Reading],
    after: Reading,
    ours: Collection[int],
    limits: Limits = Limits(),
) -> list[str]:
    """Why what was measured between ``before`` and ``after`` does not count; empty when nothing disturbed it.

    ``ours`` are the pids that the measurement started, as the driver numbers them. Each reason is given once.
    """
    readings = [before, *during, after]
    ever = {gpu.uuid: gpu for reading in readings for gpu in reading.gpus}
    found = [reason for reading, when in _named(readings) for reason in _absent(ever.values(), reading, when)]
    for gpu in ever.values():
        seen = [(same, when) for reading, when in _named(readings) if (same := _same(gpu, reading))]
        found += [reason for same, when in seen for reason in _foreign(same, ours, limits, when)]
        history = [same for same, _ in seen]
        found += [*_memory(history, ours, limits), *_throttled(history, limits), *_errors(history)]
        found += [*_settings(history), *_clocks(history, limits)]
    return list(dict.fromkeys(found))


def _named(readings: Sequence[Reading]) -> Iterator[tuple[Reading, str]]:
    """Each reading with its place in time."""
    last = len(readings) - 1
    for number, reading in enumerate(readings):
        yield reading, " before" if number == 0 else " after" if number == last else " during"


def _same(gpu: Gpu, reading: Reading) -> Gpu | None:
    return next((other for other in reading.gpus if other.uuid == gpu.uuid), None)


def _absent(ever: Collection[Gpu], reading: Reading, when: str) -> Iterator[str]:
    """GPUs that another reading shows and this one does not, and those that none shows."""
    here = {gpu.uuid for gpu in reading.gpus}
    why = f": {reading.problem}" if reading.problem else ""
    for gpu in ever:
        if gpu.uuid not in here:
            yield f"GPU {gpu.index} ({gpu.uuid}) is missing{when}{why}"
    for index in sorted(set(reading.missing) - {gpu.index for gpu in ever}):
        yield f"GPU {index} is missing{when}{why}"


def _foreign(gpu: Gpu, ours: Collection[int], limits: Limits, when: str) -> Iterator[str]:
    for process in gpu.processes:
        heavy = process.memory_mib is None or process.memory_mib >= limits.foreign_mib
        if process.pid not in ours and heavy:
            memory = "" if process.memory_mib is None else f", {process.memory_mib} MiB"
            yield f"GPU {gpu.index} has a foreign process{when}: pid {process.pid} {process.name}{memory}".rstrip()


def _memory(history: Sequence[Gpu], ours: Collection[int], limits: Limits) -> Iterator[str]:
    """Growth of what is not ours: our own server takes more as it first meets a load."""
    first, last = history[0], history[-1]
    before, after = _not_ours(first, ours), _not_ours(last, ours)
    if before is not None and after is not None and after - before > _allowed(last, ours, limits):
        levels = f"{before} MiB before, {after} MiB after"
        yield f"GPU {first.index}: memory of others is not back to its level: {levels}"


def _not_ours(gpu: Gpu, ours: Collection[int]) -> int | None:
    """MiB in use that our processes do not account for; None when nobody says how much these hold."""
    held = [process.memory_mib for process in gpu.processes if process.pid in ours]
    if gpu.memory_used_mib is None or None in held:
        return None
    return gpu.memory_used_mib - sum(mib for mib in held if mib is not None)


def _allowed(gpu: Gpu, ours: Collection[int], limits: Limits) -> float:
    if any(process.pid in ours for process in gpu.processes):
        return limits.memory_mib
    return max(limits.memory_mib, limits.unseen_memory_pct / 100 * (gpu.memory_total_mib or 0))


def _throttled(history: Sequence[Gpu], limits: Limits) -> Iterator[str]:
    """By the driver's counters where it keeps them, which miss nothing; else by what the readings happened to see."""
    first, last = history[0], history[-1]
    for reason in limits.throttles:
        words = f"GPU {first.index} was held down ({reason.replace('_', ' ')})"
        if reason in first.throttled_us and reason in last.throttled_us:
            held_ms = (last.throttled_us[reason] - first.throttled_us[reason]) / 1000
            if held_ms > limits.throttled_ms:
                yield f"{words} for {held_ms:.0f} ms"
        elif seen := sum(reason in gpu.throttles for gpu in history):
            yield f"{words} in {seen} of {len(history)} readings"


def _errors(history: Sequence[Gpu]) -> Iterator[str]:
    first, last = history[0], history[-1]
    pairs = {
        "corrected": (first.ecc_corrected, last.ecc_corrected),
        "uncorrected": (first.ecc_uncorrected, last.ecc_uncorrected),
    }
    for kind, (earlier, later) in pairs.items():
        if earlier is not None and later is not None and later > earlier:
            yield f"GPU {first.index}: {kind} ECC errors grew from {earlier} to {later}"


def _settings(history: Sequence[Gpu]) -> Iterator[str]:
    """What stays as it is unless a person changes it."""
    for attribute, words in _SETTINGS.items():
        values = list(dict.fromkeys(getattr(gpu, attribute) for gpu in history))
        known = [value for value in values if value is not None]
        if len(known) > 1:
            yield f"GPU {history[0].index}: {words} changed from {known[0]} to {known[1]}"


def _clocks(history: Sequence[Gpu], limits: Limits) -> Iterator[str]:
    """Clocks of busy readings only: an idle GPU lowers them by itself."""
    busy = [gpu for gpu in history if (gpu.utilization_pct or 0) >= limits.busy_pct]
    pairs = (
        ("memory", [gpu.memory_clock_mhz for gpu in busy], limits.memory_clock_drop_pct),
        ("SM", [gpu.sm_clock_mhz for gpu in busy], limits.sm_clock_drop_pct),
    )
    for clock, readings, drop_pct in pairs:
        known = [mhz for mhz in readings if mhz is not None]
        if known and min(known) < max(known) * (1 - drop_pct / 100):
            yield f"GPU {busy[0].index}: {clock} clock changed under load, {min(known)} to {max(known)} MHz"
