"""What a GPU can do at best: from gpus.yaml, or measured on the machine itself."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sotad.simulate.errors import SimulateError

# Latency of a collective at decode sizes, us. Assumed: nobody measured it on the machine in question.
ALL_REDUCE_US = 8.0
ALL_TO_ALL_US = 25.0
SEND_US = 5.0
KINDS = ("bf16", "fp8", "fp4", "int8", "tf32", "vector")


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peaks of one GPU: ``tflops`` by kind of arithmetic, ``bandwidth`` and ``link`` in GB/s, ``memory`` in GB.

    ``calibrated`` names the peaks that were measured. ``efficiency`` is the share of a peak taken for reachable.
    """

    name: str
    tflops: Mapping[str, float]
    bandwidth: float
    memory: float
    link: float
    source: str
    calibrated: tuple[str, ...] = ()
    efficiency: float = 1.0

    def peak(self, math: str) -> float:
        """FLOP/s of that arithmetic; what the GPU has no units for runs in bf16."""
        found = self.tflops.get(math) or self.tflops["bf16"]
        return found * 1e12 * self.efficiency

    @property
    def memory_rate(self) -> float:
        """Bytes per second from and to its memory."""
        return self.bandwidth * 1e9 * self.efficiency

    @property
    def link_rate(self) -> float:
        """Bytes per second to other GPUs, one direction."""
        return self.link * 1e9

    def as_json(self) -> dict[str, Any]:
        """The peaks, and where they are from."""
        return {
            "name": self.name,
            "tflops": dict(self.tflops),
            "bandwidth_gbs": self.bandwidth,
            "memory_gb": self.memory,
            "link_gbs": self.link,
            "efficiency": self.efficiency,
            "source": self.source,
            "peaks": "calibrated" if self.calibrated else "table",
            "calibrated": list(self.calibrated),
            "assumed": {"all_reduce_us": ALL_REDUCE_US, "all_to_all_us": ALL_TO_ALL_US, "send_us": SEND_US},
        }


@functools.cache
def _stated() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(
        resources.files("sotad.simulate").joinpath("gpus.yaml").read_text()
    )
    return found


def table() -> dict[str, Gpu]:
    """Every GPU of gpus.yaml by name."""
    fields = ("tflops", "bandwidth", "memory", "link", "source")
    return {name: Gpu(name, **{key: facts[key] for key in fields}) for name, facts in _stated().items()}


def gpu(name: str, efficiency: float = 1.0) -> Gpu:
    """The GPU of that name; ``NVIDIA H200``, as drivers say it, is one too.

    Raises:
        SimulateError: it is not in the table, or the efficiency is not above 0 and at most 1.
    """
    if not 0 < efficiency <= 1:
        raise SimulateError(f"efficiency {efficiency}: it must be above 0 and at most 1")
    key = " ".join(name.lower().replace("nvidia", "").replace("amd", "").split())
    names = {alias: known for known, facts in _stated().items() for alias in (known, *facts["aliases"])}
    known = names.get(key) or names.get(key.replace(" ", "-"))
    if known is None:
        raise SimulateError(f"GPU {name!r} is not in the table: use one of {', '.join(table())}")
    return replace(table()[known], efficiency=efficiency)


def calibrate(base: Gpu, path: Path) -> Gpu:
    """The GPU with the peaks measured on the machine: JSON with `tflops` {kind: number}, `bandwidth_gbs`, `link_gbs`.

    Raises:
        SimulateError: the file cannot be read, holds none of these, or a peak above the table's by 5 % or more.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise SimulateError(f"{path}: {error.strerror or error}: give the calibration as JSON") from None
    except ValueError as error:
        raise SimulateError(f"{path}: not JSON ({error}): give the calibration as JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("tflops", {}), dict):
        raise SimulateError(f"{path}: no JSON object with tflops, bandwidth_gbs or link_gbs")
    if found.get("gpu") and gpu(str(found["gpu"])).name != base.name:
        raise SimulateError(f"{path}: measured on {found['gpu']}, not on {base.name}: give --gpu {found['gpu']}")
    return _calibrated(base, found, path)


def _calibrated(base: Gpu, found: Mapping[str, Any], path: Path) -> Gpu:
    named = {"bandwidth": "bandwidth_gbs", "link": "link_gbs"}
    there = {field: key for field, key in named.items() if key in found}
    plain: dict[str, Any] = {field: _peak(path, key, found[key], getattr(base, field)) for field, key in there.items()}
    asked = found.get("tflops", {})
    if odd := sorted(set(asked) - set(KINDS)):
        raise SimulateError(f"{path}: {odd[0]} is no kind of arithmetic: use {', '.join(KINDS)}")
    rates = {kind: _peak(path, kind, value, base.tflops.get(kind)) for kind, value in asked.items()}
    if not plain and not rates:
        raise SimulateError(f"{path}: none of tflops, bandwidth_gbs and link_gbs is in it")
    source = f"{base.source}; measured: {found.get('source') or path.name}"
    return replace(base, **plain, tflops={**base.tflops, **rates}, source=source, calibrated=(*plain, *rates))


def _peak(path: Path, name: str, value: Any, stated: float | None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise SimulateError(f"{path}: {name} is {value!r}, not a positive number")
    if stated is not None and value > 1.05 * stated:
        raise SimulateError(f"{path}: {name} {value:g} is above the GPU's {stated:g}: check its unit")
    return float(value)
