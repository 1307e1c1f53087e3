"""Which mapping trace names the source lines of which stage, where several were given (prefill and decode apart)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sotad.analysis.attribution import Attribution, attribute
from sotad.analysis.mapping import DIRECT, NONE, Analysed, Mapped, agreed, map_each
from sotad.analysis.stages import Stages, find_stages
from sotad.trace.columns import Trace, emptied, no_flows
from sotad.trace.files import TraceFile, find
from sotad.trace.reader import read


@dataclass(frozen=True, slots=True)
class Reference:
    """A mapping trace, and the stage that it was captured for (None: not told)."""

    stage: str | None
    analysed: Analysed


def references(paths: Sequence[Path]) -> list[Reference]:
    """The mapping traces in files and folders: of several ranks the first one, as all run the same lines.

    Raises:
        TraceError: a path holds no trace, or one cannot be read.
    """
    files = [file for path in paths for file in find(path)]
    ranks = [file.rank for file in files if file.rank is not None]
    return [_reference(file) for file in files if file.rank in (None, min(ranks, default=None))]


def _reference(file: TraceFile) -> Reference:
    trace = read(file.path)
    stages, sources = find_stages(trace, file.stage), attribute(trace)
    # the host's events are most of a trace with stacks, and were read already
    ops, launches, frames = emptied(trace.ops), emptied(trace.launches), emptied(trace.frames)
    trace = replace(trace, ops=ops, launches=launches, frames=frames, flows=no_flows())
    return Reference(file.stage, Analysed(trace, stages, sources))


def mapped(trace: Trace, stages: Stages, own: Attribution, using: Sequence[Reference]) -> Mapped:
    """The source of every kernel: its own, else by the mapping trace of its stage, else by another of them."""
    located = own.located()[own.kernel_site]
    found = Mapped(list(own.sites), own.kernel_site.copy(), np.where(located, DIRECT, NONE).astype(np.int32))
    known: dict[int, tuple[Mapped, int]] = {}  # per reference what it says, and where its sites begin
    for number, stage in enumerate(stages.names):
        left = np.flatnonzero((stages.kernel == number) & (found.matched == NONE))
        for place in _turns(using, stage):
            if not len(left):
                break
            if place not in known:
                said = map_each(Analysed(trace, stages, own), using[place].analysed)
                known[place] = said, len(found.sites)
                found.sites += said.sites[len(own.sites) :]
            said, first = known[place]
            hit = left[said.matched[left] != NONE]
            found.kernel_site[hit] = said.kernel_site[hit] + first - len(own.sites)
            found.matched[hit] = said.matched[hit]
            left = left[said.matched[left] == NONE]
    return agreed(trace.kernels, found, own.kernel_site)


def _turns(using: Sequence[Reference], stage: str) -> list[int]:
    """In which order to ask for a stage: what was captured for it, what was captured for all, then the others."""
    return sorted(range(len(using)), key=lambda place: (using[place].stage != stage, using[place].stage is not None))
