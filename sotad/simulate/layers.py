"""The layers that a config's keys describe: which mixer and which MLP each of them has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sotad.simulate.architecture import Attention, DeltaNet, Dense, Indexer, Layer, Mamba2, Mixer, Mla, Mlp, Moe
from sotad.simulate.errors import SimulateError
from sotad.simulate.keys import Keys

Traits = Mapping[str, Any]
KINDS = {
    **dict.fromkeys(("full_attention", "attention", "full", "deepseek_sparse_attention"), "full"),
    **dict.fromkeys(("sliding_attention", "sliding", "sliding_window", "local_attention"), "window"),
    **dict.fromkeys(("chunked_attention",), "chunk"),
    **dict.fromkeys(("linear_attention", "gated_deltanet", "kda"), "delta"),
    **dict.fromkeys(("mamba", "mamba2"), "mamba"),
}
MOST = 10_000  # layers; more is a mistake, and each of them is kept
SYMBOLS = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe"}


def layers_of(keys: Keys, traits: Traits) -> tuple[Layer, ...]:
    """The layers in order.

    Raises:
        SimulateError: a number is missing or wrong, or a layer is of a kind that has no template.
    """
    pattern = keys.get("hybrid_override_pattern")
    if pattern is not None:
        return tuple(_by_symbol(keys, traits, str(pattern)))
    count = keys.width("num_hidden_layers")
    if count > MOST:
        raise SimulateError(f"num_hidden_layers is {count}, above {MOST}: correct the config.json")
    norms = int(traits.get("norms", 2))
    kinds = _kinds(keys, traits, count)
    mixers = {kind: _mixer(kind, keys, traits) for kind in dict.fromkeys(kinds)}
    mlps = {sparse: _mlp(sparse, keys, traits) for sparse in dict.fromkeys(_sparse(keys, count))}
    chosen = zip(kinds, _sparse(keys, count), strict=True)
    return tuple(Layer(mixers[kind], mlps[sparse], norms) for kind, sparse in chosen)


def _by_symbol(keys: Keys, traits: Traits, pattern: str) -> list[Layer]:
    """Nemotron-H: each layer is one block, named by a letter of the pattern."""
    if odd := sorted(set(pattern) - set(SYMBOLS)):
        raise SimulateError(f"hybrid_override_pattern has {', '.join(odd)}: only {' '.join(SYMBOLS)} are known")
    if len(pattern) != keys.number("num_hidden_layers", default=len(pattern)):
        raise SimulateError(f"hybrid_override_pattern has {len(pattern)} letters, num_hidden_layers says otherwise")
    blocks: dict[str, Layer] = {}
    for symbol in dict.fromkeys(pattern):
        kind = SYMBOLS[symbol]
        mixer = _mixer(kind, keys, traits) if kind in ("mamba", "full") else None
        mlp = _mlp(kind == "moe", keys, traits) if kind in ("mlp", "moe") else None
        blocks[symbol] = Layer(mixer, mlp, int(traits.get("norms", 1)))
    return [blocks[symbol] for symbol in pattern]


def _kinds(keys: Keys, traits: Traits, count: int) -> list[str]:
    """The kind of mixer of each layer."""
    if (listed := keys.items("layer_types", "layers_block_type", length=count)) is not None:
        if odd := sorted({str(kind) for kind in listed} - set(KINDS)):
            raise SimulateError(f"layer_types has {', '.join(odd)}: no template covers that; known: {', '.join(KINDS)}")
        return [KINDS[str(kind)] for kind in listed]
    if isinstance(linear := keys.get("linear_attn_config"), Mapping):
        full = {int(number) for number in linear.get("full_attn_layers") or []}
        return ["full" if number in full else "delta" for number in range(1, count + 1)]
    if traits.get("mixer") == "delta" or keys.get("full_attention_interval"):
        every = keys.width("full_attention_interval", default=4)
        return ["full" if number % every == 0 else "delta" for number in range(1, count + 1)]
    if traits.get("mixer") == "mamba":
        full = {int(number) for number in keys.items("attn_layer_indices") or []}
        return ["full" if number in full else "mamba" for number in range(count)]
    return _windows(keys, traits, count)


def _windows(keys: Keys, traits: Traits, count: int) -> list[str]:
    """Which layers see a window only."""
    if keys.get("attention_chunk_size"):
        roped = keys.items("no_rope_layers") or [number % 4 != 0 for number in range(1, count + 1)]
        return ["chunk" if flag else "full" for flag in roped]
    listed = keys.items("attn_type_list", length=count)
    if listed is not None and any(each != 1 for each in listed):
        raise SimulateError("attn_type_list has layers of lightning attention: no template covers them")
    rule = traits.get("window", "none")
    if not keys.get("sliding_window") or (rule == "flag" and not keys.flag("use_sliding_window")):
        return ["full"] * count
    if rule == "pattern":
        every = keys.width("sliding_window_pattern", "_sliding_window_pattern", default=int(traits["pattern"]))
        return ["full" if number % every == 0 else "window" for number in range(1, count + 1)]
    first = keys.number("max_window_layers", default=count) if rule == "flag" else 0
    return ["window" if rule != "none" and number >= first else "full" for number in range(count)]


def _mixer(kind: str, keys: Keys, traits: Traits) -> Mixer:
    if kind == "delta":
        return _delta(keys)
    if kind == "mamba":
        return _mamba(keys)
    if keys.get("kv_lora_rank"):
        return _mla(keys)
    return _attention(kind, keys, traits)


def _attention(kind: str, keys: Keys, traits: Traits) -> Attention:
    heads = keys.width("num_attention_heads")
    shared = keys.width("num_key_value_heads", "num_kv_heads", default=1 if keys.flag("multi_query") else heads)
    if heads % shared:
        raise SimulateError(f"{heads} attention heads cannot share {shared} key/value heads: correct the config")
    dim = keys.number("attention_head_dim", "head_dim", default=keys.width("hidden_size") // heads, least=1)
    biased = keys.flag("attention_bias", "qkv_bias", default=bool(traits.get("qkv_bias")))
    return Attention(
        heads,
        shared,
        dim,
        keys.number("v_head_dim", default=dim, least=1),
        0 if traits.get("mixer") == "mamba" and not keys.get("rope_theta") else int(dim * _rotary(keys)),
        window=keys.width("sliding_window", "sliding_window_size") if kind == "window" else None,
        chunk=keys.width("attention_chunk_size") if kind == "chunk" else None,
        qk_norm=str(traits.get("qk_norm") or ("head" if keys.flag("use_qk_norm", "qk_norm") else "")),
        qkv_bias=biased,
        out_bias=bool(traits.get("out_bias")),
        output_gate=keys.flag("attn_output_gate", default=bool(traits.get("output_gate"))),
        sinks=bool(traits.get("sinks")),
    )


def _rotary(keys: Keys) -> float:
    rope = keys.get("rope_parameters")
    inner = Keys(rope) if isinstance(rope, Mapping) else Keys({})
    return keys.fraction("partial_rotary_factor", default=inner.fraction("partial_rotary_factor", default=1.0))


def _mla(keys: Keys) -> Mla:
    top = keys.number("index_topk", default=0)
    indexer = Indexer(keys.width("index_n_heads"), keys.width("index_head_dim"), top) if top else None
    return Mla(
        keys.width("num_attention_heads"),
        keys.number("q_lora_rank", default=0),
        keys.width("kv_lora_rank"),
        keys.width("qk_nope_head_dim"),
        keys.number("qk_rope_head_dim"),
        keys.width("v_head_dim"),
        indexer,
    )


def _delta(keys: Keys) -> DeltaNet:
    if isinstance(linear := keys.get("linear_attn_config"), Mapping):
        inner = Keys(linear)
        heads, dim = inner.width("num_heads"), inner.width("head_dim")
        return DeltaNet(heads, heads, dim, dim, inner.width("short_conv_kernel_size", default=4), per_channel=True)
    return DeltaNet(
        keys.width("linear_num_key_heads"),
        keys.width("linear_num_value_heads"),
        keys.width("linear_key_head_dim"),
        keys.width("linear_value_head_dim"),
        keys.width("linear_conv_kernel_dim", default=4),
    )


def _mamba(keys: Keys) -> Mamba2:
    return Mamba2(
        keys.width("mamba_num_heads", "mamba_n_heads"),
        keys.width("mamba_head_dim", "mamba_d_head"),
        keys.width("ssm_state_size", "mamba_d_state"),
        keys.width("n_groups", "mamba_n_groups", default=1),
        keys.width("conv_kernel", "mamba_d_conv", default=4),
        keys.width("chunk_size", "mamba_chunk_size", default=256),
        keys.flag("use_conv_bias", "mamba_conv_bias", default=True),
    )


def _sparse(keys: Keys, count: int) -> list[bool]:
    """Which layers have routed experts."""
    if not keys.number("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", default=0):
        return [False] * count
    first = keys.number("first_k_dense_replace", "moe_layer_start_index", default=0)
    every = keys.get("moe_layer_freq")
    step = keys.width("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", default=1)
    dense = set(keys.items("mlp_only_layers") or [])
    chosen = [number >= first and (number + 1) % step == 0 and number not in dense for number in range(count)]
    if isinstance(every, list):
        flags = keys.items("moe_layer_freq", length=count) or []
        return [bool(flag) and here for flag, here in zip(flags, chosen, strict=True)]
    if every:
        interval = keys.width("moe_layer_freq")
        return [here and number % interval == 0 for number, here in enumerate(chosen)]
    return chosen


def _mlp(sparse: bool, keys: Keys, traits: Traits) -> Mlp:
    gated = bool(traits.get("gated", True))
    bias = keys.flag("mlp_bias", "use_bias", default=bool(traits.get("mlp_bias")))
    if not sparse:
        return Dense(keys.width("intermediate_size_mlp", "intermediate_size", "shared_intermediate_size"), gated, bias)
    experts = keys.width("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
    per_token = keys.width("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
    if per_token > experts:
        raise SimulateError(f"{per_token} experts per token, but there are {experts}: correct the config.json")
    width = keys.width("moe_intermediate_size", "expert_intermediate_size", "intermediate_size")
    return Moe(
        experts,
        per_token,
        width,
        experts,
        _shared(keys, width, gated),
        bool(traits.get("shared_gate")),
        gated,
        bool(traits.get("moe_bias")),
        bool(traits.get("correction")),
    )


def _shared(keys: Keys, width: int, gated: bool) -> Dense | None:
    """The experts that every token passes, as one block."""
    count = keys.number("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0)
    one = keys.number(
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size", default=0
    )
    if one:
        return Dense(one * max(count, 1), gated)
    if keys.get("intermediate_size_mlp"):
        return Dense(width, gated)  # Llama 4: one shared expert of the routed ones' width
    return Dense(width * count, gated) if count else None
