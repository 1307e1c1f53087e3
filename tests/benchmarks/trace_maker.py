"""Deterministic Chrome traces of a made-up decoder, of any size, written without being held."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCES = "/opt/engine/python/sglang/srt/"
LAYERS = 32
PREFILL_EVERY = 8  # steps


@dataclass(frozen=True)
class Part:
    """One kernel of a layer: how long it takes, microseconds, and what launches it from where."""

    kernel: str
    us: float
    op: str
    where: str
    stream: int = 7


LAYER = (
    Part(
        "void norm::AddRMSNormKernel<8u, __nv_bfloat16>(__nv_bfloat16*)",
        4,
        "sgl::add_rmsnorm",
        "layers/layernorm.py({}): forward",
    ),
    Part("nvjet_tst_128x256_64x4_2x1_v_bz_TNT", 58, "aten::mm", "layers/linear.py({}): apply"),
    Part("void qknorm_kernel<128>(float*)", 3, "sgl::qknorm", "models/layers.py({}): qk_norm"),
    Part("void rotary_kernel<bf16>(long*)", 3, "sgl::rope", "layers/rotary_embedding.py({}): forward"),
    Part("void store_kv_cache(int*)", 2, "sgl::store_kv", "mem_cache/pool.py({}): set_kv"),
    Part(
        "void cutlass::device_kernel<flash::FlashAttnFwdSm90<128, 64> >(Params)",
        41,
        "sgl::fwd",
        "layers/fa.py({}): decode",
    ),
    Part("nvjet_tst_64x64_64x8_4x1_v_bz_splitK_TNT", 24, "aten::mm", "layers/linear.py({}): apply"),
    Part(
        "void cross_device_reduce_1stage<bf16, 8>(RankData*)",
        13,
        "sgl::all_reduce",
        "distributed/ops.py({}): all_reduce",
        19,
    ),
    Part(
        "void norm::AddRMSNormKernel<8u, __nv_bfloat16>(__nv_bfloat16*)",
        4,
        "sgl::add_rmsnorm",
        "layers/layernorm.py({}): forward",
    ),
    Part("nvjet_tst_192x192_64x3_1x2_h_bz_TNN", 82, "aten::mm", "layers/linear.py({}): apply"),
    Part("void act_and_mul_kernel<bf16, silu>(bf16*)", 6, "sgl::silu_and_mul", "layers/activation.py({}): forward"),
    Part("nvjet_tst_128x128_64x6_2x1_v_bz_TNT", 44, "aten::mm", "layers/linear.py({}): apply"),
    Part(
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096>)",
        15,
        "nccl:all_reduce",
        "distributed/state.py({}): all_reduce",
        19,
    ),
)


@dataclass(frozen=True)
class Shape:
    """What a trace holds. ``framed``: of the operators, how many lie in a Python frame: all, half; ``flows``: an arrow
    from every launch to its kernel."""

    kernels: int
    steps: bool = False
    host: bool = False
    framed: str = "all"
    flows: bool = False


def write(path: Path, shape: Shape) -> None:
    """The trace of this shape: the same bytes every time."""
    with path.open("w") as file:
        file.write(
            '{"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "made up"}],'
            ' "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1}, "traceEvents": [\n'
            '{"ph":"M","name":"process_name","pid":0,"tid":0,"ts":0,"args":{"name":"engine"}}'
        )
        for event in _events(shape):
            file.write(",\n")
            file.write(event)
        file.write('\n], "traceName": "made up"}\n')


def _events(shape: Shape) -> Iterator[str]:
    rng = random.Random(11)
    per_step = LAYERS * len(LAYER)
    gpu, cpu, begun = 1_000_000.0, 999_500.0, (1_000_000.0, 999_500.0)
    for number in range(shape.kernels):
        part = LAYER[number % len(LAYER)]
        us = part.us * rng.uniform(0.9, 1.1)
        if shape.host:
            yield from _host(part, number, cpu, shape.framed)
            cpu += 10
        yield (
            f'{{"ph":"X","cat":"kernel","name":"{part.kernel}","pid":0,"tid":{part.stream},"ts":{gpu:.3f},'
            f'"dur":{us:.3f},"args":{{"External id":{number + 1},"device":0,"context":1,"stream":{part.stream},'
            f'"correlation":{number + 1},"grid":[132,1,1],"block":[384,1,1]}}}}'
        )
        if shape.flows:
            yield _end("s", number + 1, 4242, 4242, cpu - 8)
            yield _end("f", number + 1, 0, part.stream, gpu)
        gpu += us * (0.7 if part.stream == 19 else 1) + 1
        if (number + 1) % per_step == 0:
            if shape.steps:
                yield from _step(number // per_step, begun, (gpu, cpu), shape)
            gpu += 20
            begun = gpu, cpu


def _host(part: Part, number: int, cpu: float, framed: str) -> Iterator[str]:
    """An operator, the launch in it, and for the first of every two operators a frame around both.

    With half of them framed, frames end before the second operator begins.
    """
    name = SOURCES + part.where.format(100 + number % len(LAYER))
    yield (
        f'{{"ph":"X","cat":"cpu_op","name":"{part.op}","pid":4242,"tid":4242,"ts":{cpu:.3f},"dur":8.000,'
        f'"args":{{"External id":{number + 1},"Sequence number":{number}}}}}'
    )
    yield (
        f'{{"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":4242,"tid":4242,"ts":{cpu + 2:.3f},'
        f'"dur":4.000,"args":{{"External id":{number + 1},"cbid":211,"correlation":{number + 1}}}}}'
    )
    if number % 2 == 0:
        yield _frame(name, cpu - 0.5, 19 if framed == "all" else 9, number + 10, 1)


def _end(phase: str, identity: int, process: int, thread: int, ts: float) -> str:
    """An end of an arrow; that of the launch begins 2 us into its operator, for which the clock moved on by 10."""
    return f'{{"ph":"{phase}","id":{identity},"pid":{process},"tid":{thread},"ts":{ts:.3f},"cat":"ac2g","name":"ac2g"}}'


def _step(number: int, begun: tuple[float, float], ended: tuple[float, float], shape: Shape) -> Iterator[str]:
    """The step's annotation on the device and, with a host and frames around all, the frame that ran it."""
    word = "DECODE bs=32" if number % PREFILL_EVERY else "EXTEND bs=4 toks=8192"
    yield (
        f'{{"ph":"X","cat":"gpu_user_annotation","name":"step[{word}]","pid":0,"tid":7,"ts":{begun[0]:.3f},'
        f'"dur":{ended[0] - begun[0]:.3f},"args":{{"External id":{90_000_000 + number}}}}}'
    )
    if shape.host and shape.framed == "all":
        yield _frame(SOURCES + "managers/scheduler.py(2100): run_batch", begun[1] - 1, ended[1] - begun[1] + 1, 1, None)


def _frame(name: str, begin: float, us: float, identity: int, parent: int | None) -> str:
    above = "null" if parent is None else parent
    return (
        f'{{"ph":"X","cat":"python_function","name":"{name}","pid":4242,"tid":4242,"ts":{begin:.3f},'
        f'"dur":{us:.3f},"args":{{"Python id":{identity},"Python parent id":{above}}}}}'
    )
