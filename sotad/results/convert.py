"""Results of other load generators as rows: what ``vllm bench serve --save-result`` and ``sglang.bench_serving
--output-file`` write. What such a file does not tell stays None and is listed in ``normalization.notes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sotad.benchmark.metrics import percentile

JSON = dict[str, Any]
Convertor = Callable[[Mapping[str, Any], Path, int, str | None], JSON]

VLLM, SGLANG = "vllm bench serve", "sglang.bench_serving"
MISSING = {
    "SLA": "sla",
    "GPU model": "gpu_model",
    "GPU count": "gpu_count",
    "framework version": "framework_version",
    "server command": "server_command",
    "workload digest": "digest",
    "sampling parameters": "sampling",
}


def origin(found: Mapping[str, Any]) -> Convertor | None:
    """The convertor for a JSON object, or None when it is none of these results."""
    if "candidate_id" in found or not {"duration", "completed"} <= found.keys():
        return None
    if "endpoint_type" in found or "model_id" in found:
        return from_vllm
    return from_sglang if "dataset_name" in found or "total_throughput" in found else None


def from_vllm(found: Mapping[str, Any], path: Path, line: int, framework: str | None) -> JSON:
    """A row of a ``vllm bench serve`` result.

    The file names its client, not the server: the framework is what the user says, else the file's ``label``
    or ``framework`` (``--metadata framework=NAME``), else `vllm` for the backend of that name.

    Raises:
        ValueError: nobody names the framework.
    """
    name = framework or found.get("framework") or found.get("label") or _own_backend(found, "vllm")
    sent = found.get("num_prompts")
    lengths = {
        "input": _per_request(found, "input_lens", "total_input_tokens"),
        "output": _per_request(found, "output_lens", "total_output_tokens"),
    }
    e2e = _of_seconds(found.get("latencies"), found.get("completed"))
    metrics = {
        **_rates(found, "output_throughput", "total_token_throughput"),
        **_latencies(found, {"ttft_ms": "ttft_ms", "tpot_ms": "tpot_ms", "e2e_ms": "e2el_ms"}),
        "success_rate": _share(found.get("completed"), sent),
    }
    metrics |= {f"{level}_e2e_ms": value for level, value in e2e.items() if metrics[f"{level}_e2e_ms"] is None}
    known = {key: found.get(key) for key in ("gpu_model", "gpu_count", "framework_version", "server_command")}
    workload = _workload(found, lengths, sent, found.get("dataset_name"))
    return _row(_needed(name, VLLM, path), path, line, VLLM, found.get("model_id"), workload, metrics, known)


def from_sglang(found: Mapping[str, Any], path: Path, line: int, framework: str | None) -> JSON:
    """A row of a ``sglang.bench_serving`` result; its ``server_info`` tells the server's version and settings.

    Raises:
        ValueError: nobody names the framework, and the server was not SGLang.
    """
    info = found.get("server_info")
    info = info if isinstance(info, Mapping) else {}
    name = framework or ("sglang" if info else _own_backend(found, "sglang"))
    errors = found.get("errors")
    sent = len(errors) if isinstance(errors, list) else None
    lengths = {
        "input": found.get("random_input_len") or _per_request(found, "input_lens", "total_input_tokens"),
        "output": found.get("random_output_len") or _per_request(found, "output_lens", "total_output_tokens"),
    }
    metrics = {
        **_rates(found, "output_throughput", "total_throughput"),
        **_latencies(found, {"ttft_ms": "ttft_ms", "tpot_ms": "tpot_ms", "e2e_ms": "e2e_latency_ms"}),
        "success_rate": _share(errors.count("") if isinstance(errors, list) else None, sent),
    }
    known = {"framework_version": info.get("version"), "gpu_count": _gpus(info)}
    model = info.get("served_model_name") or info.get("model_path")
    workload = _workload(found, lengths, sent or found.get("completed"), found.get("dataset_name"))
    row = _row(_needed(name, SGLANG, path), path, line, SGLANG, model, workload, metrics, known)
    return row | _settings(info, found)


def _own_backend(found: Mapping[str, Any], own: str) -> str | None:
    """``--backend vllm`` is only used for vLLM; ``openai`` may be any server."""
    return own if found.get("backend") == own else None


def _needed(name: Any, client: str, path: Path) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a result of {client}, which does not say what served: name it, as in vllm={path}")
    return name


def _gpus(info: Mapping[str, Any]) -> int | None:
    if str(info.get("device", "cuda")) == "cpu":
        return 0
    tensor, pipeline = info.get("tp_size"), info.get("pp_size")
    return tensor * pipeline if isinstance(tensor, int) and isinstance(pipeline, int) else None


def _settings(info: Mapping[str, Any], found: Mapping[str, Any]) -> JSON:
    """Comparison conditions as SGLang's server reported them; nothing else of its report is taken over."""
    if not info:
        return {}
    algorithm = info.get("speculative_algorithm")
    return {
        "conditions": {
            "dtype": info.get("dtype"),
            "kv_cache_dtype": info.get("kv_cache_dtype"),
            "quantization": info.get("quantization") or "none",
            "prefix_cache": not info["disable_radix_cache"] if "disable_radix_cache" in info else None,
            "tensor_parallel": info.get("tp_size"),
            "pipeline_parallel": info.get("pp_size"),
            "max_context": info.get("context_length"),
        },
        "spec_decode": {
            "enabled": algorithm is not None,
            "algorithm": algorithm,
            "num_steps": info.get("speculative_num_steps"),
            "num_draft_tokens": info.get("speculative_num_draft_tokens"),
            "mean_accept_length": found.get("accept_length"),
        },
    }


def _rates(found: Mapping[str, Any], output: str, total: str) -> JSON:
    return {
        "request_throughput": found.get("request_throughput"),
        "output_token_throughput": found.get(output),
        "total_token_throughput": found.get(total),
    }


def _latencies(found: Mapping[str, Any], names: Mapping[str, str]) -> JSON:
    """Their median is our p50. A client that had no success writes 0: that is not a latency."""
    measured = bool(found.get("completed"))
    levels = {"p50": "median", "mean": "mean", "p99": "p99"}
    return {
        f"{ours}_{name}": found.get(f"{theirs}_{other}") if measured else None
        for name, other in names.items()
        for ours, theirs in levels.items()
    }


def _of_seconds(values: object, completed: Any) -> dict[str, float | None]:
    """p50, mean and p99 in ms of a list of seconds; nothing unless it has one for each completed request."""
    if not isinstance(values, list) or not values or len(values) != completed:
        return {}
    if not all(isinstance(value, float) for value in values):
        return {}
    ms = [1000 * value for value in values]
    return {"p50": percentile(ms, 50), "mean": sum(ms) / len(ms), "p99": percentile(ms, 99)}


def _workload(found: Mapping[str, Any], lengths: Mapping[str, Any], sent: int | None, kind: Any) -> JSON:
    rate = found.get("request_rate")
    rate = None if rate in ("inf", float("inf")) else rate
    limit = found.get("max_concurrency")
    kind = "random" if isinstance(kind, str) and kind.startswith("random") else kind
    told = [f"in{lengths['input']}" if lengths["input"] else "", f"out{lengths['output']}" if lengths["output"] else ""]
    told += [f"n{sent}" if sent else ""]
    p50 = {
        f"{side}_len_p{percent}": percentile(sorted(found[f"{side}_lens"]), percent)
        for side in ("input", "output")
        for percent in (50, 95)
        if _numbers(found.get(f"{side}_lens"))
    }
    return {
        "kind": kind,
        "scenario": "-".join(part for part in told if part) or "default",
        "input_len": lengths["input"],
        "output_len": lengths["output"],
        **p50,
        "num_prompts": sent,
        "request_rate": rate,
        "max_concurrency": limit,
        "endpoint": found.get("endpoint"),
    }


def _numbers(values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, int) for value in values)


def _per_request(found: Mapping[str, Any], listed: str, total: str) -> int | None:
    """Tokens per request, rounded: the mean of the list, else the total over the completed requests."""
    values: Sequence[int] = found[listed] if _numbers(found.get(listed)) else []
    if values:
        return round(sum(values) / len(values))
    tokens, completed = found.get(total), found.get("completed")
    return round(tokens / completed) if tokens and completed else None


def _share(part: Any, whole: Any) -> float | None:
    return part / whole if isinstance(part, int) and isinstance(whole, int) and whole else None


def _row(
    framework: str,
    path: Path,
    line: int,
    client: str,
    model: Any,
    workload: JSON,
    metrics: JSON,
    known: Mapping[str, Any],
) -> JSON:
    ran = bool(metrics["request_throughput"])
    absent = [what for what, key in MISSING.items() if known.get(key) is None]
    absent += [name for name in ("success_rate", "p50_e2e_ms") if metrics[name] is None]
    return {
        "framework": framework,
        "framework_version": known.get("framework_version"),
        "candidate_id": path.stem if line == 1 else f"{path.stem}:{line}",
        "model": model,
        "status": "ok" if ran else "failed",
        "failure_reason": None if ran else "no request succeeded",
        "hardware": {key: known.get(key) for key in ("gpu_model", "gpu_count")},
        "workload": {**workload, "client": client},
        "metrics": metrics,
        "normalization": {"notes": f"converted from a result of {client}; not in it: {', '.join(absent)}"},
        "server_command": known.get("server_command"),
        "artifacts": {"raw_result": str(path)},
    }
