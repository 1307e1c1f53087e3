"""What a Hugging Face config.json says about layers: how many, of which types, and the architecture in a few words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMPRESSED = {0: "FULL_ATTN", 4: "C4_LIGHT", 128: "C128_HEAVY"}
LAYER_TYPES = {
    "full_attention": "FULL_ATTN",
    "sliding_attention": "SWA",
    "linear_attention": "LINEAR",
    "attention": "FULL_ATTN",
    "mamba": "MAMBA",
}
COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")
PATTERN = {"M": "MAMBA", "*": "FULL_ATTN", "-": "MLP", "E": "MOE"}


class BadConfig(ValueError):
    """A config.json that contradicts itself or is none; the text says what and where."""


@dataclass(frozen=True, slots=True)
class Model:
    """``layers`` is None when the configuration does not say; ``types`` holds one label for each layer, or nothing."""

    path: str | None = None
    layers: int | None = None
    types: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Model:
    """The model of a config.json.

    Raises:
        BadConfig: not a JSON object, or its lists and its number of layers disagree.
        OSError: the file cannot be read.
    """
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise BadConfig(f"{path}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise BadConfig(f"{path}: expected a JSON object as Hugging Face writes config.json")
    try:
        return of(config, str(path))
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from None


def of(config: Mapping[str, Any], path: str | None = None) -> Model:
    """The model of a configuration; text models inside multimodal ones are found.

    Raises:
        BadConfig: its lists and its number of layers disagree.
    """
    inner = config.get("text_config") or config.get("llm_config") or config
    layers = next((inner[key] for key in COUNTS if _count(inner.get(key))), None)
    return Model(path, layers, layer_types(inner, layers), inner, _summary(inner, layers))


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def compress_ratios(config: Mapping[str, Any], layers: int | None) -> list[int]:
    """The ratio of every layer; those of the trailing next-token-prediction layers are left out.

    Raises:
        BadConfig: their number fits neither.
    """
    ratios = list(config.get("compress_ratios") or [])
    extra = config.get("num_nextn_predict_layers") or 0
    if not ratios or layers is None or len(ratios) == layers:
        return ratios
    if len(ratios) == layers + extra:
        return ratios[:layers]
    raise BadConfig(f"compress_ratios has {len(ratios)} entries for {layers} layers and {extra} more that predict")


def layer_types(config: Mapping[str, Any], layers: int | None) -> tuple[str, ...]:
    """One label for each layer, as far as the configuration tells them apart; nothing when it does not.

    Raises:
        BadConfig: a list of types has another length than there are layers.
    """
    ratios = compress_ratios(config, layers)
    if ratios:
        hashed = len(ratios) - (config.get("num_hash_layers") or 0)
        return tuple("HASH" if at >= hashed else COMPRESSED.get(ratio, f"CR{ratio}") for at, ratio in enumerate(ratios))
    kinds = _attention(config, layers)
    if kinds and layers is not None and len(kinds) != layers:
        raise BadConfig(f"layer types are given for {len(kinds)} layers, but num_hidden_layers is {layers}")
    return _with_experts(config, kinds, layers)


def _attention(config: Mapping[str, Any], layers: int | None) -> list[str]:
    listed = config.get("layer_types") or config.get("layers_block_type") or ()
    if listed:
        return [LAYER_TYPES.get(kind, str(kind).upper()) for kind in listed]
    every = config.get("full_attention_interval")
    if every and layers and config.get("linear_num_value_heads"):
        return ["LINEAR" if (at + 1) % every else "FULL_ATTN" for at in range(layers)]
    return [PATTERN.get(kind, kind) for kind in config.get("hybrid_override_pattern") or ""]


def _with_experts(config: Mapping[str, Any], kinds: list[str], layers: int | None) -> tuple[str, ...]:
    """First dense layers of a model of experts are told apart."""
    dense = config.get("first_k_dense_replace") or 0
    if not dense or layers is None:
        return tuple(kinds)
    ffn = ["DENSE" if at < dense else "MOE" for at in range(layers)]
    return tuple(f"{kind}+{part}" for kind, part in zip(kinds, ffn, strict=True)) if kinds else tuple(ffn)


SHOWN = {
    "model": "model_type",
    "hidden size": "hidden_size",
    "heads": "num_attention_heads",
    "KV heads": "num_key_value_heads",
    "head dim": "head_dim",
    "intermediate": "intermediate_size",
    "vocabulary": "vocab_size",
    "Q LoRA rank": "q_lora_rank",
    "KV LoRA rank": "kv_lora_rank",
    "expert width": "moe_intermediate_size",
    "experts per token": "num_experts_per_tok",
    "shared experts": "n_shared_experts",
    "sliding window": "sliding_window",
    "indexer heads": "index_n_heads",
    "indexer top-k": "index_topk",
}


def _summary(config: Mapping[str, Any], layers: int | None) -> dict[str, Any]:
    found = {"layers": layers} | {shown: config.get(key) for shown, key in SHOWN.items()}
    experts = next((config[key] for key in EXPERTS if config.get(key)), None)
    types = layer_types(config, layers)
    found |= {"experts": experts, "layer types": dict(Counter(types)) or None}
    return {key: value for key, value in found.items() if value is not None}
