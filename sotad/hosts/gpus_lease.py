"""Leased GPUs in readings: which they are, what they held before, and why nothing may be launched on them now. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sotad.hosts.gpus_judge import occupied
from sotad.hosts.gpus_reading import Gpu, Reading
from statemachine.leases import SLACK_MIB

JSON = dict[str, Any]
IDENTITY = ("index", "uuid", "name", "memory_total_mib")


def visible(ids: Sequence[int]) -> dict[str, str]:
    """The variables that show a process these GPUs alone, numbered as the driver does; none for the whole host.

    By index: engines parse the list as numbers. PCI order is NVML's; CUDA's own puts the fastest first.
    """
    if not ids:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, ids))}


def identities(found: Reading) -> list[JSON]:
    """Each GPU as a lease names it; ``level_mib`` is what it holds now, before anything of the campaign."""
    return [{**{key: getattr(gpu, key) for key in IDENTITY}, "level_mib": gpu.memory_used_mib} for gpu in found.gpus]


def leased(found: Reading, gpus: Sequence[JSON]) -> Reading:
    """The reading of leased GPUs alone: after a reset or a reboot an index may mean another card, which is not it."""
    known = {gpu["index"]: gpu["uuid"] for gpu in gpus}
    kept = tuple(gpu for gpu in found.gpus if known.get(gpu.index) == gpu.uuid)
    return replace(found, gpus=kept, missing=tuple(sorted(known.keys() - {gpu.index for gpu in kept})))


def unfit(found: Reading, gpus: Sequence[JSON]) -> list[str]:
    """Why nothing may be launched on the leased GPUs now: who is on them, what they hold, which are not there."""
    now = leased(found, gpus)
    reasons = [_gone(gpu, found) for gpu in gpus if gpu["index"] in now.missing]
    levels = {gpu["uuid"]: gpu["level_mib"] for gpu in gpus}
    for gpu in now.gpus:
        taken = occupied(replace(now, gpus=(gpu,), missing=()))
        reasons += taken or _above(gpu, levels[gpu.uuid])
    return reasons


def _gone(gpu: JSON, found: Reading) -> str:
    other = next((each.uuid for each in found.gpus if each.index == gpu["index"]), "")
    now = f"is {other} now" if other else f"is missing: {found.problem}" if found.problem else "is missing"
    return f"GPU {gpu['index']} ({gpu['uuid']}) {now}"


def _above(gpu: Gpu, level: int | None, others: int = 0) -> list[str]:
    """That a GPU holds more than before the campaign and ``others`` together, in MiB, and who holds it."""
    if level is None or gpu.memory_used_mib is None or gpu.memory_used_mib <= level + others + SLACK_MIB:
        return []
    held = f"GPU {gpu.index} holds {gpu.memory_used_mib} MiB, {level} MiB before the campaign's first launch"
    return [f"{held}: {holders(gpu)}"]


def unreturned(found: Reading, gpus: Sequence[JSON], ours: Collection[int]) -> list[str]:
    """Leased GPUs that hold more than before the campaign, beyond what processes of others account for."""
    levels = {gpu["uuid"]: gpu["level_mib"] for gpu in gpus}
    reasons: list[str] = []
    for gpu in leased(found, gpus).gpus:
        others = sum(process.memory_mib or 0 for process in gpu.processes if process.pid not in ours)
        reasons += _above(gpu, levels[gpu.uuid], others)
    return reasons


def holders(gpu: Gpu) -> str:
    """Who has memory of a GPU, as far as the driver shows."""
    names = [
        f"pid {process.pid} {process.name}".rstrip()
        + ("" if process.memory_mib is None else f" {process.memory_mib} MiB")
        for process in gpu.processes
    ]
    return ", ".join(names) or "no process that is visible here"


def strayed(readings: Sequence[Reading], gpus: Sequence[JSON], ours: Collection[int]) -> list[str]:
    """Our own processes on GPUs that are not leased: what was measured there was not measured where it says."""
    uuids = {gpu["uuid"] for gpu in gpus}
    found = {
        f"GPU {gpu.index} ({gpu.uuid}) is used by our own pid {process.pid} {process.name} and is not leased".strip()
        for reading in readings
        for gpu in reading.gpus
        if gpu.uuid not in uuids
        for process in gpu.processes
        if process.pid in ours
    }
    return sorted(found)
