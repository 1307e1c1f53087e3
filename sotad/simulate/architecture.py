"""A decoder as its layers: only what decides shapes, FLOPs and bytes.

Widths are in elements. A layer is a mixer (attention or recurrence) and an MLP, each possibly missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sotad.simulate.formats import Formats


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax attention with one key/value head per group of query heads (MHA, GQA and MQA).

    ``window`` counts the tokens that a query sees, itself included; ``chunk`` cuts the context into blocks that do
    not see each other (Llama 4). ``qk_norm`` is "" (none), "head" (weights of one head) or "all" (of all heads).
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    rope_dim: int
    window: int | None = None
    chunk: int | None = None
    qk_norm: str = ""
    qkv_bias: bool = False
    out_bias: bool = False
    output_gate: bool = False
    sinks: bool = False


@dataclass(frozen=True, slots=True)
class Indexer:
    """DeepSeek sparse attention: a small attention that picks the ``top`` tokens the large one sees."""

    heads: int
    head_dim: int
    top: int


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention: ``kv_rank`` + ``rope_dim`` elements per token are cached for all heads."""

    heads: int
    query_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    indexer: Indexer | None = None


@dataclass(frozen=True, slots=True)
class DeltaNet:
    """Gated DeltaNet, or Kimi delta attention when the decay is per channel."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    per_channel: bool = False


@dataclass(frozen=True, slots=True)
class Mamba2:
    """State-space layer: ``heads`` of ``head_dim`` with ``state`` elements per channel, ``groups`` of B and C."""

    heads: int
    head_dim: int
    state: int
    groups: int
    kernel: int
    chunk: int = 256
    conv_bias: bool = True


@dataclass(frozen=True, slots=True)
class Dense:
    """A feed-forward block; ``gated`` has three matrices, else two."""

    width: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Moe:
    """Routed experts of ``width``, ``per_token`` of ``experts`` for each token; ``shared`` is what all tokens pass.

    ``local`` experts lie on this GPU.
    """

    experts: int
    per_token: int
    width: int
    local: int
    shared: Dense | None = None
    shared_gate: bool = False
    gated: bool = True
    bias: bool = False
    correction: bool = False


Mixer = Attention | Mla | DeltaNet | Mamba2
Mlp = Dense | Moe


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer; ``norms`` are those of width ``hidden``."""

    mixer: Mixer | None
    mlp: Mlp | None
    norms: int = 2

    @property
    def label(self) -> str:
        """What kind of layer it is, in words."""
        return " + ".join(filter(None, (_mixer(self.mixer), _mlp(self.mlp))))


@dataclass(frozen=True, slots=True)
class Model:
    """A whole decoder. ``warnings`` say what was assumed and what part of the model is left out."""

    name: str
    family: str
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied: bool
    formats: Formats
    config_hash: str = ""
    warnings: list[str] = field(default_factory=list)
    unmodelled: list[str] = field(default_factory=list)


def _mixer(mixer: Mixer | None) -> str:
    if isinstance(mixer, Attention):
        limit = mixer.window or mixer.chunk
        kind = "MQA" if mixer.kv_heads == 1 else "MHA" if mixer.kv_heads == mixer.heads else "GQA"
        return kind + (f" {'window' if mixer.window else 'chunk'} {limit}" if limit else "")
    if isinstance(mixer, Mla):
        return "MLA + indexer" if mixer.indexer else "MLA"
    if isinstance(mixer, DeltaNet):
        return "KDA" if mixer.per_channel else "GDN"
    return "Mamba2" if mixer else ""


def _mlp(mlp: Mlp | None) -> str:
    return "" if mlp is None else "MoE" if isinstance(mlp, Moe) else "dense"
