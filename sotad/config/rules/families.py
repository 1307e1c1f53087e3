"""Names of knobs by framework kind: what means the same thing, in snake_case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARALLEL = {
    "sglang": (("tp_size", "tp", "tensor_parallel_size"), ("pp_size", "pp", "pipeline_parallel_size")),
    "vllm": (
        ("tensor_parallel_size", "tp"),
        ("pipeline_parallel_size", "pp"),
        ("data_parallel_size", "dp"),
    ),
    "tensorrt_llm": (("tp_size",), ("pp_size",)),
    "tokenspeed": (("tensor_parallel_size", "tp", "attn_tp_size"), ("data_parallel_size",)),
}
PINNED = {
    "mem_fraction_static",
    "gpu_memory_utilization",
    "kv_cache_free_gpu_memory_fraction",
    "free_gpu_memory_fraction",
    "schedule_policy",
}
ATTENTION = ("attention_backend", "prefill_attention_backend", "decode_attention_backend")


def snake(flag: str) -> str:
    """A flag's name with underscores, as the tables here have it."""
    return flag.lstrip("-").replace("-", "_")


def snaked(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags under their snake_case names."""
    return {snake(flag): value for flag, value in flags.items()}
