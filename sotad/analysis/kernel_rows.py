"""The kernel table: per stage, which kernels its GPU time went into and where in the source they come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from sotad.analysis.attribution import UNRESOLVED, Attribution, Site
from sotad.analysis.canonical import canonical
from sotad.analysis.categories import categorize
from sotad.analysis.mapping import DIRECT, MATCHED, NONE, Analysed, Mapped, map_through
from sotad.analysis.rows import row_id, spread
from sotad.analysis.stages import Stages
from sotad.trace.columns import I32, I64, Trace, Work

Row = dict[str, Any]


def kernel_rows(
    trace: Trace,
    stages: Stages,
    attribution: Attribution,
    mapping: tuple[Trace, Stages, Attribution] | Mapped | None = None,
) -> dict[str, list[Row]]:
    """Per stage a row for every kernel by its canonical name, most time first.

    ``time_ms`` and ``count`` are of the whole stage, ``share`` is percent of all kernel time of the stage.
    ``per_step_ms`` and ``mad_ms`` are median and median absolute deviation over the stage's steps (a step without the
    kernel counts as 0), ``steps`` how many steps have it. ``locations`` are the places that launch it, with the
    ``share`` of the row's time in percent, the operator, and how the place is known: ``matched`` is `direct`, by
    `position` or `name` through the `mapping` trace of the same model, or `none`; ``replay`` marks the line that
    replays a CUDA graph. `mapping` is (trace, stages, attribution) of a trace without CUDA graphs, or what one says.
    """
    mapped = _mapped(trace, stages, attribution, mapping)
    return _tables(trace, trace.kernels, stages, stages.kernel, stages.kernel_step, mapped)


def copy_rows(trace: Trace, stages: Stages, attribution: Attribution) -> dict[str, list[Row]]:
    """The same rows for copies and fills; shares are percent of all copy time of the stage."""
    matched = np.where(attribution.located()[attribution.copy_site], DIRECT, NONE).astype(np.int32)
    mapped = Mapped(attribution.sites, attribution.copy_site, matched)
    return _tables(trace, trace.copies, stages, stages.copy, stages.copy_step, mapped)


def _mapped(
    trace: Trace, stages: Stages, attribution: Attribution, mapping: tuple[Trace, Stages, Attribution] | Mapped | None
) -> Mapped:
    if isinstance(mapping, Mapped):
        return mapping
    if mapping is not None:
        return map_through(Analysed(trace, stages, attribution), Analysed(*mapping))
    matched = np.where(attribution.located()[attribution.kernel_site], DIRECT, NONE).astype(np.int32)
    return Mapped(attribution.sites, attribution.kernel_site, matched)


def _tables(trace: Trace, work: Work, stages: Stages, stage: I32, step: I32, mapped: Mapped) -> dict[str, list[Row]]:
    texts: dict[str, int] = {}
    number = np.zeros(len(trace.names), np.int64)
    for name in np.unique(work.name):
        number[name] = texts.setdefault(canonical(trace.names[name]), len(texts))
    names, width = list(texts), max(1, len(texts))
    time = work.end - work.begin
    keys, index, count = np.unique(stage * width + number[work.name], return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    total = _sums(index, time, len(keys))
    whole = _sums(stage.astype(np.int64), time, len(stages.names))
    steps = {name: sum(each.stage == name for each in stages.steps) for name in stages.names}
    per_step = _per_step(index, step, time, len(keys))
    places = _places(index, time, total, mapped, len(keys))
    tables: dict[str, list[Row]] = {name: [] for name in stages.names}
    for i, key in enumerate(keys.tolist()):
        of, text = stages.names[key // width], names[key % width]
        median, mad = spread(per_step[i], steps[of])
        all_time = int(whole[key // width])
        tables[of].append(
            {
                "row_id": row_id(of, None, text),
                "stage": of,
                "name": text,
                "category": categorize(text),
                "time_ms": int(total[i]) / 1e6,
                "share": 100 * int(total[i]) / all_time if all_time else 0.0,
                "count": int(count[i]),
                "steps": len(per_step[i]),
                "per_step_ms": median / 1e6,
                "mad_ms": mad / 1e6,
                "locations": places[i],
            }
        )
    for rows in tables.values():
        rows.sort(key=lambda row: (-row["time_ms"], row["row_id"]))
    return tables


def _sums(index: I64, values: I64, length: int) -> I64:
    """Exact sums of ns per index."""
    sums = np.zeros(length, np.int64)
    np.add.at(sums, index, values)
    return sums


def _per_step(index: I64, step: I32, time: I64, rows: int) -> list[I64]:
    """For each row its ns in every step that has it."""
    inside = np.flatnonzero(step >= 0)
    if not len(inside):
        return [np.empty(0, np.int64)] * rows
    width = int(step.max()) + 1
    pairs, place = np.unique(index[inside] * width + step[inside], return_inverse=True)
    sums = _sums(place.reshape(-1), time[inside], len(pairs))
    return np.split(sums, np.searchsorted(pairs // width, np.arange(1, rows)))


def _places(index: I64, time: I64, total: I64, mapped: Mapped, rows: int) -> list[list[Row]]:
    """For each row its places in the source by their share of its time."""
    numbers: dict[tuple[str, str, bool], int] = {}
    of_site = [numbers.setdefault((s.location, s.op, s.replay), len(numbers)) for s in mapped.sites]
    width = len(numbers) * len(MATCHED)
    key = index * width + np.array(of_site, np.int64)[mapped.kernel_site] * len(MATCHED) + mapped.matched
    unique, first, place = np.unique(key, return_index=True, return_inverse=True)
    sums = _sums(place.reshape(-1), time, len(unique))
    found: list[list[Row]] = [[] for _ in range(rows)]
    for each, at, amount in zip((unique // width).tolist(), first, sums.tolist(), strict=True):
        share = 100 * amount / int(total[each]) if total[each] else 0.0
        found[each].append(_place(mapped.sites[mapped.kernel_site[at]], MATCHED[mapped.matched[at]], share))
    for entries in found:
        entries.sort(key=lambda entry: (-entry["share"], entry["location"] == UNRESOLVED, entry["location"]))
    return found


def _place(site: Site, matched: str, share: float) -> Row:
    return {"location": site.location, "share": share, "op": site.op, "matched": matched, "replay": site.replay}
