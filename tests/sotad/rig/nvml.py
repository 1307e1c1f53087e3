"""Stand-in for NVML's Python module, behind the names of `nvidia-ml-py`; a test holds them against the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any


class StandInNvml:
    """A stand-in for the module pynvml: one card that has no ECC and no clock settings.

    ``processes`` are (pid, bytes) of those that compute; ``used`` are the bytes in use.
    """

    class NVMLError(Exception):
        """As pynvml's own."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2
    NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 0, 1
    NVML_VOLATILE_ECC = 0
    NVML_DEVICE_MIG_ENABLE = 1
    nvmlMemory_v2 = 0x02000028

    def __init__(
        self,
        starts: bool = True,
        processes: Sequence[tuple[int, int | None]] = ((9, 2 * 2**30), (5, None)),
        used: int = 3 * 2**30,
    ) -> None:
        self.starts, self.processes, self.used = starts, processes, used
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.starts:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.1"

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"handle-{index}"

    def nvmlDeviceGetUUID(self, device: str) -> str:
        return f"GPU-{device}"

    def nvmlDeviceGetName(self, device: str) -> str:
        return "Fake Card"

    def nvmlDeviceGetMemoryInfo(self, device: str, version: int | None = None) -> Any:
        if version:
            raise self.NVMLError("Function Not Found")
        return SimpleNamespace(total=80 * 2**30, used=self.used)

    def nvmlDeviceGetUtilizationRates(self, device: str) -> Any:
        return SimpleNamespace(gpu=0, memory=0)

    def nvmlDeviceGetTemperature(self, device: str, sensor: int) -> int:
        return 33

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:
        return 70_500

    def nvmlDeviceGetEnforcedPowerLimit(self, device: str) -> int:
        return 300_000

    def nvmlDeviceGetClockInfo(self, device: str, kind: int) -> int:
        return {1: 1410, 2: 2619}[kind]

    def nvmlDeviceGetApplicationsClock(self, device: str, kind: int) -> int:
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: str) -> int:
        return 0x1 | 0x4 | 0x40

    def nvmlDeviceGetFieldValues(self, device: str, fields: list[int]) -> list[Any]:
        known = {74: 5_000_000, 269: 0}
        return [
            SimpleNamespace(nvmlReturn=0 if field in known else 3, value=SimpleNamespace(ullVal=known.get(field, 0)))
            for field in fields
        ]

    def nvmlDeviceGetTotalEccErrors(self, device: str, kind: int, counter: int) -> int:
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetMigMode(self, device: str) -> list[int]:
        return [1, 1]

    def nvmlDeviceGetComputeRunningProcesses(self, device: str) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.processes]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: str) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.processes[:1]]

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid == 5:
            raise self.NVMLError("Not Found")
        return "server"
