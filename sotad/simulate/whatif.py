"""The same load on other layouts: time, communication and memory per GPU of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sotad.simulate.architecture import Model, Moe
from sotad.simulate.errors import SimulateError
from sotad.simulate.gpus import Gpu
from sotad.simulate.parallel import Layout, factorings
from sotad.simulate.roofline import roofline
from sotad.simulate.shapes import Batch
from sotad.simulate.step import cache_bytes, forward, weight_bytes

RESERVE = 0.1  # of the memory, for activations, graphs and the allocator: assumed


def what_if(model: Model, batch: Batch, gpu: Gpu, gpus: int, kv_dtype: str | None = None) -> list[dict[str, Any]]:
    """Every layout of that many GPUs, those that fit first, by tokens per second and GPU.

    Bounds, not predictions: nothing overlaps, experts are picked evenly, and the latencies of messages are assumed.
    With a pipeline the requests are divided into one batch per stage, and a step is the way of one of them through all.

    Raises:
        SimulateError: gpus is not positive.
    """
    if gpus < 1:
        raise SimulateError(f"gpus is {gpus}: it must be at least 1")
    moe = any(isinstance(layer.mlp, Moe) for layer in model.layers)
    rows = [_row(model, batch, gpu, layout, kv_dtype) for layout in _distinct(factorings(gpus, moe))]
    return sorted(rows, key=lambda row: (not row["feasible"], -(row["tokens_per_s_per_gpu"] or 0.0)))


def _distinct(layouts: Iterable[Layout]) -> list[Layout]:
    return list(dict.fromkeys(layouts))


def _row(model: Model, batch: Batch, gpu: Gpu, layout: Layout, kv_dtype: str | None) -> dict[str, Any]:
    try:
        whole = forward(model, batch, layout, kv_dtype)
        found = roofline(forward(model, batch.split(layout.pp), layout, kv_dtype), gpu)
    except SimulateError as error:
        return {**_empty(layout), "reason": str(error)}
    per_token, per_request = cache_bytes(whole)
    weights, cache = weight_bytes(whole), per_request * whole.local.sequences
    room = gpu.memory * 1e9 * (1 - RESERVE)
    fits = weights + cache <= room
    comm = sum(part.times * each.comm_us for part, each in found.timed()) / 1e3
    return {
        **layout.as_json(),
        "feasible": fits,
        "reason": "" if fits else f"{(weights + cache) / 1e9:.0f} GB of weights and cache, {room / 1e9:.0f} GB of room",
        "weights_gb": weights / 1e9,
        "kv_gb": cache / 1e9,
        "kv_bytes_per_token": per_token,
        "compute_ms": sum(part.times * each.compute_us for part, each in found.timed()) / 1e3,
        "memory_ms": sum(part.times * each.memory_us for part, each in found.timed()) / 1e3,
        "comm_ms": comm,
        "comm_bytes": sum(op.comm_bytes * times for op, times in found.step.ops()),
        "step_ms": found.ms,
        "tokens_per_s_per_gpu": batch.tokens / (found.ms / 1e3) / layout.gpus,
        "bound": found.bound,
    }


def _empty(layout: Layout) -> dict[str, Any]:
    numbers = ("weights_gb", "kv_gb", "kv_bytes_per_token", "compute_ms", "memory_ms", "comm_ms", "comm_bytes")
    blank = dict.fromkeys((*numbers, "step_ms", "tokens_per_s_per_gpu", "bound"))
    return {**layout.as_json(), "feasible": False, **blank}
