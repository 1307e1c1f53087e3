"""Feed-forward blocks: dense, and mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.simulate.architecture import Dense, Moe
from sotad.simulate.formats import Format
from sotad.simulate.ops import Op, Setting, elementwise, linear


def dense_ops(d: Dense, s: Setting, form: Format | None = None, prefix: str = "") -> Iterator[Op]:
    """Operators of a dense block, in order."""
    form = form or s.formats.mlp
    up = d.width * (2 if d.gated else 1)
    yield linear(f"{prefix}{'gate_up' if d.gated else 'up'}_proj", s, form, up, s.hidden, bias=d.bias)
    yield elementwise(f"{prefix}activation", "activation", s.tokens, up, d.width, 4.0 * d.width, s.act)
    yield linear(f"{prefix}down_proj", s, form, s.hidden, d.width, bias=d.bias)


def touched(experts: int, per_token: int, tokens: float) -> float:
    """Distinct experts that ``tokens`` need, expected when each picks ``per_token`` of them at random."""
    missed: float = (1 - per_token / experts) ** tokens
    return experts * (1 - missed)


def picked(m: Moe, tokens: float, measured: float | None) -> float:
    """Distinct experts of one layer that are read: ``measured``, or what even routing would give."""
    return touched(m.experts, m.per_token, tokens) if measured is None else min(measured, m.experts)


def moe_ops(m: Moe, s: Setting) -> Iterator[Op]:
    """Operators of a mixture of experts, in order."""
    yield linear("router", s, s.formats.base, m.experts, s.hidden, bias=m.bias or m.correction)
    rows = s.group_tokens * m.per_token * m.local / m.experts
    up = m.width * (2 if m.gated else 1)
    yield elementwise("dispatch", "moe", rows, s.hidden, s.hidden, 0.0, s.act)
    yield _experts("experts_gate_up" if m.gated else "experts_up", m, s, rows, up, s.hidden)
    yield elementwise("experts_activation", "moe", rows, up, m.width, 4.0 * m.width, s.act)
    yield _experts("experts_down", m, s, rows, s.hidden, m.width)
    yield elementwise("combine", "moe", rows, s.hidden, s.hidden / m.per_token, 2.0 * s.hidden, s.act)
    if m.shared:
        yield from dense_ops(m.shared, s, prefix="shared_")
    if m.shared_gate:
        yield linear("shared_gate", s, s.formats.base, 1, s.hidden)


def _experts(name: str, m: Moe, s: Setting, rows: float, n: int, k: int) -> Op:
    """One matrix for each expert; of the weights only those of the experts that a token picked are read."""
    form = s.formats.experts
    each = n * k + (n if m.bias else 0)
    size = n * k * form.bytes + (n * s.act if m.bias else 0)
    read = m.local * picked(m, s.group_tokens, s.experts) / m.experts
    return Op(
        name,
        "moe",
        f"{read:.4g} experts: [{rows:.6g} x {k}] x [{k} x {n}]",
        2.0 * rows * n * k,
        form.math,
        weight_bytes=read * size,
        activation_bytes=rows * (n + k) * s.act,
        params=m.local * each,
        active=each * m.per_token * m.local / m.experts,
        held_bytes=m.local * size,
        mnk=(rows, n, k),
    )
