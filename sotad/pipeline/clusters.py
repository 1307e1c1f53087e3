"""Layers that run the same kernels: clusters by edit distance of kernel sequences, and one layer to show for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sotad.trace.columns import I64

Signature = tuple[int, ...]
ALIKE = 0.05  # of the longer sequence


@dataclass(slots=True)
class Cluster:
    """``layers`` run alike; ``medoid`` is the one that differs least from the others (nearest to their median wall)."""

    layers: list[int]
    medoid: int


def signature(labels: Sequence[int] | I64) -> Signature:
    """A sequence of kernel names with repetitions in a row taken once."""
    array = np.asarray(labels, np.int64)
    kept = array[np.concatenate(([True], array[1:] != array[:-1]))] if len(array) else array
    return tuple(kept.tolist())


def distance(first: Signature, second: Signature) -> int:
    """Insertions, deletions and replacements that make one sequence the other."""
    if first == second:
        return 0
    row = list(range(len(second) + 1))
    for number, one in enumerate(first, 1):
        corner, row[0] = row[0], number
        for at, other in enumerate(second, 1):
            corner, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, corner + (one != other))
    return row[-1]


def clusters(signatures: Sequence[Signature], walls: Sequence[float] | I64) -> list[Cluster]:
    """Clusters of layers, most time first. The commonest sequences found clusters; others join where they are alike."""
    number: dict[Signature, list[int]] = {}
    for layer, each in enumerate(signatures):
        number.setdefault(each, []).append(layer)
    founders: dict[Signature, list[int]] = {}
    for each in sorted(number, key=lambda key: -len(number[key])):
        home = next((founder for founder in founders if _alike(each, founder)), each)
        founders.setdefault(home, []).extend(number[each])
    found = [_cluster(sorted(layers), signatures, walls) for layers in founders.values()]
    return sorted(found, key=lambda cluster: (-sum(walls[layer] for layer in cluster.layers), cluster.layers))


def _alike(first: Signature, second: Signature) -> bool:
    allowed = ALIKE * max(len(first), len(second))
    return abs(len(first) - len(second)) <= allowed and distance(first, second) <= allowed


def _cluster(layers: list[int], signatures: Sequence[Signature], walls: Sequence[float] | I64) -> Cluster:
    kinds = Counter(signatures[layer] for layer in layers)
    far = {kind: sum(distance(kind, other) * times for other, times in kinds.items()) for kind in kinds}
    middle = float(np.median([walls[layer] for layer in layers]))
    medoid = min(layers, key=lambda layer: (far[signatures[layer]], abs(walls[layer] - middle), layer))
    return Cluster(layers, medoid)
