"""One operator: its FLOPs, the bytes it must move, and the weights it holds.

A multiplication of m x k by k x n is 2 m n k FLOPs. Bytes are the least that can be moved: every input read once
from memory, every output written once, nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from sotad.simulate.formats import Format, Formats
from sotad.simulate.shapes import Batch


@dataclass(frozen=True, slots=True)
class Op:
    """What one GPU does for one operator of one layer.

    ``category`` is that of the kernels that do it (see `sotad.analysis.categories`). ``math`` is the kind of peak; ""
    moves data only. ``params`` elements are held, ``active`` of them concern one token. Bytes are of one step;
    ``held_bytes`` is the room that the weights take. ``comm_bytes`` go over the wire per GPU.
    """

    name: str
    category: str
    shape: str
    flops: float
    math: str = "vector"
    weight_bytes: float = 0.0
    activation_bytes: float = 0.0
    kv_bytes: float = 0.0
    comm_bytes: float = 0.0
    params: float = 0.0
    active: float = 0.0
    held_bytes: float = 0.0
    mnk: tuple[float, float, float] | None = None

    @property
    def bytes(self) -> float:
        """All that is read from and written to memory."""
        return self.weight_bytes + self.activation_bytes + self.kv_bytes

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte; None where nothing is moved."""
        return self.flops / self.bytes if self.bytes else None


@dataclass(frozen=True, slots=True)
class Setting:
    """What all operators of a step share on one GPU.

    ``group_tokens`` are the tokens of all replicas whose experts lie on the same GPUs, ``experts`` how many distinct
    ones they pick per layer, where that was measured.
    """

    hidden: int
    batch: Batch
    formats: Formats
    kv_bytes: float
    kv_math: str
    group_tokens: int
    experts: float | None = None

    @property
    def act(self) -> float:
        """Bytes of one element of an activation."""
        return min(self.formats.base.bytes, 2.0)

    @property
    def tokens(self) -> int:
        """New tokens on this GPU."""
        return self.batch.tokens


def linear(
    name: str,
    s: Setting,
    form: Format,
    n: float,
    k: float,
    *,
    rows: float | None = None,
    bias: bool = False,
    held: bool = True,
) -> Op:
    """A projection of ``rows`` (default: all tokens) from width ``k`` to ``n``.

    ``held`` is False where another operator has counted the weights.
    """
    m = s.tokens if rows is None else rows
    params = n * k + (n if bias else 0)
    size = n * k * form.bytes + (n * s.act if bias else 0)
    kept = params if held else 0.0
    return Op(
        name,
        "gemm",
        f"[{m:g} x {k:g}] x [{k:g} x {n:g}]",
        2.0 * m * n * k,
        form.math,
        weight_bytes=size if m else 0.0,
        activation_bytes=m * (n + k) * s.act,
        params=kept,
        active=kept,
        held_bytes=size if held else 0.0,
        mnk=(m, n, k),
    )


def norm(name: str, s: Setting, width: float, *, rows: float | None = None, residual: bool = True) -> Op:
    """RMSNorm over rows of ``width``; with the residual added it reads two and writes two."""
    m = s.tokens if rows is None else rows
    moved = (4 if residual else 2) * m * width * s.act
    return Op(
        name,
        "norm",
        f"[{m:g} x {width:g}]",
        4.0 * m * width,
        weight_bytes=width * s.act,
        activation_bytes=moved,
        params=width,
        active=width,
        held_bytes=width * s.act,
    )


def elementwise(name: str, category: str, rows: float, reads: float, writes: float, flops: float, act: float) -> Op:
    """``flops``, and elements read and written, per row."""
    return Op(name, category, f"[{rows:g} x {reads:g}]", flops * rows, activation_bytes=rows * (reads + writes) * act)


def embedding(s: Setting, vocab: float) -> Op:
    """Look up one row per token; the whole table is held."""
    rows = s.tokens * s.hidden * s.formats.base.bytes
    table = vocab * s.hidden
    return Op(
        "embedding",
        "data_movement",
        f"[{s.tokens}] of [{vocab:g} x {s.hidden}]",
        0.0,
        "",
        weight_bytes=rows,
        activation_bytes=s.tokens * s.hidden * s.act,
        params=table,
        active=table,
        held_bytes=table * s.formats.base.bytes,
    )
