"""How many layers a forward pass has when nothing says where passes begin: the period of a sequence of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sotad.trace.columns import I64

LONGEST = 200  # blocks in a pass, at most
LOOK = 2000  # blocks that are looked at
ACCEPTED = 0.7
NAMES, SURE = 3, 0.5
CLOSE = 0.02
SUPPORT = 0.25  # of the votes that the best supported period has


@dataclass(frozen=True, slots=True)
class Period:
    """``confidence`` is the share of blocks, rare ones weighing more, that come again after one period, or of the
    kernels that come once in a pass; ``names`` is the number of these. ``phase`` counts the blocks before the first
    whole pass.
    """

    layers: int
    confidence: float
    runner_up: int | None = None
    phase: int = 0
    names: int = 0

    @property
    def sure(self) -> bool:
        """Whether several kernels that come once in a pass agree."""
        return self.names >= NAMES and self.confidence >= SURE


def layer_period(
    signatures: Sequence[int] | I64, durations: Sequence[int] | I64, blocks_per_layer: int = 1, default: int = 1
) -> Period:
    """The number of layers in a pass: the shortest period whose blocks resemble each other as well as any longer
    one's. Fewer than four blocks, nothing that repeats, or nothing but equal blocks give the default with confidence 0.
    """
    kinds, times = np.asarray(signatures)[:LOOK], np.asarray(durations, float)[:LOOK]
    if len(kinds) < 4:
        return Period(default, 0.0)
    longest = min(LONGEST, len(kinds) // 2)
    periods = range(blocks_per_layer, longest + 1, blocks_per_layer)
    scores = {period: _score(kinds, times, period) for period in periods}
    best = max(scores.values(), default=0.0)
    if best < ACCEPTED:
        return Period(default, 0.0)
    chosen = min(period for period, score in scores.items() if score >= best - CLOSE)
    if chosen == blocks_per_layer:
        return Period(default, 0.0)  # all layers alike: any number of them would do
    others = {period: score for period, score in scores.items() if period % chosen and chosen % period}
    second = max(others, key=lambda period: others[period]) // blocks_per_layer if others else None
    return Period(chosen // blocks_per_layer, round(scores[chosen], 3), second)


def boundary_period(labels: I64, anchors: I64, blocks_per_layer: int = 1) -> Period | None:
    """The number of layers between kernels that come once in a pass (embedding, final norm, sampler); None when no
    kernel comes that regularly.

    Kernels of every fourth layer, say, come regularly too: the longest period with good support is taken, unless its
    kernels belong to passes of several kinds that take turns.
    """
    votes = _votes(labels, anchors)
    if not votes:
        return None
    whole = sum(map(len, votes.values()))
    chosen = max(period for period, told in votes.items() if len(told) >= SUPPORT * max(map(len, votes.values())))
    turns = {(residue % chosen) for residue in votes[chosen]}
    shorter = [period for period in votes if not chosen % period and period < chosen and len(votes[period]) >= 2]
    fit = [period for period in shorter if len(turns) > 1 and all(not residue % period for residue in turns)]
    period = max(fit, default=chosen)
    agree = len(votes[period]) + (len(votes[chosen]) if period != chosen else 0)
    if period % blocks_per_layer:
        return None
    others = [other for other in votes if other != period]
    second = max(others, key=lambda other: (len(votes[other]), -other), default=None)
    told = None if second is None else second // blocks_per_layer
    blocks = [at % period for multiple, told_ in votes.items() if not multiple % period for at in told_]
    phase = max(sorted(set(blocks)), key=blocks.count)
    return Period(period // blocks_per_layer, round(agree / whole, 3), told, phase, len(blocks))


def _votes(labels: I64, anchors: I64) -> dict[int, list[int]]:
    """For each number of blocks the kernel names that come once in so many, as the block of their first occurrence."""
    block = np.searchsorted(anchors, np.arange(len(labels)), side="right")
    order = np.argsort(labels, kind="stable")
    _, first = np.unique(labels[order], return_index=True)
    votes: dict[int, list[int]] = {}
    for own in np.split(order, first[1:]):
        steps = np.diff(np.unique(block[own]))
        if len(steps) and len(steps) <= len(anchors) / 2:
            usual = int(np.bincount(steps).argmax())
            if usual > 1 and np.mean(steps == usual) >= ACCEPTED:
                votes.setdefault(usual, []).append(int(block[own[-1]]))
    return votes


def _score(kinds: NDArray[np.int64], times: NDArray[np.float64], period: int) -> float:
    """Agreement of blocks one period apart. The block with the sampler and the embedding comes once in a pass, so
    rare kinds weigh as much as common ones; with one kind only, durations decide."""
    _, inverse, number = np.unique(kinds, return_inverse=True, return_counts=True)
    first, second = slice(None, len(kinds) - period), slice(period, None)
    if (number > 1).sum() < 2:
        short, long = np.minimum(times[first], times[second]), np.maximum(times[first], times[second])
        return float(np.mean(short[long > 0] / long[long > 0])) if (long > 0).any() else 1.0
    weight = np.where(number > 1, 1.0 / number, 0.0)[inverse]
    total = weight[first].sum()
    return float((weight[first] * (kinds[first] == kinds[second])).sum() / total) if total else 0.0
