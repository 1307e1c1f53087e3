"""Made-up traces of forward passes: as columns, and as the JSON file that a profiler writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sotad.analysis.categories import categorize
from sotad.analysis.stages import find_stages
from sotad.pipeline.model import Model
from sotad.pipeline.view import View, Wish, views
from sotad.trace.columns import Frames, Spans, Trace, Work

NORM, QKV, ATTENTION = "FusedAddRMSNormKernel", "nvjet_qkv_TNT", "flash::FlashAttnFwdSm90_kernel"
OUT, UP, ACT, DOWN = "nvjet_out_TNT", "nvjet_up_TNT", "act_and_mul_kernel", "nvjet_down_TNT"
REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096>)"
LAYER = (NORM, QKV, ATTENTION, OUT, NORM, UP, ACT, DOWN)
LINEAR = (
    NORM,
    QKV,
    "_causal_conv1d_update_kernel",
    "fused_recurrent_gated_delta_rule_fwd_kernel",
    OUT,
    NORM,
    UP,
    ACT,
    DOWN,
)
MOE = (NORM, QKV, ATTENTION, OUT, NORM, "topkGatingSoftmax", "moe_align_block_size_kernel", "fused_moe_kernel",
       ACT, "fused_moe_kernel", "moe_sum_kernel")  # fmt: skip
DECODE = "step[DECODE bs=8]"
HEAD, TAIL = ("embedding_gather_kernel", "RMSNormKernel"), (NORM, "nvjet_lm_head_TNT", "argmax_kernel")


@dataclass(frozen=True)
class K:
    """One kernel; times in us."""

    name: str
    begin: float
    dur: float = 10.0
    device: int = 0
    stream: int = 7
    correlation: int = -1


@dataclass
class Made:
    """What is in a trace: kernels, steps (text, begin, end, device) and graph launches (correlation, begin)."""

    kernels: list[K] = field(default_factory=list)
    steps: list[tuple[str, float, float, int]] = field(default_factory=list)
    graphs: list[tuple[int, float]] = field(default_factory=list)


def forward(
    layers: Iterable[Sequence[str]], begin: float = 0.0, dur: float = 10.0, gap: float = 1.0, **what: Any
) -> list[K]:
    """The kernels of one pass, one after the other: the head, the layers, the tail."""
    first, *others = layers
    names = [*HEAD, *first[1:], *(name for layer in others for name in layer), *TAIL]
    return [K(name, begin + at * (dur + gap), dur, **what) for at, name in enumerate(names)]


def passes(
    layers: Sequence[Sequence[str]],
    number: int,
    text: str | None = "step[DECODE bs=8]",
    apart: float = 5.0,
    **what: Any,
) -> Made:
    """Several passes in a row, `apart` us apart, each annotated unless there is no text."""
    made, begin = Made(), 100.0
    for _ in range(number):
        own = forward(layers, begin, **what)
        made.kernels += own
        end = own[-1].begin + own[-1].dur
        if text:
            made.steps.append((text, begin, end, own[0].device))
        begin = end + apart
    return made


def joined(*parts: Made) -> Made:
    """Everything of several traces in one."""
    return Made(
        [kernel for part in parts for kernel in part.kernels],
        [step for part in parts for step in part.steps],
        [graph for part in parts for graph in part.graphs],
    )


def later(made: Made, us: float, device: int = 0) -> Made:
    """The same later, on another device."""
    kernels = [replace(kernel, begin=kernel.begin + us, device=device) for kernel in made.kernels]
    return Made(kernels, [(text, a + us, b + us, device) for text, a, b, _ in made.steps], made.graphs)


def trace(made: Made, order: Sequence[int] | None = None) -> Trace:
    """The columns; ``order`` puts the kernels in another order than that of time."""
    kernels = sorted(made.kernels, key=lambda kernel: (kernel.begin, -kernel.dur))
    kernels = [kernels[at] for at in order] if order is not None else kernels
    names: dict[str, int] = {}
    streams: dict[tuple[int, str], int] = {}
    devices = sorted({kernel.device for kernel in kernels} | {step[3] for step in made.steps})
    work = [
        (k.begin, k.begin + k.dur, names.setdefault(k.name, len(names)), k.correlation, devices.index(k.device),
         streams.setdefault((devices.index(k.device), str(k.stream)), len(streams)))
        for k in kernels
    ]  # fmt: skip
    marks = [
        (begin, end, names.setdefault(text, len(names)), -1, devices.index(device),
         streams.setdefault((devices.index(device), "7"), len(streams)))
        for text, begin, end, device in made.steps
    ]  # fmt: skip
    launches = [(at, at + 1, names.setdefault("cudaGraphLaunch", len(names)), number) for number, at in made.graphs]
    return Trace(
        "made.json", 1_000, list(names) or [""], [("1", "1")], [str(device) for device in devices], list(streams),
        _work(work), _work([]), Spans(*_spans([])), Spans(*_spans(launches)), Frames(*_spans([]), *_spans([])[:2]),
        Spans(*_spans([])), _work(marks),
    )  # fmt: skip


def _spans(rows: list[tuple[Any, ...]]) -> list[Any]:
    begin = np.array([round(row[0] * 1000) for row in rows], np.int64)
    end = np.array([round(row[1] * 1000) for row in rows], np.int64)
    name = np.array([row[2] for row in rows], np.int32)
    none = np.full(len(rows), -1, np.int64)
    return [begin, end, name, np.zeros(len(rows), np.int32), none, np.array([row[3] for row in rows], np.int64)]


def _work(rows: list[tuple[Any, ...]]) -> Work:
    device, stream = (np.array([row[at] for row in rows], np.int32) for at in (4, 5))
    return Work(*_spans(rows), device, stream)


def seen(made: Made | Trace, model: Model | None = None, **wish: Any) -> list[View]:
    """The analysis of it."""
    found = trace(made) if isinstance(made, Made) else made
    return views(found, find_stages(found), categorize, model, Wish(**wish))


def written(path: Path, made: Made) -> Path:
    """A profiler's file of it."""
    events = [
        {"ph": "X", "cat": "kernel", "name": k.name, "pid": k.device, "tid": k.stream, "ts": k.begin, "dur": k.dur,
         "args": {"device": k.device, "stream": k.stream, "correlation": 1000 + at}}
        for at, k in enumerate(made.kernels)
    ]  # fmt: skip
    events += [
        {"ph": "X", "cat": "gpu_user_annotation", "name": text, "pid": device, "tid": 7, "ts": begin,
         "dur": end - begin, "args": {"stream": 7}}
        for text, begin, end, device in made.steps
    ]  # fmt: skip
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}))
    return path
