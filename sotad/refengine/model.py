"""A decoder-only transformer with random weights: ragged batches in, next-token logits out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .kvcache import KVCache
from .profiling import span

ATTENTION_GAIN = 1.5  # sharpens attention, so that outputs depend on the prompt


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence in a step: rows [first, first + rows), its context in `context` slots from `slot`."""

    first: int
    rows: int
    slot: int
    context: int
    mask: Tensor | None  # only for a chunk that continues a prompt


@dataclass(frozen=True, slots=True)
class Batch:
    """One step: all rows of all sequences end to end, without padding."""

    tokens: Tensor  # [rows]
    positions: Tensor  # [rows]
    slots: Tensor  # [rows], where each row's keys and values go
    spans: Sequence[Span]
    wanted: Tensor  # rows whose next token is asked for


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one decoder layer, each [out, in]."""

    qkv: Tensor
    out: Tensor
    up: Tensor
    down: Tensor


class Decoder:
    """Weights and the forward pass; the same seed gives the same weights everywhere."""

    def __init__(self, layers: int, hidden: int, heads: int, vocab: int, max_len: int, seed: int) -> None:
        source = torch.Generator().manual_seed(seed)

        def weight(rows: int, columns: int, std: float) -> Tensor:
            return torch.empty(rows, columns).normal_(0.0, std, generator=source)

        self.hidden, self.heads = hidden, heads
        self.embedding = weight(vocab, hidden, 1.0)
        self.position = weight(max_len, hidden, 0.5)
        scale = hidden**-0.5
        self.layers = [
            Layer(
                qkv=weight(3 * hidden, hidden, scale * ATTENTION_GAIN),
                out=weight(hidden, hidden, scale),
                up=weight(4 * hidden, hidden, scale),
                down=weight(hidden, 4 * hidden, scale / 2),
            )
            for _ in range(layers)
        ]
        self.head = weight(vocab, hidden, scale)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        layers = sum(w.numel() for layer in self.layers for w in (layer.qkv, layer.out, layer.up, layer.down))
        return self.embedding.numel() + self.position.numel() + self.head.numel() + layers

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Logits [wanted rows, vocab]; keys and values of every row are in the cache afterwards."""
        x = F.embedding(batch.tokens, self.embedding) + F.embedding(batch.positions, self.position)
        for number, layer in enumerate(self.layers):
            with span("layer.attention"):
                x = x + F.linear(self._attention(number, layer, self._norm(x), batch, cache), layer.out)
            with span("layer.mlp"):
                x = x + F.linear(F.gelu(F.linear(self._norm(x), layer.up)), layer.down)
        with span("lm_head"):
            return F.linear(self._norm(x[batch.wanted]), self.head)

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.hidden,))

    def _attention(self, number: int, layer: Layer, x: Tensor, batch: Batch, cache: KVCache) -> Tensor:
        """Causal attention of every row over its own sequence, [rows, hidden]."""
        rows = F.linear(x, layer.qkv).view(1, len(x), 3 * self.heads, -1).transpose(1, 2)
        query, key, value = rows.chunk(3, dim=1)  # each [1, heads, rows, head_dim]
        with span("kv.append"):
            cache.append(number, batch.slots, key, value)
        mixed = []
        for s in batch.spans:
            keys, values = cache.context(number, s.slot, s.context)
            mixed.append(
                F.scaled_dot_product_attention(
                    query.narrow(2, s.first, s.rows),
                    keys,
                    values,
                    attn_mask=s.mask,
                    is_causal=s.rows == s.context,
                )
            )
        return torch.cat(mixed, dim=2).transpose(1, 2).reshape(len(x), self.hidden)
