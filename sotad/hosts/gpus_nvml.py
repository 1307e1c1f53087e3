"""GPUs as NVML tells of them, through nvidia-ml-py (module ``pynvml``), which is optional and imported late."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sotad.hosts.gpus_reading import Gpu, Process

MIB = 2**20
T = TypeVar("T")

_REASONS = {  # nvmlClocksEventReasons
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
_COUNTERS = {  # NVML_FI_DEV_CLOCKS_EVENT_REASON_*: nanoseconds
    "sw_power_cap": 74,
    "sync_boost": 76,
    "sw_thermal_slowdown": 269,
    "hw_thermal_slowdown": 270,
    "hw_power_brake_slowdown": 271,
}


class NvmlError(Exception):
    """NVML cannot be asked here; the text says why."""


class Nvml:
    """NVML, initialised until it is closed; each `gpus()` is a fresh look. ``module`` stands in for pynvml.

    Raises:
        NvmlError: no module, no driver, or no permission.
    """

    def __init__(self, module: Any = None) -> None:
        try:
            self._nvml: Any = module or importlib.import_module("pynvml")
            self._nvml.nvmlInit()
        except ImportError:
            raise NvmlError("nvidia-ml-py is not installed (extra: gpu)") from None
        except self._nvml.NVMLError as error:
            raise NvmlError(f"NVML does not start: {error}") from None

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.nvmlShutdown()

    @property
    def driver(self) -> str:
        return str(self._ask(self._nvml.nvmlSystemGetDriverVersion) or "")

    def gpus(self) -> tuple[Gpu, ...]:
        """Every GPU that NVML sees; CUDA_VISIBLE_DEVICES means nothing to it.

        Raises:
            NvmlError: a GPU that was there does not answer at all.
        """
        try:
            return tuple(self._gpu(index) for index in range(self._nvml.nvmlDeviceGetCount()))
        except self._nvml.NVMLError as error:
            raise NvmlError(f"NVML does not answer: {error}") from None

    def _ask(self, call: Callable[..., T], *arguments: Any) -> T | None:
        """The answer, or none where this driver, card or MIG mode has none to give."""
        try:
            return call(*arguments)
        except self._nvml.NVMLError:
            return None

    def _gpu(self, index: int) -> Gpu:
        n = self._nvml
        device = n.nvmlDeviceGetHandleByIndex(index)
        memory = self._memory(device)
        load = self._ask(n.nvmlDeviceGetUtilizationRates, device)
        mig = self._ask(n.nvmlDeviceGetMigMode, device)
        return Gpu(
            index=index,
            uuid=n.nvmlDeviceGetUUID(device),
            name=n.nvmlDeviceGetName(device),
            memory_total_mib=memory and memory.total // MIB,
            memory_used_mib=memory and memory.used // MIB,
            utilization_pct=load and load.gpu,
            temperature_c=self._ask(n.nvmlDeviceGetTemperature, device, n.NVML_TEMPERATURE_GPU),
            power_w=_watts(self._ask(n.nvmlDeviceGetPowerUsage, device)),
            power_limit_w=_watts(self._ask(n.nvmlDeviceGetEnforcedPowerLimit, device)),
            sm_clock_mhz=self._ask(n.nvmlDeviceGetClockInfo, device, n.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask(n.nvmlDeviceGetClockInfo, device, n.NVML_CLOCK_MEM),
            application_sm_clock_mhz=self._ask(n.nvmlDeviceGetApplicationsClock, device, n.NVML_CLOCK_GRAPHICS),
            throttles=self._throttles(device),
            throttled_us=self._throttled(device),
            ecc_corrected=self._ecc(device, n.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._ecc(device, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            mig=None if mig is None else mig[0] == n.NVML_DEVICE_MIG_ENABLE,
            processes=tuple(self._processes(device)),
        )

    def _memory(self, device: Any) -> Any:
        """Version 2 counts what the driver keeps for itself apart, as nvidia-smi does; old drivers lack it."""
        n = self._nvml
        return self._ask(n.nvmlDeviceGetMemoryInfo, device, n.nvmlMemory_v2) or self._ask(
            n.nvmlDeviceGetMemoryInfo, device
        )

    def _throttles(self, device: Any) -> tuple[str, ...]:
        bits = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons, device) or 0
        return tuple(name for name, bit in _REASONS.items() if bits & bit)

    def _throttled(self, device: Any) -> dict[str, int]:
        values = self._ask(self._nvml.nvmlDeviceGetFieldValues, device, list(_COUNTERS.values()))
        paired = zip(_COUNTERS, values or (), strict=False)
        return {name: value.value.ullVal // 1000 for name, value in paired if value.nvmlReturn == 0}

    def _ecc(self, device: Any, kind: int) -> int | None:
        return self._ask(self._nvml.nvmlDeviceGetTotalEccErrors, device, kind, self._nvml.NVML_VOLATILE_ECC)

    def _processes(self, device: Any) -> Iterator[Process]:
        """Compute and graphics processes, each once: a process can be both."""
        n = self._nvml
        calls = (n.nvmlDeviceGetComputeRunningProcesses, n.nvmlDeviceGetGraphicsRunningProcesses)
        found = {process.pid: process for call in calls for process in self._ask(call, device) or ()}
        for pid, process in sorted(found.items()):
            name = self._ask(n.nvmlSystemGetProcessName, pid) or ""
            used = process.usedGpuMemory
            yield Process(pid, name, None if used is None else used // MIB)


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
