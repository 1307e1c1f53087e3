"""Bytes for a token and for a request from a model's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sotad.capacity.errors import CapacityError
from sotad.capacity.kv import dtype_bytes, layout, read_config

GQA = {
    "num_hidden_layers": 32,
    "num_attention_heads": 64,
    "hidden_size": 8192,
    "head_dim": 128,
    "torch_dtype": "bfloat16",
}
MLA = {
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("config", "tp", "expected", "replication"),
    [
        (GQA | {"num_key_value_heads": 8}, 8, 16384, 1),
        (GQA | {"num_key_value_heads": 4}, 8, 16384, 2),
        (GQA | {"num_key_value_heads": 1, "head_dim": 512}, 8, 65536, 8),
        (GQA | {"num_key_value_heads": 8, "num_hidden_layers": 36}, 2, 73728, 1),
        (MLA, 8, 70272, 1),
        (MLA, 1, 70272, 1),
    ],
)
def test_bytes_for_a_token(config: dict[str, Any], tp: int, expected: int, replication: float) -> None:
    """KV heads split over the ranks and repeat when there are fewer of them; compressed ones are on every rank."""
    found = layout(config, tp, 1, "auto")
    assert (found.bytes_per_token, found.replication) == (expected, replication)


def test_worked_example_of_tokens() -> None:
    """97.81 GiB hold 1,424,461 tokens of that model, 231 requests of 6144."""
    each = layout(GQA | {"num_key_value_heads": 8, "num_hidden_layers": 36}, 2, 1, "bfloat16").bytes_per_token
    tokens = int(97.81 * 2**30 // (each or 1))
    assert (tokens, tokens // 6144) == (1424461, 231)


@pytest.mark.parametrize(
    ("more", "layers"),
    [
        ({}, (48, 0, 0)),
        ({"layer_types": ["sliding_attention", "full_attention"] * 24, "sliding_window": 128}, (24, 24, 0)),
        ({"layer_types": ["linear_attention"] * 36 + ["full_attention"] * 12}, (12, 0, 36)),
        ({"full_attention_interval": 4, "linear_num_value_heads": 32}, (12, 0, 36)),
        ({"hybrid_override_pattern": "M-M*-" * 2}, (2, 0, 4)),
        ({"sliding_window": 4096, "use_sliding_window": False}, (48, 0, 0)),
        ({"sliding_window": 4096}, (0, 48, 0)),
        ({"sliding_window": 1024, "sliding_window_pattern": 6}, (8, 40, 0)),
        ({"attn_layer_period": 8, "attn_layer_offset": 4}, (6, 0, 42)),
        ({"attn_type_list": [0, 0, 1] * 16}, (16, 0, 32)),
    ],
)
def test_layers_by_kind(more: dict[str, Any], layers: tuple[int, int, int]) -> None:
    """Full, sliding and linear layers in each way in which configurations say so."""
    found = layout(GQA | {"num_hidden_layers": 48, "num_key_value_heads": 8} | more, 1, 1, "auto")
    assert (found.full_layers, found.sliding_layers, found.linear_layers) == layers


def test_recurrent_state_of_a_request() -> None:
    """Gated delta net: heads * dk * dv in float32 and the convolution's window, in each linear layer."""
    config = GQA | {
        "num_hidden_layers": 48,
        "num_key_value_heads": 2,
        "full_attention_interval": 4,
        "linear_num_value_heads": 32,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }
    each = 32 * 128 * 128 * 4 + (2 * 16 * 128 + 32 * 128) * 3 * 2
    assert layout(config, 1, 1, "auto").state_bytes_per_request == 36 * each
    assert layout(config, 2, 1, "auto").state_bytes_per_request == 18 * each
    del config["linear_conv_kernel_dim"]
    assert layout(config, 1, 1, "auto").state_bytes_per_request is None


@pytest.mark.parametrize("config", [MLA | {"compress_ratios": [4, 128]}, {**MLA, "dtype": None}])
def test_unknown_layout_is_unknown(config: dict[str, Any]) -> None:
    """Compressed attention and an unknown element type give no number."""
    assert layout(config, 1, 1, "auto").bytes_per_token is None


@pytest.mark.parametrize(
    ("name", "size"),
    [("fp8_e4m3", 1), ("torch.float8_e5m2", 1), ("bfloat16", 2), ("float16", 2), ("float32", 4), ("auto", None)],
)
def test_element_sizes(name: str, size: float | None) -> None:
    """Names of element types; auto is none."""
    assert dtype_bytes(name) == size


def test_nested_and_broken_configs(tmp_path: Path) -> None:
    """A multimodal config holds the text model's; anything else is refused with what to give."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"torch_dtype": "bfloat16", "text_config": {"num_hidden_layers": 3}}))
    assert read_config(path) == {"torch_dtype": "bfloat16", "num_hidden_layers": 3}
    for broken in ("", "[]", "{}", "{"):
        path.write_text(broken)
        with pytest.raises(CapacityError, match=r"config\.json"):
            read_config(path)
    with pytest.raises(CapacityError, match="--config"):
        read_config(tmp_path / "nowhere")
