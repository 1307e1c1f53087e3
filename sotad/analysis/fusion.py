"""Which known fusions a trace lacks, and which it already runs.

A chain counts only where its kernels follow one another directly on one stream, within `within_us`, in one stage, and
for kernels that do so in at least `min_support` of their runs (a run: kernels of one group in a row). That is evidence
of order, not proof that the framework can fuse them: the rows say where to look.

What a fusion saves is at most the time of the shorter parts of the chain, as the longest one stays, and the gaps
between the parts; never the time of the whole chain. The trace does not tell bytes, so the limit that memory
bandwidth sets to the saving is not applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.canonical import canonical
from sotad.analysis.catalogue import Group, Pattern, catalogue, words_of
from sotad.analysis.categories import categorize
from sotad.analysis.device_names import on_devices
from sotad.analysis.neighbours import stream_by_stream
from sotad.analysis.rows import row_id
from sotad.analysis.scopes import scopes_of
from sotad.trace.columns import I32, I64, Trace

if TYPE_CHECKING:
    from sotad.analysis.attribution import Attribution
    from sotad.analysis.stages import Stages

Mask = NDArray[np.bool_]
Row = dict[str, Any]

WITHIN_US = 20.0
MIN_SUPPORT = 0.8
SURE_SUPPORT = 0.95
_LOCATIONS = 4
FORMULA = "at most: per occurrence the time of all parts but the longest; gap_us comes on top"


@dataclass(slots=True)
class Fusions:
    """The fusions of one stage: ``missing`` are opportunities, ``present`` are already at work.

    ``launch_bound``: most kernels wait longer than `within_us` for their launch, so chains cannot be seen here.
    A trace of CUDA graphs, or a larger `within_us`, shows them.
    """

    missing: list[Row] = field(default_factory=list)
    present: list[Row] = field(default_factory=list)
    launch_bound: bool = False


@dataclass(slots=True)
class _Match:
    """The occurrences of one chain in one stage.

    ``parts`` is the time of each part that would be fused, one row per occurrence, ``gaps`` the time between them, ns.
    ``names`` are the name ids of the kernels in them, ``kernels`` their canonical names.
    """

    pattern: Pattern
    parts: I64
    gaps: I64
    names: list[int]
    count: int
    support: float
    kernels: set[str]

    @property
    def related(self) -> int:
        return int(self.parts.sum())

    @property
    def saving(self) -> int:
        return int((self.parts.sum(axis=1) - self.parts.max(axis=1)).sum())


class _Sequence:
    """Kernels (and copies, if asked) of a trace, stream by stream in order of begin."""

    def __init__(self, trace: Trace, stages: Stages, canon: I32, within_ns: float, copies: bool) -> None:
        parts = (trace.kernels, trace.copies) if copies else (trace.kernels,)
        begin, end, name, stream = (
            np.concatenate([getattr(part, key) for part in parts]) for key in ("begin", "end", "name", "stream")
        )
        stage = np.concatenate((stages.kernel, stages.copy)) if copies else stages.kernel
        order = stream_by_stream(begin, stream)
        self.name, self.stage = name[order], stage[order]
        self.canon = canon[self.name]
        begin, end, stream = begin[order], end[order], stream[order]
        self.time = np.concatenate(([0], np.cumsum(end - begin)))
        gap = np.maximum(begin[1:] - end[:-1], 0)
        near = (stream[1:] == stream[:-1]) & (self.stage[1:] == self.stage[:-1]) & (gap <= within_ns)
        self.follows = np.concatenate((near, [False]))[: len(order)]  # whether the next place directly follows
        self.gap = np.concatenate(([0], np.cumsum(np.where(near, gap, 0))))

    def runs(self, members: Mask) -> tuple[I64, I64]:
        """First and last places of the longest rows of members that follow one another."""
        joined = members[:-1] & members[1:] & self.follows[:-1]
        first = np.flatnonzero(members & ~np.concatenate(([False], joined)))
        return first, np.flatnonzero(members & ~np.concatenate((joined, [False])))


def find_fusions(
    trace: Trace,
    stages: Stages,
    attribution: Attribution | None = None,
    *,
    framework: str | None = None,
    tp_size: int | None = None,
    model: str | None = None,
    min_share: float = 1.0,
    within_us: float = WITHIN_US,
    min_support: float = MIN_SUPPORT,
    category: Callable[[str], str] = categorize,
) -> dict[str, Fusions]:
    """Per stage the known fusions that are missing and those that are present.

    `framework` is sglang, vllm, trtllm or tokenspeed, None for all; patterns of one model apply when `model` holds its
    name, and less surely when it is None. Patterns for several ranks apply when `tp_size` says so, or, when it is
    None, when the trace has collectives. Chains below `min_share` percent of the stage's kernel time are left out.
    """
    kinds = on_devices(trace, category)
    seen = set(np.unique(trace.kernels.name).tolist())
    ranks = tp_size > 1 if tp_size is not None else any(kinds[name] == "communication" for name in seen)
    wanted = [p for p in catalogue().patterns if _applies(p, framework, model, ranks)]
    found = _Search(trace, stages, kinds, within_us * 1000, min_support)
    result = {}
    for number, stage in enumerate(stages.names):
        time = found.kernel_time(number)
        present = [row for pattern in wanted if (row := found.present(pattern, number, stage, time))]
        matches = [match for pattern in wanted for match in found.missing(pattern, number)]
        steps = sum(step.stage == stage for step in stages.steps)
        whole = time if steps else found.kernel_time(None)  # what is in no step counts against everything
        matches = [m for m in matches if 100 * m.related >= max(min_share, m.pattern.min_share) * whole]
        used = {row["pattern_id"] for row in present}
        scopes = scopes_of(trace, attribution, stages, number) if matches else []
        rows = [
            _row(match, others, trace, stage, time, steps, scopes, model, match.pattern.id in used)
            for match, others in _arbitrated(matches, trace)
        ]
        result[stage] = Fusions(rows, present, found.launch_bound(number))
    return result


def fuse_rows(
    trace: Trace, stages: Stages, attribution: Attribution | None = None, **options: Any
) -> dict[str, list[Row]]:
    """The opportunities of `find_fusions` alone."""
    return {stage: found.missing for stage, found in find_fusions(trace, stages, attribution, **options).items()}


def _applies(pattern: Pattern, framework: str | None, model: str | None, ranks: bool) -> bool:
    if framework is not None and pattern.framework != framework:
        return False
    if pattern.needs_tp and not ranks:
        return False
    name = (model or "").lower()
    if any(token in name for token in pattern.not_models if name):
        return False
    return not pattern.models or not name or any(token in name for token in pattern.models)


class _Search:
    """Looks for the catalogue's patterns in one trace."""

    def __init__(self, trace: Trace, stages: Stages, kinds: list[str], within_ns: float, min_support: float) -> None:
        self.trace, self.stages, self.kinds, self.min_support = trace, stages, kinds, min_support
        names = on_devices(trace, canonical)
        self.words = [words_of(name) for name in names]
        known: dict[str, int] = {}
        self.canon = np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int32)
        self.members: dict[str, Mask] = {}
        self._sequences: dict[bool, _Sequence] = {}
        self.within_ns = within_ns
        works = ((trace.kernels, stages.kernel), (trace.copies, stages.copy))
        self.totals = [_totals(work, stage, len(stages.names), len(trace.names)) for work, stage in works]

    def kernel_time(self, number: int | None) -> int:
        """All kernel time of a stage, or of all for None, ns; 1 where there is none, to divide by."""
        return int((self.totals[0] if number is None else self.totals[0][number]).sum()) or 1

    def launch_bound(self, number: int) -> bool:
        """Whether at least half of a stage's kernels begin later than allowed after the one before on their stream."""
        sequence = self._sequence(copies=False)
        inside = sequence.stage == number
        return int((inside & sequence.follows).sum()) * 2 < int(inside.sum()) - len(self.trace.streams)

    def _sequence(self, copies: bool) -> _Sequence:
        if copies not in self._sequences:
            self._sequences[copies] = _Sequence(self.trace, self.stages, self.canon, self.within_ns, copies)
        return self._sequences[copies]

    def _group(self, group: Group) -> Mask:
        """Which names are of the group."""
        if group.name not in self.members:
            named = zip(self.words, self.kinds, strict=True)
            held = [bool(words) and group.holds(words, kind) for words, kind in named]
            self.members[group.name] = np.array(held, dtype=np.bool_)
        return self.members[group.name]

    def present(self, pattern: Pattern, number: int, stage: str, time: int) -> Row | None:
        """The row of a fusion whose fused kernels ran in the stage."""
        ran = np.flatnonzero(self.totals[0][number])
        names = [int(name) for name in ran if pattern.is_active(self.words[int(name)])]
        if not names:
            return None
        total = int(self.totals[0][number][names].sum())
        return {
            "row_id": row_id(stage, "fused", pattern.id),
            "stage": stage,
            "pattern_id": pattern.id,
            "pattern": pattern.name,
            "framework": pattern.framework,
            "status": "present",
            "time_ms": total / 1e6,
            "share": 100 * total / time,
            "evidence": _evidence(names, self.trace, stage),
            "source": pattern.source,
        }

    def missing(self, pattern: Pattern, number: int) -> list[_Match]:
        """The chains of the pattern that the stage runs; of several only the one that would save most."""
        found = [match for chain in pattern.chains if (match := self._chain(pattern, chain, number)) is not None]
        return sorted(found, key=lambda match: -match.saving)[:1]

    def _chain(self, pattern: Pattern, chain: Sequence[Group], number: int) -> _Match | None:
        totals = self.totals[0][number] + self.totals[1][number]
        if not all(totals[self._group(group)].any() for group in chain):
            return None
        sequence = self._sequence(any(group.name == "fill" for group in chain))
        inside = sequence.stage == number
        runs = [sequence.runs(self._group(group)[sequence.name] & inside) for group in chain]
        places = _follow(sequence, runs)
        anchor = -1 if pattern.anchor == "last" else 0
        rows = self._supported(sequence, runs, places, anchor)
        if rows is None:
            return None
        kept, support = rows
        fused = [index for index, group in enumerate(chain) if group.name not in pattern.context]
        first, last = (np.stack([places[index][side][kept] for index in fused], axis=1) for side in (0, 1))
        parts = sequence.time[last + 1] - sequence.time[first]
        gaps = sequence.gap[last[:, -1]] - sequence.gap[first[:, 0]]
        names = np.unique(np.concatenate([sequence.name[_between(a, b)] for a, b in zip(first.T, last.T, strict=True)]))
        found = {canonical(self.trace.names[name]) for name in names.tolist()}
        return _Match(pattern, parts, gaps, names.tolist(), len(kept), support, found)

    def _supported(
        self, sequence: _Sequence, runs: list[tuple[I64, I64]], places: list[tuple[I64, I64]], anchor: int
    ) -> tuple[I64, float] | None:
        """The occurrences whose anchor kernel mostly is in the chain, and how often it is."""
        side = 1 if anchor == 0 else 0  # the end of the first run, the begin of the last one
        every, matched = sequence.canon[runs[anchor][side]], sequence.canon[places[anchor][side]]
        size = int(self.canon.max(initial=0)) + 1
        total, hits = np.bincount(every, minlength=size), np.bincount(matched, minlength=size)
        good = hits >= np.maximum(self.min_support * total, 1)
        kept = np.flatnonzero(good[matched])
        return (kept, float(hits[good].sum() / total[good].sum())) if len(kept) else None


def _totals(work: Any, stage: Any, stages: int, names: int) -> I64:
    """Time per stage and name, ns."""
    found = np.zeros(stages * names, dtype=np.int64)
    np.add.at(found, stage.astype(np.int64) * names + work.name, work.end - work.begin)
    return found.reshape(stages, names)


def _between(first: I64, last: I64) -> I64:
    """All places from each first to its last."""
    length = last - first + 1
    begin = np.repeat(first - np.concatenate(([0], np.cumsum(length)[:-1])), length)
    return begin + np.arange(int(length.sum()))


def _follow(sequence: _Sequence, runs: list[tuple[I64, I64]]) -> list[tuple[I64, I64]]:
    """The runs that follow one another as the groups do: per group first and last places, one row per occurrence."""
    chains = [runs[0]]
    for first, last in runs[1:]:
        end = chains[-1][1]
        at = np.minimum(np.searchsorted(first, end + 1), max(len(first) - 1, 0))
        hit = sequence.follows[end] & (first[at] == end + 1) if len(first) else np.zeros(len(end), dtype=np.bool_)
        chains = [(each[0][hit], each[1][hit]) for each in chains] + [(first[at[hit]], last[at[hit]])]
    return chains


def _arbitrated(matches: list[_Match], trace: Trace) -> list[tuple[_Match, list[_Match]]]:
    """The matches that can hold together, each with those that it displaces.

    Of matches that share a kernel the one with the higher priority holds, then the longer chain, then the one that
    saves more.
    """
    order = sorted(matches, key=lambda m: (-m.pattern.priority, -m.parts.shape[1], -m.saving, m.pattern.id))
    accepted: list[tuple[_Match, list[_Match]]] = []
    for match in order:
        for holder, displaced in accepted:
            if match.pattern.id in holder.pattern.subsumes or match.kernels & holder.kernels:
                displaced.append(match)
                break
        else:
            accepted.append((match, []))
    return sorted(accepted, key=lambda pair: (-pair[0].saving, pair[0].pattern.id))


def _evidence(names: Sequence[int], trace: Trace, stage: str) -> list[dict[str, str]]:
    kernels = dict.fromkeys(canonical(trace.names[name]) for name in names)
    return [{"row_id": row_id(stage, None, kernel), "kernel": kernel} for kernel in kernels]


def _row(
    match: _Match,
    displaced: list[_Match],
    trace: Trace,
    stage: str,
    time: int,
    steps: int,
    scopes: Sequence[str],
    model: str | None,
    partly: bool,
) -> Row:
    pattern, gap = match.pattern, int(match.gaps.sum())
    known = pattern.certain and bool(model or not pattern.models)
    likely = 100 * match.related >= pattern.likely_share * time and match.support >= SURE_SUPPORT and known
    locations = dict.fromkeys(scopes[name] for name in match.names if scopes[name])
    return {
        "row_id": row_id(stage, "fuse", pattern.id),
        "stage": stage,
        "pattern_id": pattern.id,
        "pattern": pattern.name,
        "framework": pattern.framework,
        "status": "missing",
        "confidence": "likely" if likely else "possible",
        "origin": pattern.origin,
        "related_ms": match.related / 1e6,
        "share": 100 * match.related / time,
        "saving_ms": match.saving / 1e6,
        "saving_share": 100 * match.saving / time,
        "saving_us_per_step": match.saving / 1000 / steps if steps else None,
        "gap_us": gap / 1000,
        "formula": FORMULA,
        "count": match.count,
        "support": match.support,
        "also_present": partly,
        "evidence": _evidence(match.names, trace, stage),
        "locations": list(locations)[:_LOCATIONS],
        "candidate": pattern.source,
        "knob": pattern.knob,
        "rationale": pattern.why,
        "caveats": catalogue().caveats.get(pattern.framework, []),
        "alternatives": [
            {"pattern_id": m.pattern.id, "pattern": m.pattern.name, "knob": m.pattern.knob, "saving_ms": m.saving / 1e6}
            for m in displaced
        ],
    }
