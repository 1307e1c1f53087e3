"""Lines of SGLang, and of TokenSpeed, whose memory lines descend from them. GB in them is 2**30 bytes.

Wordings: 0.4.0 to 0.5.16, on GPU, CPU and NPU; older ones lack `mem usage`, `#tokens` and the graphs' sizes.
"""

from __future__ import annotations

from sotad.capacity.rules import Part, Rule

_AVAIL = Part("avail", r"\bavail mem=", "size")
_USAGE = Part("usage", r"\bmem usage=", "size")
_TOKEN_USAGE = (
    Part("usage", r"(?<!swa )\btoken usage: ", "float"),
    Part("swa_usage", r"\bswa token usage: ", "float"),
    Part("running", "#running-req: ", "count"),
    Part("queued", "#queue-req: ", "count"),
    Part("tokens", r"#(?:full )?token: ", "count"),
)


def _rule(name: str, words: str, head: str, *parts: Part, needs: tuple[str, ...] = ()) -> Rule:
    return Rule("sglang", name, words, head, parts, needs)


RULES = (
    _rule("arguments", "server_args=", r"\bserver_args=(?:ServerArgs\(|\{)"),
    _rule("distributed", "init torch distributed end", r"\bInit torch distributed ends?\b", _USAGE),
    _rule("load_begin", "begin", r"\bLoad[ _]weights?[ _]begin\b", _AVAIL),
    _rule("load_end", "end", r"\bLoad[ _]weights?[ _]end\b", _AVAIL, _USAGE, Part("type", r"\btype=", "word")),
    _rule(
        "profiling",
        "memory profiling: ",
        r"\bMemory profiling: ",
        Part("available", r"\bavailable_\w+_memory=", "size"),
        Part("total", r"\btotal_\w+_memory=", "size"),
        Part("fraction", r"\bmem_fraction_static=", "float"),
        Part("rest", r"\brest_memory=", "size"),
    ),
    _rule(
        "sizing",
        "memory calculation: ",
        r"\bmemory calculation: ",
        Part("bytes_per_token", r"\bbytes_per_full_token=", "float"),
        Part("budget", r"\bavailable_bytes=", "size"),
        Part("tokens", r"\bfull_token=", "count"),
    ),
    _rule(
        "window_tokens",
        "sliding window memory pool",
        r"\bUse sliding window memory pool",
        Part("full", r"\bfull_layer_tokens=", "count"),
        Part("window", r"\bswa_layer_tokens=", "count"),
    ),
    _rule("kv_dtype", "using kv cache dtype", r"\bUsing KV cache dtype: ", Part("dtype", r"dtype: ", "word")),
    _rule(
        "kv_pool",
        "kv cache is allocated",
        r"\bKV Cache is allocated\b",
        Part("dtype", r"\bdtype: ", "word"),
        Part("tokens", r"#tokens: ", "count"),
        Part("k", r"\bK size: ", "size"),
        Part("v", r"\bV size: ", "size"),
        Part("kv", r"\bKV size: ", "size"),
    ),
    _rule(
        "window_pool",
        "swakvpool mem usage",
        r"\bSWAKVPool mem usage: ",
        Part("total", r"\bmem usage: ", "size"),
        Part("window", r"\bswa size: ", "count"),
        Part("full", r"\bfull size: ", "count"),
    ),
    _rule(
        "state_pool",
        "mamba cache is allocated",
        r"\bMamba Cache is allocated\b",
        Part("slots", r"\bmax_mamba_cache_size: ", "count"),
        Part("conv", r"\bconv_state size: ", "size"),
        Part("ssm", r"\bssm_state size: ", "size"),
        Part("draft_ssm", r"\bintermediate_ssm_state_cache size: ", "size"),
        Part("draft_conv", r"\bintermediate_conv_window_cache size: ", "size"),
    ),
    _rule("pool_end", "memory pool end", r"\bMemory pool end\b", _AVAIL),
    _rule("graph_begin", "graph begin|graphs begin", r"\bCapture\b[^\[\]=]{0,60}?\bgraphs? begin\b", _AVAIL),
    _rule("graph_end", "graph end|graphs end", r"\bCapture\b[^\[\]=]{0,60}?\bgraphs? end\b", _AVAIL, _USAGE),
    _rule(
        "final",
        "max_total_num_tokens=",
        r"\bmax_total_num_tokens=",
        Part("tokens", r"\bmax_total_num_tokens=", "count"),
        Part("chunked_prefill_size", r"\bchunked_prefill_size=", "count"),
        Part("max_prefill_tokens", r"\bmax_prefill_tokens=", "count"),
        Part("max_running_requests", r"\bmax_running_requests=", "count"),
        Part("context_len", r"\bcontext_len=", "count"),
        Part("avail", r"\bavailable_\w+_mem=", "size"),
        needs=("tokens",),
    ),
    _rule("ready", "server is fired up", r"\bThe server is fired up\b"),
    _rule("decode", "decode batch", r"\bDecode batch\b", *_TOKEN_USAGE, needs=("running",)),
    _rule("prefill", "prefill batch", r"\bPrefill batch\b", *_TOKEN_USAGE, needs=("running",)),
    _rule("retract", "retract requests", r"\bRetract requests\b", Part("requests", r"#retracted_reqs: ", "count")),
)
