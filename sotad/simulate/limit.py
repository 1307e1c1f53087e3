"""How near a measured step is to what the GPU allows: the number behind the stop condition "at the limit".

`fraction_of_limit` is limit_ms / measured_ms. limit_ms is what no schedule of this model can beat on these peaks: the
larger of all multiplications at the peak of their arithmetic and of reading weights and cache once at full bandwidth.
It is 1 for a perfect step. The step is near the limit from `NEAR` on, given that every input is known. Peaks of the
table are above what a loaded GPU reaches, so a claim that holds with them holds with calibrated ones all the more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sotad.simulate.architecture import Moe
from sotad.simulate.gpus import table
from sotad.simulate.moe import picked
from sotad.simulate.roofline import Roofline
from statemachine.evidence import NEAR_LIMIT

NEAR = NEAR_LIMIT  # what the campaign's guard asks for
LEAST = 0.5  # of a stated peak: a calibration below it is doubted
FULL = 0.95  # of the experts read: beyond that the routing no longer matters


def headroom(
    found: Roofline,
    stage: str,
    measured_ms: float,
    source: str = "given",
    assumed: Sequence[str] = (),
    busy_ms: float | None = None,
) -> dict[str, Any]:
    """What is left between a measured step and its limit.

    ``measured_ms`` is the time of one step of ``stage``, ``source`` where it is from, ``assumed`` the inputs of the
    model that nobody measured, ``busy_ms`` the part of the step in which the GPU was busy. ``status`` is `ok`, or
    `impossible`: faster than the limit, so an input is wrong; `incomplete`: a part of the model has no template;
    `assumed`: an input is not known. ``near_limit`` is False unless the status is `ok`.

    Raises:
        ValueError: measured_ms is not a positive number.
    """
    use = used(found, measured_ms)
    assumed = [*assumed, *_routing(found), *_pipeline(found), *_peaks(found)]
    status = _status(found, min(measured_ms, busy_ms or measured_ms), assumed)
    return {
        "stage": stage,
        "roofline_ms": found.ms,
        "limit_ms": found.limit_ms,
        "measured_ms": measured_ms,
        **use,
        "busy_ms": busy_ms,
        "fraction_of_limit_busy": None if busy_ms is None else found.limit_ms / busy_ms,
        "bound": found.bound,
        "status": status,
        "near_limit": status == "ok" and use["fraction_of_limit"] >= NEAR,
        "near_from": NEAR,
        "inputs": {**inputs(found), "measured_from": source, "assumed": list(assumed)},
    }


def used(found: Roofline, measured_ms: float) -> dict[str, float]:
    """MFU and MBU as fractions, and the fractions of the limit and of the operators' roofline.

    Raises:
        ValueError: measured_ms is not a positive number.
    """
    if not 0 < measured_ms < float("inf"):
        raise ValueError(f"measured_ms is {measured_ms}: it must be a positive number of milliseconds")
    return {
        "fraction_of_limit": found.limit_ms / measured_ms,
        "fraction_of_roofline": found.ms / measured_ms,
        "mfu": found.peak_seconds * 1e3 / measured_ms,
        "mbu": found.least_bytes / found.gpu.memory_rate * 1e3 / measured_ms,
    }


def inputs(found: Roofline) -> dict[str, Any]:
    """Everything that the limit was computed from."""
    step = found.step
    return {
        "model": step.model.name,
        "config_sha256": step.model.config_hash,
        "shape": list(step.batch.as_json()),
        "parallel": step.layout.as_json(),
        "formats": {**step.model.formats.names(), "kv_cache": step.kv_format.name},
        "gpu": found.gpu.as_json(),
        "unmodelled": step.model.unmodelled,
        "warnings": step.model.warnings,
    }


def _routing(found: Roofline) -> list[str]:
    """Even routing reads the most experts: where it is assumed, the true limit may be lower."""
    step = found.step
    tokens = step.local.tokens * (step.layout.dp if step.layout.ep > 1 else 1)
    mixed = next((layer.mlp for layer in step.model.layers if isinstance(layer.mlp, Moe)), None)
    if mixed is None or step.experts is not None:
        return []
    read = picked(mixed, tokens, None)
    if read > FULL * mixed.experts:
        return []
    return [f"even routing, which reads {read:.4g} of {mixed.experts} experts per layer (--experts-touched)"]


def _peaks(found: Roofline) -> list[str]:
    """Peaks that were lowered without a measurement, or below what a fault of it would explain better."""
    gpu = found.gpu
    stated = table()[gpu.name]
    rates = {**gpu.tflops, "bandwidth": gpu.bandwidth}
    usual = {**stated.tflops, "bandwidth": stated.bandwidth}
    low = [f"a {name} of {rates[name]:g}" for name in gpu.calibrated if rates.get(name, 0) < LEAST * usual.get(name, 0)]
    scaled = [f"peaks times {gpu.efficiency:g} (--efficiency)"] if gpu.efficiency != 1 else []
    return scaled + [f"{each}, less than half of what the maker states" for each in low]


def _pipeline(found: Roofline) -> list[str]:
    stages = found.step.layout.pp
    return [f"the step passes all {stages} pipeline stages, while a GPU's trace shows one"] if stages > 1 else []


def _status(found: Roofline, least_ms: float, assumed: Sequence[str]) -> str:
    if least_ms < found.limit_ms:
        return "impossible"
    if any("no template" in each for each in found.step.model.unmodelled):
        return "incomplete"
    return "assumed" if assumed else "ok"
