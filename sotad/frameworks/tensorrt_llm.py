"""TensorRT-LLM: ``trtllm-serve serve MODEL``, with the PyTorch backend only. Its flags have underscores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sotad.frameworks.base import HOST, PORT, Framework, Profiler, first
from sotad.frameworks.caches import COMMON_CACHES
from sotad.frameworks.facts import Counter, Gauge, Ratio, Reading
from sotad.frameworks.help import Help
from sotad.frameworks.logs import Pattern
from sotad.frameworks.render import Rename, Value

WARMUP = 10  # iterations that are let go by before a trace that is bounded by steps


class TensorRTLLM(Framework):
    """The server under the interpreter's own module when one is given."""

    kind = "tensorrt_llm"
    caches = COMMON_CACHES
    default_command = ("trtllm-serve", "serve")
    module = ("-m", "tensorrt_llm.commands.serve", "serve")
    packages = ("tensorrt_llm", "tensorrt-llm")
    counts_own_steps = True
    help_hints = ("trtllm", "serve")
    separator = "_"
    # /metrics answers JSON; this one needs `return_perf_metrics: true` in the extra options file.
    metrics_path = "/prometheus/metrics"
    context_flag, tokenizer_flag = "max_seq_len", "tokenizer"
    owned: ClassVar[Mapping[str, str]] = {"host": "", "port": "", "model": "id"}
    known = (
        *("backend", "ep_size", "extra_llm_api_options", "free_gpu_memory_fraction"),
        *("kv_cache_free_gpu_memory_fraction", "max_batch_size", "max_num_tokens", "max_seq_len", "pp_size", "tp_size"),
        *("trust_remote_code",),
    )
    renames = (
        Rename("kv_cache_free_gpu_memory_fraction", "free_gpu_memory_fraction"),
        Rename("extra_llm_api_options", "config"),
    )
    patterns = (Pattern("unsupported", r"is not a known backend"),)
    readings: ClassVar[Mapping[str, Reading]] = {
        "kv_cache_utilization": Gauge("trtllm_kv_cache_utilization", max),
        "prefix_cache_hit_rate": Gauge("trtllm_kv_cache_hit_rate", max),
        "queue_ms": Ratio("trtllm_request_queue_time_seconds_sum", "trtllm_request_queue_time_seconds_count", 1000.0),
        "requests": Counter("trtllm_request_success_total"),
    }

    def unsupported(self, options: Mapping[str, Value]) -> str:
        backend = first(options, "backend", default="pytorch")
        if backend == "pytorch":
            return ""
        return f"only the pytorch backend can be compared (same weights, no engine build): backend is {backend!r}"

    def served_model(self, model: Mapping[str, Any]) -> str:
        return str(model["id"])  # trtllm-serve has no flag for another name

    def head(self, model: Mapping[str, Any]) -> list[str]:
        return [str(model["id"]), "--host", HOST, "--port", PORT]

    def defaults(self, model: Mapping[str, Any]) -> dict[str, Value]:
        return {"backend": "pytorch", **super().defaults(model)}

    def profiler(
        self, folder: str, help: Help, steps: int | None = None, name: str = "sotad", stacks: bool = False
    ) -> Profiler | None:
        """Its executor traces a window of its own iterations: it needs ``steps``, and there is nothing to call."""
        if steps is None:
            return None
        window = f"{WARMUP + 1}-{WARMUP + steps}"
        env = {"TLLM_PROFILE_START_STOP": window, "TLLM_TORCH_PROFILE_TRACE": f"{folder}/{name}.trace.json"}
        return Profiler(None, None, env=env)

    def conditions(self, flags: Mapping[str, Value], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
        model, file = model or {}, first(flags, "extra_llm_api_options", "config")
        return {  # defaults: trtllm-serve's click options and KvCacheConfig; an options file may override them all
            "tensor_parallel": first(flags, "tp_size", "tensor_parallel_size", default=1),
            "pipeline_parallel": first(flags, "pp_size", "pipeline_parallel_size", default=1),
            "dtype": model.get("precision", "auto") if file is None else None,
            "kv_cache_dtype": "auto" if file is None else None,
            "quantization": "auto" if file is None else None,
            "prefix_cache": True if file is None else None,  # KvCacheConfig.enable_block_reuse
            "speculative": False if file is None else None,
            "max_context": first(flags, "max_seq_len", default=model.get("max_context")),
            "tokenizer": first(flags, "tokenizer", default=model.get("tokenizer")),
            "cpu_offload": 0 if file is None else None,  # KvCacheConfig.host_cache_size
            "memory_fraction": first(flags, "kv_cache_free_gpu_memory_fraction", "free_gpu_memory_fraction"),
        }
