"""Why a server ran out of memory: the phase it was in, what that means, and what that framework offers against it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sotad.capacity.quantity import Quantity
from sotad.capacity.ranks import Rank
from sotad.capacity.rules import Event, by_name
from sotad.capacity.session import Session
from sotad.capacity.units import SIZE, gib, size

CAUSES = {
    "start": "less memory is free at the start than was asked for: another process, or too high a share",
    "weights": "the weights do not fit on the GPU",
    "profiling": "the trial run at the largest batch needs more than the weights leave",
    "pool": "the memory that is left after weights and reserve is no KV pool, or one too small for a request",
    "graph": "too little is left beside the pool for capturing CUDA graphs",
    "prefill": "the activations of a prefill are larger than what is left beside the pool",
    "decode": "memory grew while serving: fragmentation, a leak, a multimodal cache or log probabilities",
    "serving": "memory ran out while serving; no load line tells in which stage",
    "unknown": "the log does not tell how far the start had come",
}
# What each framework has against it, in the order in which to try.
_MORE_GPUS = {
    "sglang": "--tp-size N or --pp-size N (more GPUs), or a quantized checkpoint",
    "vllm": "--tensor-parallel-size N or --pipeline-parallel-size N, a quantized checkpoint, or --cpu-offload-gb N",
    "tensorrt-llm": "--tp_size N or --pp_size N, or a quantized checkpoint",
}
_LOWER = {
    "sglang": "lower --mem-fraction-static",
    "vllm": "lower --gpu-memory-utilization",
    "tensorrt-llm": "lower --kv_cache_free_gpu_memory_fraction",
}
_RAISE = {
    "sglang": "raise --mem-fraction-static",
    "vllm": "raise --gpu-memory-utilization",
    "tensorrt-llm": "raise --kv_cache_free_gpu_memory_fraction",
}
_SHORTER = {
    "sglang": "lower --context-length, or --kv-cache-dtype fp8_e4m3",
    "vllm": "lower --max-model-len, or --kv-cache-dtype fp8",
    "tensorrt-llm": "lower --max_seq_len, or an 8-bit KV cache",
}
_GRAPHS = {
    "sglang": "lower --cuda-graph-max-bs, or --disable-piecewise-cuda-graph where there are two captures",
    "vllm": "fewer --cuda-graph-sizes / lower --max-num-seqs, last --enforce-eager",
    "tensorrt-llm": "fewer cuda_graph_config batch sizes",
}
_CHUNK = {
    "sglang": "lower --chunked-prefill-size",
    "vllm": "lower --max-num-batched-tokens",
    "tensorrt-llm": "lower --max_num_tokens with chunked prefill on",
}
_ALLOCATOR = dict.fromkeys(
    _LOWER, "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, and watch the free memory over time"
)
_OTHERS = dict.fromkeys(_LOWER, "end other processes on the GPU (nvidia-smi)")
REMEDIES = {
    "start": (_OTHERS, _LOWER),
    "weights": (_MORE_GPUS, _OTHERS),
    "profiling": (_CHUNK, _MORE_GPUS),
    "pool": (_RAISE, _SHORTER, _MORE_GPUS),
    "graph": (_LOWER, _GRAPHS),
    "prefill": (_CHUNK, _LOWER),
    "decode": (_LOWER, _ALLOCATOR),
    "serving": (_LOWER, _CHUNK),
    "unknown": (_OTHERS, _LOWER),
}
_SAYS = (
    ("start", re.compile(r"Free memory on device .*less than desired", re.I)),
    ("graph", re.compile(r"Capture cuda graph failed|CUDA ?graph capture", re.I)),
    (
        "pool",
        re.compile(
            r"Not enough memory\. Please try to increase|No available memory for the cache blocks"
            r"|larger than the (?:available KV cache memory|maximum number of tokens that can be stored)",
            re.I,
        ),
    ),
)
_FACTS = {
    "tried": re.compile(rf"Tried to allocate {SIZE}", re.I),
    "capacity": re.compile(rf"total capacity of {SIZE}", re.I),
    "free": re.compile(rf"of which {SIZE} is free", re.I),
    "needed": re.compile(rf"{SIZE} KV cache is needed", re.I),
    "available": re.compile(rf"available KV cache memory \({SIZE}\)", re.I),
}
_LENGTH = re.compile(r"estimated maximum model length is ([\d,]+)", re.I)
MARGIN = 0.02  # added to the smallest usable fraction


def explain(session: Session, available: Quantity, whole: Quantity) -> dict[str, Any] | None:
    """The first failure for want of memory, or None. The quantities: free after and before the weights (SGLang)."""
    if not session.out_of_memory:
        return None
    number, text, before, rank = session.out_of_memory[0]
    lines = [text for _, text, *_ in session.out_of_memory]
    told = "\n".join(lines)
    phase = _phase(session, told, before, rank, number)
    framework = "sglang" if session.framework in ("tokenspeed", None) else session.framework
    facts = {name: size(found[1]) for name, pattern in _FACTS.items() if (found := pattern.search(told))}
    longest = _LENGTH.search(told)
    return {
        "line": number,
        "text": text.strip(),
        "lines": [each[0] for each in session.out_of_memory[:20]],
        "rank": str(rank),
        "phase": phase,
        "cause": CAUSES[phase],
        "remedies": [flags[str(framework)] for flags in REMEDIES[phase]],
        **{f"{name}_gib": gib(value) for name, value in facts.items()},
        "longest_model_length": int(longest[1].replace(",", "")) if longest else None,
        "smallest_fraction": _fraction(available, whole) if phase == "pool" else None,
        "server_went_on": any(event.name == "ready" and event.line > number for event in session.events),
    }


def _phase(session: Session, told: str, before: int, rank: Rank, number: int) -> str:
    for phase, pattern in _SAYS:
        if pattern.search(told):
            return phase
    events = session.events[:before]
    mine = [event for event in events if event.rank.key == rank.key]
    return _reached(session.framework, mine or events, [each for each in session.traffic if each.line < number])


def _reached(framework: str | None, events: Sequence[Event], traffic: Sequence[Event]) -> str:
    """The phase that the last milestones leave open."""
    at = by_name(events)
    if traffic:
        return "prefill" if traffic[-1].name == "prefill" else "decode" if framework != "vllm" else "serving"
    own_ready = [event for event in at["ready"] if event.framework == framework]
    if own_ready:
        return "serving"
    if len(at["load_end"]) < len(at["load_begin"]):
        return "weights"
    if framework == "vllm":
        return "graph" if at["kv_pool"] or at["final"] else "profiling" if at["load_end"] else "unknown"
    if at["final"]:
        return "serving"
    if len(at["graph_begin"]) > len(at["graph_end"]) or at["pool_end"]:
        return "graph"
    return "pool" if at["load_end"] or at["kv_pool"] else "unknown"


def _fraction(available: Quantity, whole: Quantity) -> dict[str, Any] | None:
    """The smallest mem_fraction_static that leaves a pool: rest = available - total * (1 - f) > 0."""
    if available.value is None or not whole.value:
        return None
    least = 1 - available.value / whole.value
    formula = f"1 - {gib(available.value)} / {gib(whole.value)} = {least:.3f}"
    return {"value": round(least, 3), "with_margin": round(least + MARGIN, 3), "formula": formula}
