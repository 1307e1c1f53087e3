"""Softmax attention: grouped heads, latent attention, and its sparse indexer.

Softmax itself (about 1 % of the FLOPs of the scores) is not counted, as is usual for MFU.
"""

from __future__ import annotations

from collections.abc import Iterator

from sotad.simulate.architecture import Attention, Indexer, Mla
from sotad.simulate.ops import Op, Setting, elementwise, linear, norm
from sotad.simulate.shapes import Batch


def attention_ops(a: Attention, s: Setting) -> Iterator[Op]:
    """Operators of grouped attention, in order."""
    form, queries, keys = s.formats.attention, a.heads * a.head_dim, a.kv_heads * a.head_dim
    gates = queries if a.output_gate else 0
    values = a.kv_heads * a.value_dim
    yield linear("qkv_proj", s, form, queries + gates + keys + values, s.hidden, bias=a.qkv_bias)
    if a.qk_norm:
        yield _qk_norm(a, s)
    if a.rope_dim:
        width = queries + keys
        rotated = (a.heads + a.kv_heads) * a.rope_dim
        yield elementwise("rope", "rope", s.tokens, width, width, 6.0 * rotated, s.act)
    yield _cache_write(s, keys + values)
    yield from _scores(a, s)
    if gates:
        width = a.heads * a.value_dim
        yield elementwise("output_gate", "activation", s.tokens, 2 * width, width, 5.0 * width, s.act)
    yield linear("o_proj", s, form, s.hidden, a.heads * a.value_dim, bias=a.out_bias)


def _qk_norm(a: Attention, s: Setting) -> Op:
    heads = a.heads + a.kv_heads
    held = heads * a.head_dim if a.qk_norm == "all" else 2 * a.head_dim
    moved = 2 * s.tokens * heads * a.head_dim * s.act
    size = held * s.act
    shape = f"[{s.tokens} x {heads} x {a.head_dim}]"
    flops = 4.0 * s.tokens * heads * a.head_dim
    return Op("qk_norm", "norm", shape, flops, "vector", size, moved, params=held, active=held, held_bytes=size)


def _scores(a: Attention, s: Setting) -> Iterator[Op]:
    """Queries times keys, then probabilities times values; keys and values are read once for all heads of a group."""
    pairs, read = s.batch.pairs(a.window, a.chunk), s.batch.read(a.window, a.chunk)
    sinks = a.heads if a.sinks else 0
    shape = f"{a.heads} heads, {pairs} pairs"
    yield Op(
        "attention_qk",
        "attention",
        f"{shape} x {a.head_dim}",
        2.0 * a.heads * a.head_dim * pairs,
        s.kv_math,
        activation_bytes=s.tokens * a.heads * a.head_dim * s.act,
        kv_bytes=read * a.kv_heads * a.head_dim * s.kv_bytes,
        params=sinks,
        active=sinks,
    )
    yield Op(
        "attention_pv",
        "attention",
        f"{shape} x {a.value_dim}",
        2.0 * a.heads * a.value_dim * pairs,
        s.kv_math,
        activation_bytes=s.tokens * a.heads * a.value_dim * s.act,
        kv_bytes=read * a.kv_heads * a.value_dim * s.kv_bytes,
    )


def _cache_write(s: Setting, width: float) -> Op:
    moved = s.tokens * width
    return Op("kv_write", "kv_write", f"[{s.tokens} x {width:g}]", 0.0, "", 0.0, moved * s.act, moved * s.kv_bytes)


def cached_elements(mixer: Attention | Mla) -> int:
    """Elements that one token leaves in the cache of one layer."""
    if isinstance(mixer, Attention):
        return mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
    return mixer.kv_rank + mixer.rope_dim


def mla_ops(a: Mla, s: Setting) -> Iterator[Op]:
    """Operators of latent attention: keys and values unpacked for prefill, absorbed into the query for decode."""
    form = s.formats.attention
    if a.query_rank:
        yield linear("q_a_proj", s, form, a.query_rank, s.hidden)
        yield norm("q_a_norm", s, a.query_rank, residual=False)
    yield linear("q_b_proj" if a.query_rank else "q_proj", s, form, _query(a), a.query_rank or s.hidden)
    yield linear("kv_a_proj", s, form, a.kv_rank + a.rope_dim, s.hidden)
    yield norm("kv_a_norm", s, a.kv_rank, residual=False)
    if a.rope_dim:
        width = (a.heads + 1) * a.rope_dim
        yield elementwise("rope", "rope", s.tokens, width, width, 6.0 * width, s.act)
    yield _cache_write(s, a.kv_rank + a.rope_dim)
    if a.indexer:
        yield from _indexer(a, a.indexer, s)
    whole, steps = s.batch.only(False), s.batch.only(True)
    if whole.groups:
        yield from _unpacked(a, s, whole)
    if steps.groups:
        yield from _absorbed(a, s, steps, held=not whole.groups)
    yield linear("o_proj", s, form, s.hidden, a.heads * a.value_dim)


def _query(a: Mla) -> int:
    return a.heads * (a.nope_dim + a.rope_dim)


def _unpacked(a: Mla, s: Setting, batch: Batch) -> Iterator[Op]:
    """Prefill: the latent of every visible token becomes keys and values of every head."""
    top = a.indexer.top if a.indexer else None
    seen, pairs = batch.read(), batch.pairs(top=top)
    yield linear("kv_b_proj", s, s.formats.attention, a.heads * (a.nope_dim + a.value_dim), a.kv_rank, rows=seen)
    dim, shape = a.nope_dim + a.rope_dim, f"{a.heads} heads, {pairs} pairs"
    moved = (batch.tokens + seen) * a.heads * s.act
    yield Op("attention_qk", "attention", f"{shape} x {dim}", 2.0 * a.heads * dim * pairs, s.kv_math, 0.0, moved * dim)
    flops = 2.0 * a.heads * a.value_dim * pairs
    yield Op("attention_pv", "attention", f"{shape} x {a.value_dim}", flops, s.kv_math, 0.0, moved * a.value_dim)


def _absorbed(a: Mla, s: Setting, batch: Batch, held: bool) -> Iterator[Op]:
    """Decode: the query is taken into the latent space, where all heads share one key of kv_rank + rope_dim."""
    top = a.indexer.top if a.indexer else None
    pairs, read, rows = batch.pairs(top=top), batch.read(top=top), batch.tokens * a.heads
    yield _per_head("absorb_k", a, s, batch, a.nope_dim, a.kv_rank, held)
    dim, shape = a.kv_rank + a.rope_dim, f"{a.heads} heads, {pairs} pairs"
    yield Op(
        "attention_qk",
        "attention",
        f"{shape} x {dim}",
        2.0 * a.heads * dim * pairs,
        s.kv_math,
        activation_bytes=rows * dim * s.act,
        kv_bytes=read * dim * s.kv_bytes,  # read once: the values are the first kv_rank elements of the keys
    )
    flops = 2.0 * a.heads * a.kv_rank * pairs
    yield Op("attention_pv", "attention", f"{shape} x {a.kv_rank}", flops, s.kv_math, 0.0, rows * a.kv_rank * s.act)
    yield _per_head("unabsorb_v", a, s, batch, a.kv_rank, a.value_dim, held)


def _per_head(name: str, a: Mla, s: Setting, batch: Batch, k: int, n: int, held: bool) -> Op:
    """A batched multiplication, one matrix per head; serving keeps these in the activations' format."""
    rows, elements = batch.tokens, a.heads * k * n
    size, kept = elements * s.formats.base.bytes, elements if held else 0.0
    return Op(
        name,
        "gemm",
        f"{a.heads} x [{rows} x {k}] x [{k} x {n}]",
        2.0 * rows * elements,
        s.formats.base.math,
        weight_bytes=size,
        activation_bytes=rows * a.heads * (k + n) * s.act,
        params=kept,
        active=kept,
        held_bytes=size if held else 0.0,
        mnk=(rows, n, k),
    )


def _indexer(a: Mla, i: Indexer, s: Setting) -> Iterator[Op]:
    """Scores of every visible token by a small attention, whose keys have a cache of their own (fp8)."""
    form = s.formats.attention
    yield linear("indexer_q", s, form, i.heads * i.head_dim, a.query_rank or s.hidden)
    yield linear("indexer_k", s, form, i.head_dim, s.hidden)
    yield linear("indexer_weights", s, s.formats.base, i.heads, s.hidden)
    pairs, read = s.batch.pairs(), s.batch.read()
    flops, held = 2.0 * i.heads * i.head_dim * pairs, 2 * i.head_dim
    moved = s.tokens * i.heads * i.head_dim * s.act
    shape = f"{i.heads} heads, {pairs} pairs x {i.head_dim}"
    keys = float(read * i.head_dim)
    yield Op("indexer_scores", "attention", shape, flops, "fp8", 0.0, moved, keys, params=held, active=held)
