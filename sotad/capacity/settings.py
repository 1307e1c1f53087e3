"""What a server says it was started with: echoed arguments and configurations, as far as capacity needs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# Our name: what the frameworks call it. The value follows `name=` or `'name': `.
NAMES = {
    "model": ("model_path", "model", "model_tag"),
    "tp_size": ("tp_size", "tensor_parallel_size"),
    "pp_size": ("pp_size", "pipeline_parallel_size"),
    "dp_size": ("dp_size", "data_parallel_size"),
    "ep_size": ("ep_size", "expert_parallel_size"),
    "dp_attention": ("enable_dp_attention",),
    "memory_fraction": ("mem_fraction_static", "gpu_memory_utilization", "free_gpu_memory_fraction"),
    "kv_dtype": ("kv_cache_dtype",),
    "dtype": ("dtype",),
    "page_size": ("page_size", "block_size", "tokens_per_block"),
    "max_total_tokens": ("max_total_tokens",),
    "max_running_requests": ("max_running_requests", "max_num_seqs", "max_batch_size"),
    "context_len": ("context_length", "max_seq_len", "max_model_len"),
    "chunked_prefill_size": ("chunked_prefill_size", "max_num_batched_tokens", "max_num_tokens"),
    "prefix_cache_off": ("disable_radix_cache",),
    "prefix_cache_on": ("enable_prefix_caching",),
    "window_ratio": ("swa_full_tokens_ratio",),
    "graph_batch": ("cuda_graph_max_bs",),
    "device": ("device",),
    "eager": ("enforce_eager", "disable_cuda_graph"),
}
_VALUE = r"""(?:'([^']*)'|"([^"]*)"|([^\s,;(){}\[\]]+))"""
_PATTERNS = {
    ours: [re.compile(rf"""(?<![\w.])['"]?{theirs}['"]?(?:=|: ){_VALUE}""") for theirs in names]
    for ours, names in NAMES.items()
}
_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?(?:e-?\d{1,2})?")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that the log states; ``line`` is where."""

    value: Any
    line: int


def parse(text: str, line: int) -> dict[str, Setting]:
    """Settings in a line that echoes arguments; those it does not mention are absent, those that are None too."""
    found = {}
    for ours, patterns in _PATTERNS.items():
        match = next((match for pattern in patterns if (match := pattern.search(text))), None)
        value = None if match is None else _value(next(group for group in match.groups() if group is not None))
        if value is not None:
            found[ours] = Setting(value, line)
    return found


def _value(text: str) -> Any:
    if text in ("None", "null"):
        return None
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text or "e" in text else int(text)
    return text.removeprefix("torch.")
