"""Gathered columns -> a Trace in the one order that its content gives, whatever the order of the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotad.trace.columns import Frames, Spans, Trace, Work
from sotad.trace.gather import Gathered, Parts
from sotad.trace.kinds import NOUNS, ON_DEVICE, Kind, is_scope
from sotad.trace.places import Sites, sites
from sotad.trace.times import NONE

Columns = dict[str, NDArray[Any]]
_IDS = ("external", "correlation", "identity", "parent")
_TIES = ("parent", "identity", "correlation", "external", "stream", "device", "thread", "name")


def assemble(path: str, gathered: Gathered, reference_ns: int, facts: dict[str, Any]) -> Trace:
    """The trace; empties what was gathered. Its times counted from `reference_ns` so far."""
    _adopt_strays(gathered)
    tables = {kind: _joined(gathered.tables.pop(kind, {}), kind is Kind.FRAME) for kind in NOUNS}
    placed = sites(gathered.places, _used(tables, NOUNS), _used(tables, ON_DEVICE))
    names = _rename(tables, list(gathered.names))
    first = 0 if gathered.first == NONE else gathered.first
    for kind, table in tables.items():
        _place(table, placed, kind in ON_DEVICE)
        table["begin"] -= first
        table["end"] = table.pop("length")
        table["end"] += table["begin"]
    tables[Kind.CALL] = _launches(tables[Kind.CALL], names, [tables[Kind.KERNEL], tables[Kind.COPY]])
    for table in tables.values():
        _sort(table)
    return Trace(
        path=path,
        origin_ns=reference_ns + first,
        names=names,
        threads=placed.threads,
        devices=placed.devices,
        streams=placed.streams,
        kernels=Work(**tables[Kind.KERNEL]),
        copies=Work(**tables[Kind.COPY]),
        ops=Spans(**tables[Kind.OP]),
        launches=Spans(**tables[Kind.CALL]),
        frames=Frames(**tables[Kind.FRAME]),
        marks=Spans(**tables[Kind.MARK]),
        gpu_marks=Work(**tables[Kind.GPU_MARK]),
        facts=facts,
        dropped=_dropped(gathered),
        events=gathered.events,
    )


def _adopt_strays(gathered: Gathered) -> None:
    """Work of exporters that know no category `kernel` counts as kernels; beside real kernels it is something else."""
    seen = {kind for kind, _ in +gathered.dropped} | {kind for kind, table in gathered.tables.items() if table}
    strays = gathered.tables.pop(Kind.STRAY, {})
    lost = [key for key in gathered.dropped if key[0] is Kind.STRAY]
    reasons = {reason: gathered.dropped.pop((kind, reason)) for kind, reason in lost}
    if Kind.KERNEL in seen:
        return
    names = list(gathered.names)
    scopes = np.array([is_scope(name) for name in names], np.bool_)
    for number, part in enumerate(strays.get("name", [])):
        kept = ~scopes[part]
        for field in strays:
            gathered.tables[Kind.KERNEL][field].append(strays[field][number][kept])
    for reason, count in reasons.items():
        gathered.dropped[Kind.KERNEL, reason] += count


def _joined(parts: Parts, frames: bool) -> Columns:
    """Whole columns; the parts are let go one column at a time."""
    narrow = ("name", "place")
    wanted = ("begin", "length", *narrow, "external", "correlation", *(("identity", "parent") if frames else ()))
    empty = {field: np.zeros(0, np.int32 if field in narrow else np.int64) for field in wanted}
    return {field: np.concatenate(parts.pop(field, [empty[field]])) for field in wanted}


def _used(tables: dict[Kind, Columns], kinds: Iterable[Kind]) -> list[int]:
    """Numbers of the places in these tables."""
    found = [np.unique(tables[kind]["place"]) for kind in kinds if kind in tables]
    return [int(number) for number in np.unique(np.concatenate(found))]


def _rename(tables: dict[Kind, Columns], names: list[str]) -> list[str]:
    """The names in use, sorted; the tables' numbers become indexes of them."""
    used = np.zeros(len(names), np.bool_)
    for table in tables.values():
        used[table["name"]] = True
    order = sorted(np.flatnonzero(used).tolist(), key=names.__getitem__)
    index = np.zeros(len(names), np.int32)
    index[order] = np.arange(len(order), dtype=np.int32)
    for table in tables.values():
        table["name"] = index[table["name"]]
    return [names[number] for number in order]


def _place(table: Columns, placed: Sites, on_device: bool) -> None:
    """Thread, device and stream instead of the place; ids of different ranks apart."""
    place = table.pop("place")
    table["thread"] = placed.thread[place]
    if on_device:
        table["device"], table["stream"] = placed.device[place], placed.stream[place]
    if placed.offset.any():
        for field in _IDS:
            if field in table:
                table[field] += np.where(table[field] < 0, 0, placed.offset[place])


def _launches(calls: Columns, names: Sequence[str], work: Sequence[Columns]) -> Columns:
    """The calls named a launch, and those whose correlation some work on a device carries."""
    named = np.array(["launch" in name.lower() for name in names] or [False], np.bool_)
    kept = named[calls["name"]] if len(calls["name"]) else np.zeros(0, np.bool_)
    others = np.flatnonzero(~kept & (calls["correlation"] >= 0))
    for each in work:
        kept[others] |= np.isin(calls["correlation"][others], each["correlation"])
    return {field: column[kept] for field, column in calls.items()}


def _sort(table: Columns) -> None:
    """By begin, longer first; equals by everything else, so that the file's order does not matter."""
    begin = table["begin"]
    if len(begin) < 2 or bool((begin[1:] > begin[:-1]).all()):
        return
    order = np.argsort(begin, kind="stable")
    later = np.diff(begin[order]) > 0
    if not later.all():
        run = np.concatenate(([0], np.cumsum(later)))
        tied = np.flatnonzero(~(np.append(True, later) & np.append(later, True)))
        rows = order[tied]
        ties = [table[field][rows] for field in _TIES if field in table]
        order[tied] = rows[np.lexsort((*ties, -table["end"][rows], run[tied]))]
    for field in table:
        table[field] = table[field][order]


def _dropped(gathered: Gathered) -> dict[str, int]:
    """Counts by what was lost and why, as text."""
    told = {f"{NOUNS[kind]}: {reason}": count for (kind, reason), count in sorted(gathered.dropped.items()) if count}
    return told | ({"members of the list that are no objects": gathered.others} if gathered.others else {})
