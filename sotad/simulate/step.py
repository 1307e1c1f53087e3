"""One forward pass of a model: the operators of each kind of layer on one GPU, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from sotad.simulate.architecture import Attention, DeltaNet, Dense, Layer, Mamba2, Mla, Model, Moe
from sotad.simulate.attention import attention_ops, cached_elements, mla_ops
from sotad.simulate.errors import SimulateError
from sotad.simulate.formats import Format, format_of
from sotad.simulate.linear_attention import delta_ops, mamba_ops, state_bytes
from sotad.simulate.moe import dense_ops, moe_ops
from sotad.simulate.ops import Op, Setting, embedding, linear, norm
from sotad.simulate.parallel import Layout, between, checked, messages, shard
from sotad.simulate.shapes import Batch, prefill

# Norms before the mixer, between it and the MLP, and after that, by how many a layer has.
NORMS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (("input_norm",), (), ()),
    2: (("input_norm",), ("post_attention_norm",), ()),
    4: (("input_norm",), ("post_attention_norm", "pre_mlp_norm"), ("post_mlp_norm",)),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Equal layers, or what lies before and after them: ``numbers`` are the layers', ``ops`` those of one of them."""

    label: str
    numbers: tuple[int, ...]
    ops: tuple[Op, ...]

    @property
    def times(self) -> int:
        """How often the operators run."""
        return len(self.numbers) or 1


@dataclass(frozen=True, slots=True)
class Pass:
    """One step on one GPU of the layout; ``batch`` is that of all replicas, ``local`` of this one.

    ``experts`` are the distinct experts that a layer reads, where that was measured; None takes routing for even.
    """

    model: Model
    batch: Batch
    local: Batch
    layout: Layout
    kv_format: Format
    parts: tuple[Part, ...]
    experts: float | None = None

    def ops(self) -> Iterator[tuple[Op, int]]:
        """Every operator with how often it runs."""
        return ((op, part.times) for part in self.parts for op in part.ops)


def forward(
    model: Model,
    batch: Batch,
    layout: Layout | None = None,
    kv_dtype: str | None = None,
    experts: float | None = None,
) -> Pass:
    """The operators of one step.

    Raises:
        SimulateError: the model cannot be divided like that, the dtype is not known, or experts is not positive.
    """
    layout = layout or Layout()
    checked(layout, model)
    if experts is not None and not experts > 0:
        raise SimulateError(f"experts touched is {experts}: it must be above 0")
    cache = format_of(kv_dtype) if kv_dtype else model.formats.base
    local = batch.split(layout.dp)
    group = local.tokens * (layout.dp if layout.ep > 1 else 1)
    math = "fp8" if cache.math == "fp8" else "bf16"
    s = Setting(model.hidden, local, model.formats, cache.bytes, math, group, experts)
    parts = [_part(layer, numbers, layout, s) for layer, numbers in groups(model.layers).items()]
    head = Part("embedding, final norm, lm_head", (), tuple(_ends(model, layout, s)))
    return Pass(model, batch, local, layout, cache, (*parts, head), experts)


def groups(layers: Iterable[Layer]) -> dict[Layer, list[int]]:
    """Equal layers together, with their numbers, in the order of the first."""
    found: dict[Layer, list[int]] = {}
    for number, layer in enumerate(layers):
        found.setdefault(layer, []).append(number)
    return found


def _part(layer: Layer, numbers: list[int], layout: Layout, s: Setting) -> Part:
    ops = (*_layer(shard(layer, layout), s), *messages(layer, layout, s))
    return Part(layer.label, tuple(numbers), ops)


def _layer(layer: Layer, s: Setting) -> Iterator[Op]:
    before, between_both, after = NORMS[layer.norms]
    yield from (norm(name, s, s.hidden) for name in before)
    match layer.mixer:
        case Attention():
            yield from attention_ops(layer.mixer, s)
        case Mla():
            yield from mla_ops(layer.mixer, s)
        case DeltaNet():
            yield from delta_ops(layer.mixer, s)
        case Mamba2():
            yield from mamba_ops(layer.mixer, s)
    yield from (norm(name, s, s.hidden) for name in between_both)
    match layer.mlp:
        case Dense():
            yield from dense_ops(layer.mlp, s)
        case Moe():
            yield from moe_ops(layer.mlp, s)
    yield from (norm(name, s, s.hidden) for name in after)


def _ends(model: Model, layout: Layout, s: Setting) -> Iterator[Op]:
    """Before and after the layers; logits are computed for the last token of each request only."""
    vocab = ceil(model.vocab / layout.tp)
    yield embedding(s, vocab)
    yield norm("final_norm", s, s.hidden)
    rows = sum(group.count * (group.new if group.decoding else 1) for group in s.batch.groups)
    yield linear("lm_head", s, model.formats.lm_head, vocab, s.hidden, rows=rows, held=not model.tied)
    yield from between(model, layout, s)


def parameters(model: Model) -> tuple[float, float]:
    """Parameters in all, and those that take part in one token (embedding and lm_head counted in both)."""
    probe = forward(model, prefill(1, 2))
    total = sum(op.params * times for op, times in probe.ops())
    return total, sum(op.active * times for op, times in probe.ops())


def weight_bytes(step: Pass) -> float:
    """Bytes of weights on the fullest GPU of the layout."""
    count, layout = len(step.model.layers), step.layout
    layers = sum(op.held_bytes * part.times for part in step.parts if part.numbers for op in part.ops)
    ends = [op.held_bytes for part in step.parts if not part.numbers for op in part.ops]
    if layout.pp == 1:
        return layers + sum(ends)
    return layers * ceil(count / layout.pp) / count + max(ends)


def cache_bytes(step: Pass) -> tuple[float, float]:
    """On one GPU: bytes of KV cache for one more token (of layers that see all), and for one request of the batch.

    A window's layers keep no more than the window; recurrent states count for the request.
    """
    token = request = 0.0
    share = 1 / step.layout.pp
    context = max((group.context for group in step.batch.groups), default=0)
    for layer in step.model.layers:
        mixer = shard(layer, step.layout).mixer
        if isinstance(mixer, (Attention, Mla)):
            each = cached_elements(mixer) * step.kv_format.bytes
            limit = (mixer.window or mixer.chunk) if isinstance(mixer, Attention) else None
            token += 0.0 if limit else each
            request += each * min(context, limit or context)
        elif mixer is not None:
            request += state_bytes(mixer, min(step.model.formats.base.bytes, 2.0))
    return token * share, request * share
