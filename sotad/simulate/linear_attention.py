"""Recurrent mixers: gated DeltaNet, Kimi delta attention and Mamba2. Their state does not grow with the context."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.simulate.architecture import DeltaNet, Mamba2
from sotad.simulate.ops import Op, Setting, elementwise, linear

CHUNK = 64  # tokens that the chunked form of the delta rule takes at once
STATE = 4  # bytes of an element of the recurrent state: float32


def delta_ops(d: DeltaNet, s: Setting) -> Iterator[Op]:
    """Operators of a delta-rule layer, in order."""
    form = s.formats.attention
    keys, values = d.key_heads * d.key_dim, d.value_heads * d.value_dim
    if d.per_channel:
        yield from _kimi_in(d, s)
    else:
        yield linear("in_proj_qkvz", s, form, 2 * keys + 2 * values, s.hidden)
        yield linear("in_proj_ba", s, s.formats.base, 2 * d.value_heads, s.hidden)
    yield _convolution(s, 2 * keys + values, d.kernel, bias=False)
    yield _delta_rule(d, s)
    norms = elementwise("gated_norm", "norm", s.tokens, 2 * values, values, 6.0 * values, s.act)
    yield norms
    yield linear("out_proj", s, form, s.hidden, values)


def _kimi_in(d: DeltaNet, s: Setting) -> Iterator[Op]:
    """Queries, keys and values; decay and output gate through a bottleneck of one head; one beta per head."""
    form, width = s.formats.attention, d.value_heads * d.value_dim
    yield linear("qkv_proj", s, form, 2 * d.key_heads * d.key_dim + width, s.hidden)
    yield linear("decay_down", s, form, d.value_dim, s.hidden)
    yield linear("decay_up", s, form, d.key_heads * d.key_dim, d.value_dim)
    yield linear("gate_down", s, form, d.value_dim, s.hidden)
    yield linear("gate_up", s, form, width, d.value_dim)
    yield linear("beta_proj", s, s.formats.base, d.value_heads, s.hidden)


def _delta_rule(d: DeltaNet, s: Setting) -> Op:
    state = d.value_heads * d.key_dim * d.value_dim
    steps, whole = s.batch.only(True).tokens, s.batch.only(False).tokens
    chunked = 2 * CHUNK * (d.key_dim + d.value_dim) + 4 * d.key_dim * d.value_dim + CHUNK * CHUNK / 3
    decay = d.value_heads * d.key_dim * s.tokens if d.per_channel else 0
    held = d.value_heads * (1 + d.key_dim if d.per_channel else 2) + d.value_dim  # decay, its bias, gated norm
    moved = s.tokens * (2 * d.key_heads * d.key_dim + 2 * d.value_heads * d.value_dim) * s.act
    return Op(
        "delta_rule",
        "linear_attn",
        f"{s.batch.sequences} x state [{d.value_heads} x {d.key_dim} x {d.value_dim}]",
        6.0 * state * steps + d.value_heads * chunked * whole + decay,
        s.formats.base.math if whole else "vector",
        activation_bytes=moved,
        kv_bytes=2.0 * s.batch.sequences * state * STATE,
        params=held,
        active=held,
    )


def mamba_ops(m: Mamba2, s: Setting) -> Iterator[Op]:
    """Operators of a Mamba2 layer, in order."""
    form, inner = s.formats.attention, m.heads * m.head_dim
    groups = 2 * m.groups * m.state
    yield linear("in_proj", s, form, 2 * inner + groups + m.heads, s.hidden)
    yield _convolution(s, inner + groups, m.kernel, bias=m.conv_bias)
    yield _scan(m, s)
    yield elementwise("gated_norm", "norm", s.tokens, 2 * inner, inner, 6.0 * inner, s.act)
    yield linear("out_proj", s, form, s.hidden, inner)


def _scan(m: Mamba2, s: Setting) -> Op:
    inner, whole = m.heads * m.head_dim, s.batch.only(False).tokens
    chunked = 2.0 * m.chunk * m.heads * (m.state + m.head_dim) * whole
    held = 3 * m.heads + inner  # A, D and dt per head, and the gated norm
    return Op(
        "state_scan",
        "linear_attn",
        f"{s.batch.sequences} x state [{m.heads} x {m.head_dim} x {m.state}]",
        6.0 * inner * m.state * s.tokens + chunked,
        s.formats.base.math if whole else "vector",
        activation_bytes=s.tokens * (2 * inner + 2 * m.groups * m.state + m.heads) * s.act,
        kv_bytes=2.0 * s.batch.sequences * inner * m.state * STATE,
        params=held,
        active=held,
    )


def _convolution(s: Setting, channels: int, kernel: int, bias: bool) -> Op:
    """A causal convolution per channel; the last kernel - 1 inputs of each request are kept."""
    held = channels * (kernel + bias)
    return Op(
        "convolution",
        "linear_attn",
        f"[{s.tokens} x {channels}], kernel {kernel}",
        2.0 * kernel * s.tokens * channels,
        weight_bytes=held * s.act,
        activation_bytes=2 * s.tokens * channels * s.act,
        kv_bytes=2.0 * s.batch.sequences * channels * (kernel - 1) * s.act,
        params=held,
        active=held,
        held_bytes=held * s.act,
    )


def state_bytes(mixer: DeltaNet | Mamba2, act: float) -> float:
    """Bytes of the state that one request keeps in one layer."""
    if isinstance(mixer, DeltaNet):
        channels = 2 * mixer.key_heads * mixer.key_dim + mixer.value_heads * mixer.value_dim
        state = mixer.value_heads * mixer.key_dim * mixer.value_dim
    else:
        channels = mixer.heads * mixer.head_dim + 2 * mixer.groups * mixer.state
        state = mixer.heads * mixer.head_dim * mixer.state
    return state * STATE + channels * (mixer.kernel - 1) * act
