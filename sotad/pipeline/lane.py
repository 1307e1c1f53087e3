"""The kernels of one device as arrays in order of time, each with its short name and category."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.cover import Cover, cover
from sotad.pipeline.names import short
from sotad.pipeline.profiles import Profile
from sotad.trace.columns import I32, I64, Trace

Bool = NDArray[np.bool_]
COMMUNICATION = "communication"
MATMUL = ("gemm", "moe")


@dataclass(slots=True)
class Vocabulary:
    """``label`` and ``category`` give, for every name of a trace, an index into ``labels`` and ``categories``."""

    names: list[str]
    label: I32
    category: I32
    labels: list[str]
    categories: list[str]

    def having(self, test: Callable[[str, str], bool]) -> Bool:
        """Which names pass a test of (name, category)."""
        categories = (self.categories[at] for at in self.category)
        return np.array([test(name, kind) for name, kind in zip(self.names, categories, strict=True)], bool)


def vocabulary(names: list[str], profile: Profile, categorize: Callable[[str], str]) -> Vocabulary:
    """The short names and categories of a list of kernel names; the profile's own rules go first."""
    labels: dict[str, int] = {}
    categories: dict[str, int] = {COMMUNICATION: 0}
    label = [labels.setdefault(profile.short(name) or short(name), len(labels)) for name in names]
    kind = [categories.setdefault(profile.category(name) or categorize(name), len(categories)) for name in names]
    return Vocabulary(names, np.array(label, np.int32), np.array(kind, np.int32), list(labels), list(categories))


@dataclass(slots=True)
class Lane:
    """Kernels of one device, by begin. ``row`` is the index in `Trace.kernels`, ``name`` indexes ``words.names``,
    ``stream`` ``streams``,
    ``step`` is the annotated step (-1: none) and ``graph`` the graph replay (-1: launched alone);
    ``label`` and ``category`` are those of its name."""

    device: str
    row: I64
    begin: I64
    end: I64
    name: I32
    stream: I32
    step: I64
    graph: I64
    words: Vocabulary
    streams: list[str]
    label: I32 = field(init=False)
    category: I32 = field(init=False)

    def __len__(self) -> int:
        return len(self.begin)

    def __post_init__(self) -> None:
        self.label = self.words.label[self.name]
        self.category = self.words.category[self.name]

    def of_categories(self, *kinds: str) -> Bool:
        """Which kernels are of one of these categories."""
        wanted = np.array([kind in kinds for kind in self.words.categories], bool)
        return wanted[self.category]

    def busy(self, mask: Bool | None = None) -> Cover:
        """The time that the kernels, or those of the mask, cover."""
        return cover(self.begin, self.end) if mask is None else cover(self.begin[mask], self.end[mask])


def lanes(trace: Trace, step: I32, graph: I64, words: Vocabulary) -> list[Lane]:
    """The kernels of every device, busiest device first; the order of the trace's rows does not matter.

    ``words`` describes the names that kernels use: `Trace.names` at `used_names`.
    """
    kernels = trace.kernels
    local = np.zeros(len(trace.names), np.int32)
    local[used_names(trace)] = np.arange(len(words.names), dtype=np.int32)
    rank = np.argsort(np.argsort(np.array(words.names or [""]), kind="stable"))
    name = local[kernels.name]
    order = np.lexsort((rank[name], kernels.stream, kernels.end, kernels.begin))
    streams = [name for _, name in trace.streams]
    found = []
    for device in np.unique(kernels.device):
        row = order[kernels.device[order] == device]
        title = trace.devices[device] if 0 <= device < len(trace.devices) else str(device)
        arrays = (kernels.begin[row], kernels.end[row], name[row], kernels.stream[row])
        found.append(Lane(title, row, *arrays, step[row].astype(np.int64), graph[row], words, streams))
    return sorted(found, key=lambda lane: -int((lane.end - lane.begin).sum()))


def used_names(trace: Trace) -> I64:
    """The names that kernels have, as indices into `Trace.names`."""
    return np.unique(trace.kernels.name).astype(np.int64)
