"""The reference engine: a tiny decoder on the CPU, launched from its own git checkout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sotad.frameworks.base import CONDITIONS, HOST, PORT, Call, Framework, Profiler, first
from sotad.frameworks.facts import Counter, Gauge, Ratio, Reading
from sotad.frameworks.help import Help
from sotad.frameworks.logs import Pattern
from sotad.frameworks.render import Value


class Reference(Framework):
    """``python -m refengine`` in the checkout's root."""

    kind = "reference"
    default_command = ("python3", "-m", "refengine")
    module = ("-m", "refengine")
    help_hints = ("refengine", "help")
    owned: ClassVar[Mapping[str, str]] = {
        "host": "",
        "port": "",
        "model_name": "served_name",
        "max_model_len": "max_context",
    }
    known = ("threads", "prefill_chunk", "max_batch_size", "kv_tokens", "schedule_policy", "block_size", "profile_dir")
    traces_whole_pass = True
    patterns = (Pattern("oom", r"KV cache of \d+ tokens cannot hold|--kv-tokens"),)
    readings: ClassVar[Mapping[str, Reading]] = {
        "running": Gauge("refengine:num_requests_running"),
        "waiting": Gauge("refengine:num_requests_waiting"),
        "kv_cache_utilization": Gauge("refengine:kv_cache_usage_ratio", max),
        "prefix_cache_hit_rate": Ratio("refengine:prefix_cache_hits_total", "refengine:prefix_cache_queries_total"),
        "prompt_tokens": Counter("refengine:prompt_tokens_total"),
        "generation_tokens": Counter("refengine:generation_tokens_total"),
    }

    def version_command(self, command: Sequence[str], python: str | None = None) -> list[str]:
        return [*command, "--version"]

    def head(self, model: Mapping[str, Any]) -> list[str]:
        longest = ["--max-model-len", str(model["max_context"])] if model.get("max_context") else []
        return ["--host", HOST, "--port", PORT, "--model-name", self.served_model(model), *longest]

    def defaults(self, model: Mapping[str, Any]) -> dict[str, Value]:
        return {}

    def profiler(
        self, folder: str, help: Help, steps: int | None = None, name: str = "sotad", stacks: bool = False
    ) -> Profiler:
        body = {} if steps is None else {"num_steps": steps}
        return Profiler(Call("/start_profile", body), Call("/stop_profile", {}), {"profile-dir": folder}, files="")

    def conditions(self, flags: Mapping[str, Value], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
        model = model or {}
        known = {
            "tensor_parallel": 1,  # one process, no collectives
            "pipeline_parallel": 1,
            "dtype": "float32",  # sotad/refengine/model.py has no other
            "kv_cache_dtype": "float32",
            "quantization": "none",
            "prefix_cache": first(flags, "prefix_cache", default=True),  # sotad/refengine/flags.py
            "speculative": False,
            "max_context": first(flags, "max_model_len", default=model.get("max_context")),
            "tokenizer": "bytes",  # sotad/refengine/tokenizer.py has no other
            "cpu_offload": 0,
            "memory_fraction": None,
        }
        return {name: known[name] for name in CONDITIONS}
