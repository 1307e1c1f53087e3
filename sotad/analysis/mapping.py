"""Where the kernels of a CUDA graph come from, by a second trace of the same model that ran without graphs.

A replayed graph names no source line. Its kernels run in the order in which they were captured, so the sequence of
kernels of a step is aligned with that of a step of the mapping trace. A kernel gets the source of its counterpart
only if all best alignments agree on it. What stands between two such kernels has other names in the other trace (other
tiles of a GEMM, a compiled kernel for a hand-written one): it is aligned once more by family, the name without its
numbers and template arguments; then paired by category, when the numbers of kernels leave no choice. What no
alignment tells is looked up by name, if the same stage of the mapping trace launches it from one place only.

Where the trace names the nodes of its graphs, what was found for one replay of a node holds for all of them; a node
whose replays were matched to different places is of unknown source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.attribution import Attribution, Site
from sotad.analysis.canonical import canonical
from sotad.analysis.categories import OTHER, categorize
from sotad.analysis.graphs import nodes_of
from sotad.analysis.joins import only
from sotad.analysis.stages import ALL, Stages
from sotad.trace.columns import I32, I64, Trace, Work

Flags = NDArray[np.bool_]

MATCHED = ("direct", "position", "name", "none")
DIRECT, POSITION, NAME, NONE = range(4)
CELLS = 9_000_000  # of an alignment's table, 2 bytes twice each; longer steps are matched by name
BUDGET = 10 * CELLS  # of all alignments of a trace together
VAGUE = frozenset({OTHER, "elementwise", "reduction"})  # categories of kernels whose names do not tell their purpose


class Analysed(NamedTuple):
    """A trace with the stages and sites of its kernels."""

    trace: Trace
    stages: Stages
    attribution: Attribution


@dataclass(slots=True)
class Mapped:
    """``kernel_site`` indexes ``sites``; ``matched`` says by which of `MATCHED` each kernel got its site; ``disputed``
    counts the kernels that lost theirs because replays of their node disagree."""

    sites: list[Site]
    kernel_site: I32
    matched: I32
    disputed: int = 0


class Kernels(NamedTuple):
    """The kernels of a step in the order of their beginning: rows of the table, names, families and categories."""

    rows: I64
    names: I64
    families: I64
    categories: I64


class _Vocabulary:
    """Names of both traces in one numbering, with the number of the family and of the category of each."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._families: dict[tuple[str, str], int] = {}
        self._categories: dict[str, int] = {}
        self._known: list[tuple[int, int]] = []

    def read(self, trace: Trace) -> I64:
        """Per kernel of the trace the number of its name."""
        table = np.full(len(trace.names), -1, np.int64)
        for name in np.unique(trace.kernels.name):
            text = canonical(trace.names[name])
            table[name] = self._names.setdefault(text, len(self._names))
            if table[name] == len(self._known):
                category = categorize(text)
                family = self._families.setdefault((category, _base(text)), len(self._families))
                self._known.append((family, self._categories.setdefault(category, len(self._categories))))
        return table[trace.kernels.name]

    def kernels(self, rows: I64, names: I64) -> Kernels:
        families, categories = np.array(self._known, np.int64)[names].T
        return Kernels(rows, names, families, categories)

    def vague(self) -> Flags:
        """Per category, whether its kernels do not tell what they are for."""
        return np.array([category in VAGUE for category in self._categories])


def _base(name: str) -> str:
    """The last part of a name before its template arguments and numbers: nvjet_sm90_tst_64x8 -> nvjet_sm."""
    head = re.split(r"[<(](?!anonymous)", name.replace("(anonymous namespace)::", ""), maxsplit=1)[0]
    return re.split(r"\d", head.rsplit("::", 1)[-1], maxsplit=1)[0]


def map_through(formal: Analysed, mapping: Analysed) -> Mapped:
    """The sites of the formal trace's kernels: their own where they have one, else by the mapping trace."""
    return agreed(formal.trace.kernels, map_each(formal, mapping), formal.attribution.kernel_site)


def map_each(formal: Analysed, mapping: Analysed) -> Mapped:
    """The same, each kernel for itself, whatever was found for other replays of its node."""
    own = formal.attribution
    matched = np.where(own.located()[own.kernel_site], DIRECT, NONE).astype(np.int32)
    if not len(formal.trace.kernels) or not len(mapping.trace.kernels) or (matched == DIRECT).all():
        return Mapped(own.sites, own.kernel_site, matched)
    vocabulary = _Vocabulary()
    names, others = vocabulary.read(formal.trace), vocabulary.read(mapping.trace)
    place = _places(mapping.attribution)[mapping.attribution.kernel_site]
    steps = _steps(formal.stages, names, vocabulary)
    found = _by_position(steps, _references(mapping.stages, others, vocabulary), vocabulary.vague(), place, len(names))
    found[matched == DIRECT] = -1
    matched[found >= 0] = POSITION
    left = np.flatnonzero(matched == NONE)
    found[left] = _by_name(formal.stages, mapping.stages, names, others, place, left)
    matched[left[found[left] >= 0]] = NAME
    shift = len(own.sites)
    site = np.where(found >= 0, shift + mapping.attribution.kernel_site[found], own.kernel_site)
    return Mapped([*own.sites, *mapping.attribution.sites], site.astype(np.int32), matched)


def agreed(work: Work, found: Mapped, own: I32) -> Mapped:
    """What all replays of a node agree on, for every kernel of it; where they do not, its `own` site."""
    node = nodes_of(work)
    rows = np.flatnonzero((node >= 0) & (found.matched != DIRECT))
    told = rows[found.matched[rows] != NONE]
    if not len(told):
        return found
    told = told[np.argsort(found.matched[told], kind="stable")]  # the surest first
    nodes, first = np.unique(node[told], return_index=True)
    speaker = np.full(int(node.max()) + 1, -1, np.int64)
    speaker[nodes] = told[first]
    settled = only(node[told], _numbered(found.sites)[found.kernel_site[told]], len(speaker)) >= 0
    site, matched = found.kernel_site.copy(), found.matched.copy()
    spoken = rows[speaker[node[rows]] >= 0]
    one, disputed = spoken[settled[node[spoken]]], spoken[~settled[node[spoken]]]
    by = speaker[node[one]]
    site[one], matched[one] = found.kernel_site[by], found.matched[by]
    site[disputed], matched[disputed] = own[disputed], NONE
    return Mapped(found.sites, site, matched, len(disputed))


def _places(attribution: Attribution) -> I64:
    """Per site the number of its place; -1 where it has no location."""
    return np.where(attribution.located(), _numbered(attribution.sites), -1)


def _numbered(sites: Sequence[Site]) -> I64:
    """Per site the number of its location and operator, whatever called it."""
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault((site.location, site.op), len(numbers)) for site in sites], np.int64)


def _by_position(
    steps: Iterable[tuple[str, Kernels]],
    references: dict[str, Kernels],
    vague: Flags,
    place: I64,
    size: int,
) -> I64:
    """The counterparts of the kernels of every step whose stage the mapping trace has too, as rows of that trace."""
    found = np.full(size, -1, np.int64)
    done: dict[tuple[str, bytes], I64] = {}
    budget = BUDGET
    for stage, step in steps:
        reference = references.get(stage)
        if reference is None:
            continue
        key, cells = (stage, step.names.tobytes()), len(step.names) * len(reference.names)
        if key not in done:
            if cells > min(CELLS, budget):
                continue
            budget -= cells
            done[key] = align(step, reference, place[reference.rows], vague)
        at = done[key]
        found[step.rows] = np.where(at >= 0, reference.rows[at], -1)
    return found


def _steps(stages: Stages, names: I64, vocabulary: _Vocabulary) -> Iterator[tuple[str, Kernels]]:
    rows = np.flatnonzero(stages.kernel_step >= 0)
    rows = rows[np.argsort(stages.kernel_step[rows], kind="stable")]
    for group in np.split(rows, np.flatnonzero(np.diff(stages.kernel_step[rows])) + 1) if len(rows) else ():
        yield stages.steps[stages.kernel_step[group[0]]].stage, vocabulary.kernels(group, names[group])


def _references(stages: Stages, names: I64, vocabulary: _Vocabulary) -> dict[str, Kernels]:
    """Per stage the step whose sequence of kernels is the most common, of equal ones the longest."""
    found: dict[str, dict[bytes, list[Kernels]]] = {}
    for stage, step in _steps(stages, names, vocabulary):
        found.setdefault(stage, {}).setdefault(step.names.tobytes(), []).append(step)
    return {
        stage: max(alike.values(), key=lambda steps: (len(steps), len(steps[0].rows)))[0]
        for stage, alike in found.items()
    }


def align(step: Kernels, reference: Kernels, place: I64, vague: Flags) -> I64:
    """For each kernel of a step the index of its counterpart in the reference; -1 where none is certain.

    `place` is the source of each kernel of the reference (-1: none), `vague` tells which categories fit any other.
    """
    found, anchors = _agreed(step.names, reference.names, place)
    for ours, theirs in _gaps(found, anchors, len(place)):
        inner, _ = _agreed(step.families[ours], reference.families[theirs], place[theirs])
        found[ours] = np.where(inner >= 0, theirs[inner], -1)
        left, free = ours[inner < 0], np.setdiff1d(theirs, theirs[inner[inner >= 0]])
        for i, j in _pairs(left, free, step.categories, reference.categories, vague, place):
            found[i] = j if place[j] >= 0 else -1
    return found


def _agreed(ours: I64, theirs: I64, place: I64) -> tuple[I64, I64]:
    """The counterparts in one place on which all longest common subsequences agree, and those that are one kernel."""
    found, anchors = np.full(len(ours), -1, np.int64), np.full(len(ours), -1, np.int64)
    if not len(ours) or not len(theirs):
        return found, anchors
    forward = _common(ours, theirs)
    backward = _common(ours[::-1], theirs[::-1])[::-1, ::-1]
    for i, name in enumerate(ours):
        through = forward[i, :-1] + backward[i + 1, 1:] + 1 == forward[-1, -1]
        candidates = np.flatnonzero(through & (theirs == name))
        if len(candidates) == 1:
            anchors[i] = candidates[0]
        if len(candidates) and place[candidates[0]] >= 0 and (place[candidates] == place[candidates[0]]).all():
            found[i] = candidates[0]
    return found, anchors


def _common(a: I64, b: I64) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """The length of the longest common subsequence of every beginning of `a` and every beginning of `b`."""
    table = np.zeros((len(a) + 1, len(b) + 1), np.int16)
    for i, name in enumerate(a):
        table[i + 1, 1:] = np.maximum.accumulate(np.maximum(table[i, 1:], table[i, :-1] + (b == name)))
    return table


def _gaps(found: I64, anchors: I64, length: int) -> Iterator[tuple[I64, I64]]:
    """What has no counterpart yet between two anchors, on both sides."""
    fixed = np.flatnonzero(anchors >= 0)
    edges = np.concatenate([[-1], fixed, [len(found)]])
    other_edges = np.concatenate([[-1], anchors[fixed], [length]])
    taken = np.zeros(length, bool)
    taken[found[found >= 0]] = True
    for k in range(len(edges) - 1):
        ours = np.arange(edges[k] + 1, edges[k + 1])
        theirs = np.arange(other_edges[k] + 1, other_edges[k + 1])
        ours, theirs = ours[found[ours] < 0], theirs[~taken[theirs]]
        if len(ours) and len(theirs):
            yield ours, theirs


def _pairs(ours: I64, theirs: I64, kinds: I64, other_kinds: I64, vague: Flags, place: I64) -> Iterator[tuple[int, int]]:
    if not len(ours) or not len(theirs):
        return
    if len(ours) == len(theirs) and ((kinds[ours] == other_kinds[theirs]) | vague[kinds[ours]]).all():
        yield from zip(ours.tolist(), theirs.tolist(), strict=True)
        return
    for kind in np.unique(kinds[ours]):
        mine, alike = ours[kinds[ours] == kind], theirs[other_kinds[theirs] == kind]
        if len(mine) == len(alike):
            yield from zip(mine.tolist(), alike.tolist(), strict=True)
        elif len(alike) and len(np.unique(place[alike])) == 1:
            yield from ((i, int(alike[0])) for i in mine.tolist())


def _by_name(formal: Stages, mapping: Stages, names: I64, others: I64, place: I64, left: I64) -> I64:
    """The counterpart of a name that its stage launches from one place. Other stages may run other lines."""
    found = np.full(len(left), -1, np.int64)
    for index in np.unique(formal.kernel[left]):
        rows = np.flatnonzero(_stage_of(mapping, formal.names[index]))
        asked = np.flatnonzero(formal.kernel[left] == index)
        only = _single(others[rows], place[rows])
        found[asked] = [rows[only[name]] if name in only else -1 for name in names[left[asked]].tolist()]
    return found


def _stage_of(stages: Stages, name: str) -> Flags:
    """Which kernels are of the stage; all of them when one of the traces does not tell stages apart."""
    if ALL in (name, *stages.names):
        return np.ones(len(stages.kernel), bool)
    return np.equal(stages.kernel, stages.names.index(name) if name in stages.names else -1)


def _single(names: I64, place: I64) -> dict[int, int]:
    """An index of each name that has one place, everywhere the same."""
    pairs, first = np.unique(np.stack([names, place]), axis=1, return_index=True)
    count = Counter(pairs[0].tolist())
    return {
        int(name): int(index)
        for (name, where), index in zip(pairs.T.tolist(), first, strict=True)
        if count[name] == 1 and where >= 0
    }
