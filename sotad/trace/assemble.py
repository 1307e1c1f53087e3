"""Gathered columns -> a Trace in the one order that its content gives, whatever the order of the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotad.trace.arrows import among, at_beginning
from sotad.trace.columns import FLOW_PHASES, FLOW_START, I64, Flows, Frames, Spans, Trace, Work, no_flows
from sotad.trace.gather import Gathered, Parts
from sotad.trace.kinds import NOUNS, ON_DEVICE, SPANS, Kind, is_scope
from sotad.trace.places import Sites, sites
from sotad.trace.times import NONE

Columns = dict[str, NDArray[Any]]
_IDS = ("external", "correlation", "identity", "parent")
_TIES = ("node", "graph", "parent", "identity", "correlation", "external", "stream", "device", "thread", "name")
_FLOW_TIES = ("phase", "category", "thread", "identity")


def assemble(path: str, gathered: Gathered, reference_ns: int, facts: dict[str, Any]) -> Trace:
    """The trace; empties what was gathered. Its times counted from `reference_ns` so far."""
    _adopt_strays(gathered)
    arrows = _joined(gathered.tables.pop(Kind.FLOW, {}), ("begin", "place", "identity"))
    tables: dict[Kind, Columns] = {kind: _joined(gathered.tables.pop(kind, {}), _columns(kind)) for kind in SPANS}
    placed = sites(
        gathered.places, _used([*tables.values(), arrows]), _used(tables[kind] for kind in ON_DEVICE if kind in tables)
    )
    names = _rename(tables, list(gathered.names))
    first = 0 if gathered.first == NONE else gathered.first
    flows = _flows(arrows, gathered, placed, first)
    for kind, table in tables.items():
        _place(table, placed, kind in ON_DEVICE)
        table["begin"] -= first
        table["end"] = table.pop("length")
        table["end"] += table["begin"]
    for table in tables.values():
        _sort(table, _TIES)
    tables[Kind.CALL] = _launches(tables[Kind.CALL], names, [tables[Kind.KERNEL], tables[Kind.COPY]], flows)
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
        flows=flows,
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


def _columns(kind: Kind) -> tuple[str, ...]:
    own = ("identity", "parent") if kind is Kind.FRAME else ("graph", "node") if kind in ON_DEVICE else ()
    return ("begin", "length", "name", "place", "external", "correlation", *own)


def _joined(parts: Parts, wanted: Iterable[str]) -> Columns:
    """Whole columns; the parts are let go one column at a time. Of ids of graphs no column where there is none."""
    joined: Columns = {}
    for field in wanted:
        empty: NDArray[Any] = np.zeros(0, np.int32 if field in ("name", "place") else np.int64)
        found = parts.pop(field, [empty])
        if field not in ("graph", "node") or any((part >= 0).any() for part in found):
            joined[field] = np.concatenate(found)
    return joined


def _used(tables: Iterable[Columns]) -> list[int]:
    """Numbers of the places in these tables."""
    return [int(number) for number in np.unique(np.concatenate([np.unique(table["place"]) for table in tables]))]


def _flows(table: Columns, gathered: Gathered, placed: Sites, first: int) -> Flows:
    """The flows in their order; empties the table."""
    if not len(table["place"]):
        return no_flows()
    used = _used([table])
    phase, category = (np.zeros(len(gathered.places), np.int32) for _ in range(2))
    categories = sorted({gathered.places[number].category for number in used})
    phase[used] = [FLOW_PHASES.index(gathered.places[number].phase) for number in used]
    number_of = {name: number for number, name in enumerate(categories)}
    category[used] = [number_of[gathered.places[number].category] for number in used]
    place = table.pop("place")
    table["identity"] += placed.offset[place]
    table["begin"] -= first
    table |= {"thread": placed.thread[place], "category": category[place], "phase": phase.astype(np.int8)[place]}
    _sort(table, _FLOW_TIES)
    return Flows(time=table.pop("begin"), **table, categories=categories)


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


def _launches(calls: Columns, names: Sequence[str], work: Sequence[Columns], flows: Flows) -> Columns:
    """The calls named a launch, and those that put some work on a device, by its correlation or a flow to it."""
    named = np.array(["launch" in name.lower() for name in names] or [False], np.bool_)
    kept = named[calls["name"]] if len(calls["name"]) else np.zeros(0, np.bool_)
    others = np.flatnonzero(~kept & (calls["correlation"] >= 0))
    for each in work:
        kept[others] |= np.isin(calls["correlation"][others], each["correlation"])
    if len(flows):
        kept[_started(calls, work, flows)] = True
    return {field: column[kept] for field, column in calls.items()}


def _started(calls: Columns, work: Sequence[Columns], flows: Flows) -> I64:
    """Rows of the calls from which a flow leads to work whose correlation names no call. (Calls that wait for a
    device start flows as well.)"""
    led: list[I64] = []
    for each in work:
        orphan = (each["correlation"] < 0) | ~np.isin(each["correlation"], calls["correlation"])
        at = np.flatnonzero((flows.phase != FLOW_START) & among(flows.time, each["begin"][orphan]))
        row = at_beginning(flows.time[at], flows.thread[at], each["begin"], each["thread"])
        led.append(flows.identity[at[row >= 0]])
    at = np.flatnonzero((flows.phase == FLOW_START) & np.isin(flows.identity, np.concatenate(led)))
    started = at_beginning(flows.time[at], flows.thread[at], calls["begin"], calls["thread"])
    return started[started >= 0]


def _sort(table: Columns, by: Sequence[str]) -> None:
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
        ties = [table[field][rows] for field in by if field in table]
        longer = [-table["end"][rows]] if "end" in table else []
        order[tied] = rows[np.lexsort((*ties, *longer, run[tied]))]
    for field in table:
        table[field] = table[field][order]


def _dropped(gathered: Gathered) -> dict[str, int]:
    """Counts by what was lost and why, as text."""
    told = {f"{NOUNS[kind]}: {reason}": count for (kind, reason), count in sorted(gathered.dropped.items()) if count}
    return told | ({"members of the list that are no objects": gathered.others} if gathered.others else {})
