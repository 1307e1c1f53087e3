"""Bytes that a token's keys and values, and a request's recurrent state, take on one GPU, from a model's config.json.

GQA: 2 * layers * max(1, kv_heads / tp) * head_dim * bytes; with fewer KV heads than ranks each head is held by several.
MLA: layers * (kv_lora_rank + qk_rope_head_dim) * bytes, held by every rank.
Sliding layers hold min(window, length) tokens; linear layers hold a state for each request and nothing for a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sotad.capacity.errors import CapacityError

# Part of the name and bytes of an element; fp4 with its scale of one byte for 16 elements. Narrow ones come first.
_DTYPES = (
    *((name, 0.5625) for name in ("fp4", "float4")),
    ("int4", 0.5),
    *((name, 1.0) for name in ("fp8", "float8", "int8", "e4m3", "e5m2")),
    *((name, 2.0) for name in ("bfloat16", "float16", "half", "bf16", "fp16")),
    *((name, 4.0) for name in ("float32", "fp32", "float")),
)
_SLIDING = ("sliding", "chunked", "local")
_LINEAR = ("linear", "mamba", "gdn", "kda", "recurrent", "conv")
STATE_BYTES = 4  # engines keep the recurrent state in float32 unless told otherwise


@dataclass(frozen=True, slots=True)
class Layout:
    """What a config says about the cache, for one GPU. Bytes are None where the formula is not known."""

    kind: str
    full_layers: int
    sliding_layers: int
    linear_layers: int
    window: int | None
    bytes_per_token: float | None
    sliding_bytes_per_token: float
    state_bytes_per_request: int | None
    kv_heads: int | None
    replication: float
    formula: str

    def as_json(self) -> dict[str, Any]:
        """The fields as they are."""
        return asdict(self)


def read_config(path: Path) -> dict[str, Any]:
    """The text model's part of a config.json.

    Raises:
        CapacityError: it cannot be read, or is no model's configuration.
    """
    try:
        whole = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CapacityError(f"{path}: {error.strerror or error}; leave out --config or name a file") from None
    except (ValueError, RecursionError) as error:
        raise CapacityError(f"{path}: not JSON ({error}); give the model's config.json") from None
    config = text_config(whole) if isinstance(whole, dict) else {}
    if not isinstance(config.get("num_hidden_layers", config.get("n_layer")), int):
        raise CapacityError(f"{path}: no num_hidden_layers in it; give the model's config.json from Hugging Face")
    return config


def text_config(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Multimodal configurations nest the language model's."""
    for name in ("text_config", "llm_config", "language_config", "thinker_config"):
        nested = whole.get(name)
        if isinstance(nested, dict) and nested:
            return {**{key: whole[key] for key in ("torch_dtype", "dtype") if key in whole}, **text_config(nested)}
    return dict(whole)


def dtype_bytes(name: object) -> float | None:
    """Bytes of an element; None for what is not known, as ``auto``."""
    text = str(name).lower() if name else ""
    return next((size for key, size in _DTYPES if key in text), None)


def layout(config: Mapping[str, Any], tp: int, pp: int, kv_dtype: object) -> Layout:
    """The cache on one GPU; ``tp`` is the tensor parallelism of attention. ``auto`` means the model's own type."""
    width = dtype_bytes(kv_dtype) or dtype_bytes(config.get("torch_dtype") or config.get("dtype"))
    full, sliding, linear = _layers(config)
    stage = max(1, pp)
    shared: dict[str, Any] = {
        "full_layers": full,
        "sliding_layers": sliding,
        "linear_layers": linear,
        "window": _window(config) if sliding else None,
        "state_bytes_per_request": _state(config, linear, tp, stage, width),
    }
    if config.get("compress_ratios") or width is None:
        reason = "compressed attention: see bytes_per_full_token in the log" if width else "element type unknown"
        return Layout("unknown", **shared, **_none(reason))
    if config.get("kv_lora_rank"):
        return _mla(config, shared, full + sliding, stage, width)
    return _gqa(config, shared, max(1, tp), stage, width)


def _none(reason: str) -> dict[str, Any]:
    return {
        "bytes_per_token": None,
        "sliding_bytes_per_token": 0.0,
        "kv_heads": None,
        "replication": 1.0,
        "formula": reason,
    }


def _mla(config: Mapping[str, Any], shared: dict[str, Any], layers: int, stage: int, width: float) -> Layout:
    rank, rope = int(config["kv_lora_rank"]), int(config.get("qk_rope_head_dim") or 0)
    shared = {**shared, "full_layers": layers, "sliding_layers": 0, "window": None}
    formula = f"{layers} layers * ({rank} + {rope}) * {width:g} bytes" + (f" / {stage} stages" if stage > 1 else "")
    if width < 2:
        formula += ", without the scales of the 8-bit layout"
    return Layout(
        "mla", **shared, **(_none("") | {"bytes_per_token": layers * (rank + rope) * width / stage, "formula": formula})
    )


def _gqa(config: Mapping[str, Any], shared: dict[str, Any], tp: int, stage: int, width: float) -> Layout:
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    size = int(config.get("head_dim") or int(config.get("hidden_size") or config.get("n_embd") or 0) // heads)
    values = int(config.get("v_head_dim") or size)
    wide = int(config.get("num_global_key_value_heads") or kv_heads), int(config.get("global_head_dim") or size)
    near = int(config.get("swa_num_key_value_heads") or kv_heads), int(config.get("swa_head_dim") or size)
    spread = 2 * wide[1] if config.get("global_head_dim") else size + values
    each = _held(wide[0], tp) * spread * width
    near_each = _held(near[0], tp) * (near[1] + int(config.get("swa_v_head_dim") or min(values, near[1]))) * width
    formula = f"{shared['full_layers']} layers * {_held(wide[0], tp)} KV heads * {spread} (K and V) * {width:g} bytes"
    return Layout(
        "mha" if kv_heads == heads else "mqa" if kv_heads == 1 else "gqa",
        **shared,
        bytes_per_token=shared["full_layers"] * each / stage,
        sliding_bytes_per_token=shared["sliding_layers"] * near_each / stage,
        kv_heads=kv_heads,
        replication=max(1.0, tp / kv_heads),
        formula=formula + (f" / {stage} stages" if stage > 1 else ""),
    )


def _held(kv_heads: int, tp: int) -> int:
    return max(1, -(-kv_heads // tp))


def _window(config: Mapping[str, Any]) -> int | None:
    found = config.get("sliding_window") or config.get("sliding_window_size") or config.get("attention_chunk_size")
    return int(found) if isinstance(found, int) else None


def _layers(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Layers with full, sliding and linear attention; feed-forward-only layers are none of them."""
    total = int(config.get("num_hidden_layers") or config.get("n_layer") or 0)
    if kinds := config.get("layer_types") or config.get("layers_block_type"):
        return _kinds([str(kind).lower() for kind in kinds])
    if pattern := config.get("hybrid_override_pattern"):
        return pattern.count("*"), 0, pattern.count("M")
    if kinds := config.get("attn_type_list"):
        return sum(kind == 1 for kind in kinds), 0, sum(kind != 1 for kind in kinds)
    if isinstance(mixed := config.get("linear_attn_config"), dict) and mixed.get("full_attn_layers"):
        full = len(mixed["full_attn_layers"])
        return full, 0, total - full
    if (every := config.get("full_attention_interval")) and "linear_num_value_heads" in config:
        return total // int(every), 0, total - total // int(every)
    if period := config.get("attn_layer_period"):
        full = len(range(int(config.get("attn_layer_offset") or 0), total, int(period)))
        return full, 0, total - full
    if _window(config) is None or config.get("use_sliding_window") is False:
        return total, 0, 0
    if every := config.get("sliding_window_pattern"):
        return total // int(every), total - total // int(every), 0
    return 0, total, 0


def _kinds(kinds: list[str]) -> tuple[int, int, int]:
    sorts = [_kind(kind) for kind in kinds]
    return sorts.count("full"), sorts.count("sliding"), sorts.count("linear")


def _kind(kind: str) -> str:
    if any(word in kind for word in _SLIDING):
        return "sliding"
    if any(word in kind for word in _LINEAR):
        return "linear"
    return "full" if "attention" in kind or kind in ("full", "global", "hybrid") else "none"


def _state(config: Mapping[str, Any], layers: int, tp: int, stage: int, width: float | None) -> int | None:
    """Recurrent state plus convolution window; None when there is no linear layer or its sizes are not known."""
    if not layers or width is None:
        return None

    def number(*names: str) -> int:
        return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)

    if heads := number("linear_num_value_heads"):
        keys, values = number("linear_key_head_dim"), number("linear_value_head_dim")
        state = heads * keys * values
        channels = 2 * number("linear_num_key_heads") * keys + heads * values
        kernel = number("linear_conv_kernel_dim")
    else:
        heads, values = number("mamba_num_heads", "mamba_n_heads"), number("mamba_head_dim", "mamba_d_head")
        size = number("ssm_state_size", "mamba_d_state", "mamba_state_size")
        state = heads * values * size
        channels = heads * values + 2 * number("n_groups", "mamba_n_groups") * size
        kernel = number("conv_kernel", "mamba_d_conv")
    if not state or not kernel:
        return None
    return round(layers * (state * STATE_BYTES + channels * (kernel - 1) * width) / max(1, tp) / stage)
