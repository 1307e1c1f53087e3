"""Everything that `sotactl simulate` tells, as plain objects: what the model needs, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sotad.simulate.gpus import Gpu
from sotad.simulate.limit import headroom, inputs
from sotad.simulate.measured import Measured
from sotad.simulate.roofline import Roofline, Timed
from sotad.simulate.step import Part, cache_bytes, parameters, weight_bytes

BELOW = 0.98  # measured time of a category over its roofline time, under which both cannot be of the same work


@dataclass(slots=True)
class Answer:
    """``stages`` by name, ``layouts`` the what-ifs of each stage, ``notes`` what a reader has to know."""

    stages: dict[str, Roofline]
    headroom: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    layouts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def judge(
        self, stage: str, measured_ms: float, source: str, assumed: Sequence[str] = (), busy_ms: float | None = None
    ) -> None:
        """Set a measured step against its limit."""
        self.headroom[stage] = headroom(self.stages[stage], stage, measured_ms, source, assumed, busy_ms)

    def as_json(self) -> dict[str, Any]:
        """The whole answer."""
        first = next(iter(self.stages.values()))
        model, gpu = first.step.model, first.gpu
        total, active = parameters(model)
        return {
            "model": model.name,
            "family": model.family,
            "config_sha256": model.config_hash,
            "parameters": {"total": round(total), "active": round(active)},
            "layers": [{"label": part.label, "layers": list(part.numbers)} for part in first.step.parts],
            "parallel": first.step.layout.as_json(),
            "formats": inputs(first)["formats"],
            "hardware": gpu.as_json(),
            "stages": {name: stage_json(found) for name, found in self.stages.items()},
            "measured": {name: each.as_json() for name, each in self.measured.items()},
            "categories": {
                name: category_rows(self.stages[name], each.categories)
                for name, each in self.measured.items()
                if name in self.stages
            },
            "headroom": self.headroom,
            "what_if": self.layouts,
            "warnings": model.warnings,
            "unmodelled": model.unmodelled,
            "notes": self.notes,
        }


def stage_json(found: Roofline) -> dict[str, Any]:
    """One stage: its shape, its operators and their totals (of one GPU)."""
    step = found.step
    per_token, per_request = cache_bytes(step)
    seconds = found.ms / 1e3
    return {
        "groups": list(step.batch.as_json()),
        "layers": [_part(part, ops) for part, ops in found.parts],
        "totals": {
            "flops": found.flops,
            "matrix_flops": found.matrix_flops,
            "bytes": found.bytes,
            "least_bytes": found.least_bytes,
            "comm_bytes": sum(op.comm_bytes * times for op, times in step.ops()),
            "weights_bytes_per_gpu": weight_bytes(step),
            "kv_bytes_per_token_per_gpu": per_token,
            "cache_bytes_per_request_per_gpu": per_request,
            "roofline_ms": found.ms,
            "limit_ms": found.limit_ms,
            "tokens_per_s": step.batch.tokens / seconds,
            "bound": found.bound,
            "bound_shares": found.shares(),
            "categories_ms": found.categories(),
        },
    }


def _part(part: Part, ops: tuple[Timed, ...]) -> dict[str, Any]:
    return {
        "label": part.label,
        "layers": list(part.numbers),
        "count": part.times,
        "us": sum(each.us for each in ops),
        "ops": [op_json(each) for each in ops],
    }


def op_json(each: Timed) -> dict[str, Any]:
    """One operator of one layer."""
    op = each.op
    m, n, k = op.mnk or (None, None, None)
    return {
        "name": op.name,
        "category": op.category,
        "shape": op.shape,
        "m": m,
        "n": n,
        "k": k,
        "flops": op.flops,
        "bytes_w": op.weight_bytes,
        "bytes_a": op.activation_bytes,
        "bytes_kv": op.kv_bytes,
        "comm_bytes": op.comm_bytes,
        "intensity": op.intensity,
        "dtype": op.math,
        "t_compute_us": each.compute_us,
        "t_memory_us": each.memory_us,
        "t_comm_us": each.comm_us,
        "roofline_us": each.us,
        "bound": each.bound,
    }


def category_rows(found: Roofline, taken: Mapping[str, float]) -> list[dict[str, Any]]:
    """Kernel time and roofline time by category, the largest gap first; their gaps sum to that of the step's kernels.

    ``status`` is `unmodelled` for kernels that are no part of the model, `below_bound` where they took less than the
    model's least: fused into another category, kept in the cache, or of another shape than was said.
    """
    least = found.categories()
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys((*taken, *least)):
        here, bound = taken.get(name, 0.0), least.get(name, 0.0)
        status = "unmodelled" if not bound else "below_bound" if here < BELOW * bound else "ok"
        share = bound / here if here else None
        rows.append({"category": name, "measured_ms": here, "roofline_ms": bound, "fraction": share, "status": status})
    gaps = [{**row, "gap_ms": row["measured_ms"] - row["roofline_ms"]} for row in rows]
    return sorted(gaps, key=lambda row: -row["gap_ms"])


def gpu_text(gpu: Gpu) -> str:
    """The peaks in words."""
    kinds = ", ".join(f"{kind} {rate:g}" for kind, rate in gpu.tflops.items())
    kind = f"calibrated: {', '.join(gpu.calibrated)}" if gpu.calibrated else "of the table, ideal"
    scaled = f", times {gpu.efficiency:g}" if gpu.efficiency != 1 else ""
    return f"{gpu.name}: {kinds} TFLOPS, {gpu.bandwidth:g} GB/s, {gpu.memory:g} GB ({kind}{scaled}; {gpu.source})"
