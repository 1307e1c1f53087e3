"""TokenSpeed: ``tokenspeed serve MODEL``. Its ``serve --help`` lists no engine options, so the static list counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sotad.frameworks.base import HOST, PORT, Call, Framework, Profiler, dtype, first
from sotad.frameworks.caches import COMMON_CACHES
from sotad.frameworks.help import Help
from sotad.frameworks.interpreter import is_python
from sotad.frameworks.render import Value
from sotad.frameworks.vllm import speculation


class TokenSpeed(Framework):
    """Names look like vLLM's and SGLang's; their meanings are its own."""

    kind = "tokenspeed"
    caches = COMMON_CACHES
    default_command = ("tokenspeed", "serve")
    module = ("-m", "tokenspeed.cli", "serve")
    packages = ("tokenspeed",)
    help_hints = ("tokenspeed", "serve")
    context_flag, dtype_flag = "max_model_len", "dtype"
    owned: ClassVar[Mapping[str, str]] = {"host": "", "port": "", "model": "id", "served_model_name": "served_name"}
    known = (
        *("attention_backend", "attn_tp_size", "chunked_prefill_size", "comm_fusion_max_num_tokens"),
        *("disable_cuda_graph_padding", "dtype", "enable_allreduce_fusion", "enable_expert_parallel"),
        *("enable_mla_l1_5_cache", "enable_prefix_caching", "gpu_memory_utilization", "kv_cache_dtype"),
        *("max_model_len", "max_num_seqs", "max_prefill_tokens", "max_total_tokens", "mla_chunk_multiplier"),
        *("moe_backend", "moe_tp_size", "quantization", "reasoning_parser", "speculative_algorithm"),
        *("speculative_config", "speculative_draft_model_path", "speculative_num_draft_tokens"),
        *("speculative_num_steps", "tensor_parallel_size", "tool_call_parser", "trust_remote_code"),
    )
    graphs_off = ("enforce_eager", "disable_cuda_graph")
    negatable = ("enable_prefix_caching",)

    def version_command(self, command: Sequence[str], python: str | None = None) -> list[str]:
        if is_python(command[0]) or command[-1] != "serve":
            return super().version_command(command, python)
        return [*command[:-1], "version"]

    def head(self, model: Mapping[str, Any]) -> list[str]:
        name = self.served_model(model)
        served = [] if name == model["id"] else ["--served-model-name", name]
        return [str(model["id"]), *served, "--host", HOST, "--port", PORT]

    def profiler(
        self, folder: str, help: Help, steps: int | None = None, name: str = "sotad", stacks: bool = False
    ) -> Profiler:
        body = {"output_dir": folder, "activities": ["CPU", "GPU"], "with_stack": stacks, "record_shapes": False}
        env = {"TOKENSPEED_PROFILER_DIR": folder}
        return Profiler(Call("/start_profile", {**body, "profile_id": name}), Call("/stop_profile"), env=env)

    def conditions(self, flags: Mapping[str, Value], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
        model, algorithm = model or {}, first(flags, "speculative_algorithm")
        drafts = first(flags, "speculative_num_draft_tokens", "speculative_num_steps")
        explicit = {"method": str(algorithm).lower(), "draft_tokens": drafts}
        return {  # defaults: the ServerArgs dataclass of lightseekorg/tokenspeed
            "tensor_parallel": first(flags, "tensor_parallel_size", default=1),
            "pipeline_parallel": 1,  # it has no pipeline parallelism
            "dtype": dtype(first(flags, "dtype", default=model.get("precision", "auto"))),
            "kv_cache_dtype": dtype(first(flags, "kv_cache_dtype", default="auto")),
            "quantization": first(flags, "quantization", default="auto"),
            "prefix_cache": first(flags, "enable_prefix_caching", default=True),
            "speculative": explicit if algorithm else speculation(first(flags, "speculative_config")),
            "max_context": first(flags, "max_model_len", default=model.get("max_context")),
            "tokenizer": first(flags, "tokenizer", default=model.get("tokenizer")),
            "cpu_offload": None,
            "memory_fraction": first(flags, "gpu_memory_utilization"),
        }
