"""Lines of vLLM: engine V0 and V1, 0.5 to 0.32, GPU and CPU. GB in the old ones is 2**30 bytes as well."""

from __future__ import annotations

from sotad.capacity.rules import Part, Rule


def _rule(name: str, words: str, head: str, *parts: Part, needs: tuple[str, ...] = ()) -> Rule:
    return Rule("vllm", name, words, head, parts, needs)


RULES = (
    _rule("arguments", "non-default args: |args: namespace(", r"\bnon-default args: |\bargs: Namespace\("),
    _rule("engine", "llm engine", r"\bInitializing an? (?:V\d )?LLM engine\b"),
    _rule(
        "load_begin",
        "starting to load model|loading model from scratch",
        r"\bStarting to load model\b|\bLoading model from scratch\b",
    ),
    _rule(
        "load_end",
        "model loading took|model weights t",
        r"\bModel loading took |\bLoading model weights took |\bmodel weights take ",
        Part("usage", r"(?:took|take) ", "size"),
        needs=("usage",),
    ),
    _rule(
        "budget",
        "total_",
        r"\btotal_\w+_memory \(",
        Part("total", r"\btotal_\w+_memory \(", "size"),
        Part("fraction", r"_utilization \(", "float"),
        Part("budget", r"\) = ", "size"),
        needs=("total",),
    ),
    _rule("non_torch", "non_torch_memory takes", r"\bnon_torch_memory takes ", Part("usage", "takes ", "size")),
    _rule(
        "activation",
        "activation peak memory takes",
        r"\bactivation peak memory takes ",
        Part("usage", "takes ", "size"),
    ),
    _rule(
        "kv_pool",
        "kv cache",
        r"\bAvailable KV cache memory: |\bmemory reserved for KV Cache is "
        r"|\breserved (?=[\d.]+ ?GiB memory for KV Cache)",
        Part("kv", r"(?:memory: | is |^reserved )", "size"),
        needs=("kv",),
    ),
    _rule(
        "cpu_kv_pool",
        "gib for kv cache",
        r"\bset \(\d[\d.]*/\d[\d.]*\) GiB for KV cache",
        Part("kv", r"\bset \(", "gib"),
        Part("total", r"\bset \(\d[\d.]*/", "gib"),
    ),
    _rule(
        "final",
        "kv cache size: ",
        r"\bKV cache size: ",
        Part("tokens", r"\bsize: ", "count", " tokens"),
        needs=("tokens",),
    ),
    _rule(
        "concurrency",
        "maximum concurrency for",
        r"\bMaximum concurrency for ",
        Part("length", r"\bconcurrency for ", "count", " tokens"),
        Part("times", r"per request: ", "float", "x"),
        needs=("length", "times"),
    ),
    _rule(
        "blocks",
        "blocks: |num_gpu_blocks is",
        r"# (?!CPU)(?:\w+ )?blocks: |\bnum_gpu_blocks is: ",
        Part("blocks", r"(?:blocks|is): ", "count"),
        needs=("blocks",),
    ),
    _rule("graph_begin", "capturing ", r"\bCapturing (?:the model for )?CUDA ?graphs?\b"),
    _rule(
        "graph_estimate",
        "estimated cuda graph memory",
        r"\bEstimated CUDA graph memory: ",
        Part("usage", "memory: ", "size"),
    ),
    _rule("graph_end", "graph capturing finished", r"\bGraph capturing finished\b", Part("usage", r"\btook ", "size")),
    _rule(
        "summary",
        "free memory on device",
        r"\bFree memory on device\b(?=.*\bActual usage is\b)",
        Part("free", r"on device[^(]*\(", "gib", r"/[\d.]+ GiB"),
        Part("total", r"on device[^(]*\([\d.]+/", "gib", " GiB"),
        Part("fraction", r"utilization is \(", "float"),
        Part("budget", r"utilization is \([\d.]+, ", "size"),
        Part("weights", r"", "size", " for weight"),
        Part("activation", r"", "size", " for peak activation"),
        Part("non_torch", r"", "size", " for non-torch"),
        Part("graph", r"", "size", " for CUDAGraph"),
        Part("kv", r"kv cache memory in use is ", "size"),
        Part("kv_fit", r"--kv-cache-memory=", "count", r"`? \([^)]*\) to fit"),
        Part("kv_full", r"--kv-cache-memory=", "count", r"`? \([^)]*\) to fully"),
    ),
    _rule(
        "no_room",
        "free memory on device",
        r"\bFree memory on device\b(?=.*\bless than desired\b)",
        Part("free", r"on device[^(]*\(", "gib", r"/[\d.]+ GiB"),
        Part("total", r"on device[^(]*\([\d.]+/", "gib", " GiB"),
        Part("fraction", r"utilization \(", "float"),
        Part("budget", r"utilization \([\d.]+, ", "size"),
    ),
    _rule(
        "window",
        "max_num_batched_tokens=",
        r"\bmax_num_batched_tokens=",
        Part("max_num_batched_tokens", "max_num_batched_tokens=", "count"),
    ),
    _rule("ready", "application startup complete", r"\bApplication startup complete\b"),
    _rule(
        "decode",
        "avg prompt throughput",
        r"\bAvg prompt throughput: ",
        Part("running", r"\bRunning: ", "count", " reqs"),
        Part("queued", r"\b(?:Waiting|Pending): ", "count", " reqs"),
        Part("percent", r"(?<!CPU )\bKV cache usage: ", "float", "%"),
        Part("cpu_percent", r"\bCPU KV cache usage: ", "float", "%"),
    ),
    _rule("retract", "is preempted by", r"\bis preempted by\b"),
)
