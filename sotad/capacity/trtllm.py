"""Lines of TensorRT-LLM's runtime and of its PyTorch backend's memory profiling; sizes have their unit."""

from __future__ import annotations

from sotad.capacity.rules import Part, Rule


def _rule(name: str, words: str, head: str, *parts: Part, needs: tuple[str, ...] = ()) -> Rule:
    return Rule("tensorrt-llm", name, words, head, parts, needs)


_SIZE = Part("usage", r": ", "size")
RULES = (
    _rule(
        "load_end",
        "memory used after loading",
        r"\bMemory used after loading model weights \(inside torch\)[^:]*",
        _SIZE,
    ),
    _rule("load_end", "memory usage when loading", r"\bMemory usage when loading weights[^:]*", _SIZE),
    _rule("non_torch", "memory used outside torch", r"\bMemory used outside torch\b[^:]*", _SIZE),
    _rule(
        "activation",
        "memory dynamically allocated",
        r"\bMemory dynamically allocated during inference \(inside torch\)[^:]*",
        _SIZE,
    ),
    _rule(
        "peak",
        "peak memory during",
        r"\bPeak memory during memory usage profiling\b",
        Part("peak", r"\bprofiling \([^)]*\): ", "size"),
        Part("rest", r"\bcalculating max tokens: ", "size"),
        Part("fraction", r"\bfraction is set ", "float"),
        Part("bytes_per_token", r"\bkv size (?:per token )?is ", "float"),
        Part("total", r"\bdevice total memory ", "size"),
        Part("temporary", r"(?:\btmp kv_mem|\btemporary kv cache memory during profiling)\s+", "size"),
    ),
    _rule(
        "kv_pool",
        "[memusagechange]",
        r"\[MemUsageChange\] Allocated (?=[^\[\]]*\bfor max tokens\b)",
        Part("kv", r"\bAllocated ", "size"),
        Part("tokens", r"\bfor max tokens[^(]*\(", "count"),
        needs=("kv", "tokens"),
    ),
    _rule(
        "page", "tokens per block", r"\btokens per block(?:: |=)", Part("page_size", r"\bper block(?:: |=)", "count")
    ),
    _rule(
        "limits",
        "max_num_requests=",
        r"\bmax_seq_len=(?=.*\bmax_num_requests=)",
        Part("context_len", r"\bmax_seq_len=", "count"),
        Part("max_running_requests", r"\bmax_num_requests=", "count"),
        Part("max_num_tokens", r"\bmax_num_tokens=", "count"),
        Part("max_batch_size", r"\bmax_batch_size=", "count"),
    ),
    _rule("ready", "engine loaded and ready", r"\bEngine loaded and ready to serve\b"),
)
