"""Where layers begin and end inside one pass, given where its anchors stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sotad.trace.columns import I64

LEAST = 0.25  # of a block must be shared: a kernel or two alike prove nothing
NEAR = 3  # the norm that opens a layer is among the last kernels that the last layer shares with the others


@dataclass(frozen=True, slots=True)
class Bounds:
    """``starts[l]`` is the position of the first kernel of layer l, the last entry the end of the last layer.
    ``opener`` is the label of the kernel that opens a layer, None where layers begin at their anchor."""

    starts: I64
    opener: int | None


def anchored(anchors: Sequence[int] | I64, end: int, blocks_per_layer: int = 1) -> I64:
    """Starts of layers that begin at their anchor; ``end`` closes the last one. A rest of blocks is left out."""
    all_ = [*map(int, anchors), end]
    layers = (len(all_) - 1) // blocks_per_layer
    return np.array(all_[: layers * blocks_per_layer + 1 : blocks_per_layer], np.int64)


def refined(labels: I64, anchors: I64, blocks_per_layer: int, norms: set[int]) -> Bounds:
    """Starts of layers at the kernel that really opens them.

    The anchor stands in the middle of a layer. What the last layer runs after its anchor is also what every other
    layer runs after its own, up to the point where the next layer opens: that point is where the last block and the
    others part, or the norm just before (the last one is the model's final norm, and often the same kernel).
    """
    opens = anchors[::blocks_per_layer]
    plain = Bounds(anchored(anchors, len(labels), blocks_per_layer), None)
    if len(opens) < 2:
        return plain
    shared, sample = _shared(labels, opens)
    begin, end = int(opens[sample]), int(opens[sample + 1])
    offset = _norm_before(labels[begin : begin + shared], norms)
    size = end - begin
    proven = offset >= max(2, size * LEAST) or (offset < size and int(labels[begin + offset]) in norms)
    if not proven or offset >= size or 2 * int(opens[0]) < int(np.diff(opens).min()) - offset:
        return plain  # the last condition: nothing stands before the first anchor, so that one opens its layer
    opener, sample_block = labels[begin + offset], labels[begin:end]
    starts = [a + _start_in(labels[a:b], sample_block, offset) for a, b in pairwise(opens.tolist())]
    head = _head(labels, int(opens[0]), size - offset, int(opener), norms)
    finish = min(int(opens[-1]) + offset, len(labels))
    return Bounds(np.array([head, *starts, finish], np.int64), int(opener))


def _shared(labels: I64, opens: I64) -> tuple[int, int]:
    """How many kernels the last block has in common with the block that resembles it longest, and which that is."""
    last = labels[opens[-1] :]
    best = (-1, 0)
    for at in range(len(opens) - 1):
        block = labels[opens[at] : opens[at + 1]]
        size = min(len(block), len(last))
        differ = np.flatnonzero(block[:size] != last[:size])
        best = max(best, (int(differ[0]) if len(differ) else size, at))
    return best


def _norm_before(shared: I64, norms: set[int]) -> int:
    for back in range(1, min(NEAR, len(shared)) + 1):
        if int(shared[-back]) in norms:
            return len(shared) - back
    return len(shared)


def _start_in(block: I64, sample: I64, offset: int) -> int:
    """The opening kernel in a block that may be of another kind than the sample."""
    opener = sample[offset]
    before_next = len(sample) - offset
    if len(block) == len(sample) and block[offset] == opener:
        return offset
    if len(block) > before_next and block[-before_next] == opener:
        return len(block) - before_next
    own = np.flatnonzero(block == opener)
    number = int((sample[offset:] == opener).sum())  # it is the number-th from the block's end
    if len(own):
        return int(own[max(0, len(own) - number)])
    return max(1, len(block) - before_next)


def _head(labels: I64, first: int, before: int, opener: int, norms: set[int]) -> int:
    """Where the first layer opens: at the same kernel as the others, else at a norm (it follows the embedding and has
    another one), about as far before its anchor; else just as far."""
    for wanted in ({opener}, norms):
        near = [at for at in range(first) if int(labels[at]) in wanted and abs(first - at - before) <= max(3, before)]
        if near:
            return min(near, key=lambda at: (abs(first - at - before), at))
    return max(0, first - before)
