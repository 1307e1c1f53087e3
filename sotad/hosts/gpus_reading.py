"""What one look at a host's GPUs shows: plain data, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

THROTTLES = (
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
)
"""Why a driver may hold clocks down; being idle and clocks set by a person are left out: they are not throttling."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a GPU. ``pid`` is the driver's, ``memory_mib`` null where it does not say."""

    pid: int
    name: str = ""
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU at one moment. What the driver does not report is null: never zero.

    Memory in MiB, power in W, clocks in MHz, temperature in degrees Celsius. ``throttles`` are active now;
    ``throttled_us`` counts microseconds since the driver was loaded. ECC errors are counted since then too.
    """

    index: int
    uuid: str
    name: str
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    utilization_pct: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    application_sm_clock_mhz: int | None = None
    throttles: tuple[str, ...] = ()
    throttled_us: Mapping[str, int] = field(default_factory=dict)
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    mig: bool | None = None
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The GPUs asked for at ``time_ns`` (UTC), and the indices of those that are ``missing``.

    ``source`` is nvml, nvidia-smi or none; ``problem`` says why it is not a better one. ``cpu`` counts seconds of all
    the host's cores since it booted: ``busy_s`` of work, ``stolen_s`` that a hypervisor gave to others (if it says so).
    """

    time_ns: int
    source: str
    driver: str = ""
    problem: str = ""
    gpus: tuple[Gpu, ...] = ()
    missing: tuple[int, ...] = ()
    cpu: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The reading as plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """The reading that ``to_json`` gave.

        Raises:
            ValueError: it is none.
        """
        try:
            gpus = tuple(_gpu(gpu) for gpu in data["gpus"])
            return cls(**{**data, "gpus": gpus, "missing": tuple(data["missing"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a GPU reading: {error}; make one with `python -m sotad.hosts.gpus`") from None


def _gpu(data: Mapping[str, Any]) -> Gpu:
    processes = tuple(Process(**process) for process in data["processes"])
    return Gpu(**{**data, "throttles": tuple(data["throttles"]), "processes": processes})
