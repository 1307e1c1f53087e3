"""SGLang: ``python -m sglang.launch_server``. Facts from its help texts and info page of 0.5.16 and 0.5.23."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sotad.frameworks.base import HOST, PORT, Call, Framework, Profiler, dtype, first
from sotad.frameworks.caches import SGLANG_CACHES
from sotad.frameworks.facts import Counter, Gauge, Ratio, Reading
from sotad.frameworks.help import Help
from sotad.frameworks.interpreter import is_python
from sotad.frameworks.render import Rename, Value

_CP = {'"in-seq-split"': "zigzag", '"round-robin-split"': "interleave"}


class SGLang(Framework):
    """The server with metrics on; its profiler needs no flag."""

    kind = "sglang"
    caches = SGLANG_CACHES
    default_command = ("python", "-m", "sglang.launch_server")
    module = ("-m", "sglang.launch_server")
    packages = ("sglang",)
    help_hints = ("sglang", "launch")
    info_paths = ("/server_info", "/get_server_info")  # the second is the older name
    context_flag, dtype_flag, tokenizer_flag = "context_length", "dtype", "tokenizer_path"
    always: ClassVar[Mapping[str, Value]] = {"enable_metrics": True}  # off by default; vLLM's are always on
    owned: ClassVar[Mapping[str, str]] = {
        "host": "",
        "port": "",
        "model_path": "id",
        "model": "id",
        "served_model_name": "served_name",
    }
    known = (
        *("attention_backend", "chunked_prefill_size", "context_length", "decode_attention_backend", "dllm_algorithm"),
        *("dtype", "enable_metrics", "enable_multimodal", "enable_symm_mem", "ep_size", "kv_cache_dtype"),
        *("max_running_requests", "mem_fraction_static", "model_loader_extra_config", "moe_runner_backend", "nnodes"),
        *("pp_size", "prefill_attention_backend", "reasoning_parser", "schedule_policy", "tool_call_parser", "tp_size"),
        *("trust_remote_code",),
    )
    renames = (  # what 0.5.16's help calls deprecated; 0.5.23 has only the new names
        Rename("cuda_graph_max_bs", "cuda_graph_max_bs_decode"),
        Rename("cuda_graph_bs", "cuda_graph_bs_decode"),
        Rename("piecewise_cuda_graph_tokens", "cuda_graph_bs_prefill"),
        Rename("piecewise_cuda_graph_max_tokens", "cuda_graph_max_bs_prefill"),
        Rename("piecewise_cuda_graph_compiler", "cuda_graph_tc_compiler"),
        Rename("disable_piecewise_cuda_graph", "cuda_graph_backend_prefill", {"true": "disabled", "false": None}),
        Rename("enforce_piecewise_cuda_graph", "cuda_graph_backend_prefill", {"true": "tc_piecewise", "false": None}),
        Rename("enable_breakable_cuda_graph", "cuda_graph_backend_prefill", {"true": "breakable", "false": None}),
        Rename("nsa_prefill_backend", "dsa_prefill_backend"),
        Rename("nsa_decode_backend", "dsa_decode_backend"),
        Rename("mamba_scheduler_strategy", "mamba_radix_cache_strategy"),
        Rename("stream_output", "incremental_streaming_output"),
        Rename("enable_prefill_context_parallel", "enable_prefill_cp"),
        Rename("enable_dsa_prefill_context_parallel", "enable_prefill_cp"),
        Rename("enable_nsa_prefill_context_parallel", "enable_prefill_cp"),
        *(Rename(f"{part}prefill_cp_mode", "cp_strategy", _CP) for part in ("", "dsa_", "nsa_")),
    )
    graphs_off = ("disable_cuda_graph",)
    used: ClassVar[Mapping[str, str]] = {"attention_backend": r"ServerArgs\(.*?\battention_backend='([^']+)'"}
    readings: ClassVar[Mapping[str, Reading]] = {
        "running": Gauge("sglang:num_running_reqs"),
        "waiting": Gauge("sglang:num_queue_reqs"),
        "kv_cache_utilization": Gauge("sglang:token_usage", max),
        "kv_cache_tokens": Gauge("sglang:max_total_num_tokens", max),
        "prefix_cache_hit_rate": Ratio("sglang:cached_tokens_total", "sglang:prompt_tokens_total"),
        "mean_accept_length": Gauge("sglang:spec_accept_length", max, unset=0.0),
        "acceptance_rate": Gauge("sglang:spec_accept_rate", max, unset=0.0),
        "queue_ms": Ratio("sglang:queue_time_seconds_sum", "sglang:queue_time_seconds_count", 1000.0),
        "prompt_tokens": Counter("sglang:prompt_tokens_total"),
        "generation_tokens": Counter("sglang:generation_tokens_total"),
    }

    def help_commands(self, command: Sequence[str]) -> dict[str, list[str]]:
        found = super().help_commands(command)
        if is_python(command[0]):
            found["benchmark"] = [command[0], "-m", "sglang.bench_serving", "--help"]
        return found

    def head(self, model: Mapping[str, Any]) -> list[str]:
        name = self.served_model(model)
        served = [] if name == model["id"] else ["--served-model-name", name]
        return ["--model-path", str(model["id"]), *served, "--host", HOST, "--port", PORT]

    def profiler(
        self, folder: str, help: Help, steps: int | None = None, name: str = "sotad", stacks: bool = False
    ) -> Profiler:
        body: dict[str, Any] = {"output_dir": folder, "activities": ["CPU", "GPU"], "profile_by_stage": False}
        body |= {"merge_profiles": False, "profile_prefix": name, "with_stack": stacks}
        if steps is not None:
            body["num_steps"] = str(steps + 1)  # the scheduler counts a step before it compares
        # With num_steps the server ends the trace itself, and answers a later stop with an error.
        stop = Call("/stop_profile", may_fail=steps is not None)
        return Profiler(Call("/start_profile", body), stop, env={"SGLANG_TORCH_PROFILER_DIR": folder}, settle_s=180.0)

    def conditions(self, flags: Mapping[str, Value], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
        model, algorithm = model or {}, first(flags, "speculative_algorithm")
        drafts = first(flags, "speculative_num_draft_tokens", "speculative_num_steps")
        return {  # defaults: server_info of a server started without these flags
            "tensor_parallel": first(flags, "tp_size", "tensor_parallel_size", default=1),
            "pipeline_parallel": first(flags, "pp_size", "pipeline_parallel_size", default=1),
            "dtype": dtype(first(flags, "dtype", default=model.get("precision", "auto"))),
            "kv_cache_dtype": dtype(first(flags, "kv_cache_dtype", default="auto")),
            "quantization": first(flags, "quantization", default="auto"),
            "prefix_cache": not first(flags, "disable_radix_cache", default=False),
            "speculative": {"method": str(algorithm).lower(), "draft_tokens": drafts} if algorithm else False,
            "max_context": first(flags, "context_length", default=model.get("max_context")),
            "tokenizer": first(flags, "tokenizer_path", default=model.get("tokenizer")),
            "cpu_offload": first(flags, "cpu_offload_gb", default=0),
            "memory_fraction": first(flags, "mem_fraction_static"),
        }

    def observe(
        self, metrics_text: str, server_info: Mapping[str, Any] | None = None, before: str = ""
    ) -> dict[str, Any]:
        info, found = server_info or {}, super().observe(metrics_text, server_info, before)
        disabled = info.get("disable_radix_cache")
        found["prefix_cache_enabled"] = None if disabled is None else not disabled
        found["kv_cache_dtype"] = info.get("kv_cache_dtype")
        found["gpu_memory_utilization"] = info.get("mem_fraction_static")
        found["kv_cache_tokens"] = found["kv_cache_tokens"] or info.get("max_total_num_tokens")
        return found
