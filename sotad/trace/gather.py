"""Decoded events -> columns, batch by batch; nothing but columns and distinct names is kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotad.trace.columns import FLOW_PHASES, I32, I64, absent
from sotad.trace.decoding import Args, Batch, Event, Label, flow_id
from sotad.trace.kinds import NOUNS, ON_DEVICE, Kind, kind_of
from sotad.trace.times import NONE

ID_BITS = 62
LONGEST_NS = 2**47  # 39 hours; sums of longer ones may not fit 64 bits
Parts = dict[str, list[NDArray[Any]]]


class Place(NamedTuple):
    """What an event is and where it happened: a trace has few different ones."""

    phase: str
    category: str
    pid: Label
    tid: Label
    device: Label
    stream: Label
    cuda_stream: Label


class Numbered(dict[Any, int]):
    """A number for every key, counting from 0 in the order they come."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


class Gathered:
    """The events so far.

    ``tables[kind]`` are the parts of its columns: begin (nanoseconds from the reading's reference), length, name
    (number of ``names``), place (index of ``places``), external, correlation, for frames identity and parent, for
    work on a device graph and node; of flows begin, place and identity only. ``dropped`` counts what a kind lost, by
    reason; ``first`` is the earliest begin.
    """

    def __init__(self) -> None:
        self.names = Numbered()
        self.places: list[Place] = []
        self.tables: dict[Kind, Parts] = defaultdict(lambda: defaultdict(list))
        self.dropped: Counter[tuple[Kind, str]] = Counter()
        self.events, self.others, self.first = 0, 0, NONE
        self._numbers = Numbered()
        self._kinds = np.zeros(0, np.int8)
        self._timed = np.zeros(0, np.bool_)

    def add(self, batch: Batch) -> None:
        """Keep what is usable of a batch."""
        self.events += len(batch.events) + batch.others
        self.others += batch.others
        if not batch.events:
            return
        args = [event.args for event in batch.events]
        place = self._places(batch.events, args)
        self._note_first(batch.begin[self._timed[place] & (batch.begin != NONE)])
        kinds = self._kinds[place]
        columns: dict[str, NDArray[Any]] = {
            "begin": batch.begin,
            "length": batch.length,
            "name": np.array([self.names[event.name] for event in batch.events], np.int32),
            "place": place,
            "external": ids([arg.external for arg in args]),
            "correlation": ids([arg.correlation for arg in args]),
        }
        nodes = [arg.node for arg in args].count(-1) < len(args)  # a graph without nodes tells nothing
        for code in np.flatnonzero(np.bincount(kinds)).tolist():
            if code < Kind.FLOW:
                self._keep(Kind(code), np.flatnonzero(kinds == code), columns, args, nodes)
            elif code == Kind.FLOW:
                self._keep_flows(np.flatnonzero(kinds == code), columns, batch.events)
        self._count_unread(place[kinds == Kind.UNREAD])

    def _places(self, events: Sequence[Event], args: Sequence[Args]) -> I32:
        """The number of each event's place; what is new about places is learnt."""
        number = self._numbers
        found = [
            number[event.ph, event.cat, event.pid, event.tid, arg.device, arg.stream, arg.cuda_stream]
            for event, arg in zip(events, args, strict=True)
        ]
        fresh = [Place(*key) for key in islice(number, len(self.places), None)]
        if fresh:
            self.places += fresh
            self._kinds = np.append(self._kinds, np.array([_kind(place) for place in fresh], np.int8))
            self._timed = np.append(self._timed, np.array([place.phase != "M" for place in fresh], np.bool_))
        return np.array(found, np.int32)

    def _note_first(self, begin: I64) -> None:
        if len(begin):
            earliest = int(begin.min())
            self.first = earliest if self.first == NONE else min(earliest, self.first)

    def _keep(self, kind: Kind, rows: I64, columns: dict[str, NDArray[Any]], args: Sequence[Args], nodes: bool) -> None:
        begin, length = columns["begin"][rows], columns["length"][rows]
        untimed = begin == NONE
        unlasting = ~untimed & ((length == NONE) | (length > LONGEST_NS))
        negative = ~untimed & ~unlasting & (length < 0)
        none = ~untimed & (length == 0) if kind in ON_DEVICE else np.zeros(len(rows), np.bool_)
        reasons = {"no usable ts": untimed, "no usable dur": unlasting, "negative dur": negative, "dur 0": none}
        for reason, lost in reasons.items():
            self.dropped[kind, reason] += int(lost.sum())
        rows = rows[~(untimed | unlasting | negative | none)]
        table = self.tables[kind]
        for field, column in columns.items():
            table[field].append(column[rows])
        if kind is Kind.FRAME:
            inside = [args[row] for row in rows.tolist()]
            table["identity"].append(ids([arg.identity for arg in inside]))
            table["parent"].append(ids([arg.parent for arg in inside]))
        elif kind in ON_DEVICE:
            inside = [args[row] for row in rows.tolist()] if nodes else []
            graph, node = _of_graphs(inside) if nodes else (absent(len(rows)), absent(len(rows)))
            table["graph"].append(graph)
            table["node"].append(node)

    def _keep_flows(self, rows: I64, columns: dict[str, NDArray[Any]], events: Sequence[Event]) -> None:
        named = [events[row].id for row in rows.tolist()]
        identity = ids([flow_id(value) for value in named] if set(map(type, named)) != {int} else named)
        untimed, unnamed = columns["begin"][rows] == NONE, identity < 0
        self.dropped[Kind.FLOW, "no usable ts"] += int(untimed.sum())
        self.dropped[Kind.FLOW, "no usable id"] += int((unnamed & ~untimed).sum())
        kept = ~(untimed | unnamed)
        table = self.tables[Kind.FLOW]
        table["identity"].append(identity[kept])
        for field in ("begin", "place"):
            table[field].append(columns[field][rows[kept]])

    def _count_unread(self, place: I32) -> None:
        for number in place.tolist():
            where = self.places[number]
            self.dropped[kind_of(where.category, None), f"phase {where.phase!r} instead of X"] += 1


def _kind(place: Place) -> Kind:
    if place.phase in FLOW_PHASES:
        return Kind.FLOW
    kind = kind_of(place.category, place.stream if place.stream is not None else place.cuda_stream)
    if place.phase == "X":
        return kind
    return Kind.UNREAD if kind in NOUNS else Kind.NONE


def _of_graphs(args: Sequence[Args]) -> tuple[I64, I64]:
    """Ids of graphs and of their nodes; 0 is none."""
    graph, node = ids([arg.graph for arg in args]), ids([arg.node for arg in args])
    graph[graph == 0], node[node == 0] = -1, -1
    return graph, node


def ids(values: Sequence[int | None]) -> I64:
    """Ids as a column: -1 for none, folded into 62 bits if larger."""
    try:
        column = np.array(values, np.int64)
    except (TypeError, OverflowError):
        column = np.array([-1 if value is None or value < 0 else value % 2**ID_BITS for value in values], np.int64)
    column[column < 0] = -1
    return column
