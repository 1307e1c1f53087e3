"""Text of a list of events -> their fields.

Nearly every piece decodes straight into typed objects that take only the fields wanted; the rest of an event is
passed over. A piece with surprises ("None", NaN, an id that is no number, bytes that are no UTF-8) is decoded again
by Python's more lenient decoder and made to fit, event by event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import nan
from typing import Any

import numpy as np
from msgspec import DecodeError, Struct, field
from msgspec.json import Decoder

from sotad.trace.columns import I64
from sotad.trace.layout import NotJson
from sotad.trace.times import MOST_DIGITS, NONE, REACH_NS, exact_ns, quick_ns, within_reach

Label = int | str | None
Identity = int | float | str | None


class Args(Struct, gc=False, frozen=True):
    """What is wanted of an event's `args`."""

    external: int | None = field(name="External id", default=-1)
    correlation: int | None = -1
    device: Label = None
    stream: Label = None
    cuda_stream: Label = None
    identity: int | None = field(name="Python id", default=-1)
    parent: int | None = field(name="Python parent id", default=-1)
    graph: int | None = field(name="graph id", default=-1)
    node: int | None = field(name="graph node id", default=-1)


NULLS = ("", "none", "null", "nan")
NO_ARGS = Args()
_EXACT = 2**53  # from here on a float does not tell whole numbers apart
_SURPRISES = (DecodeError, UnicodeDecodeError, RecursionError)


class Event(Struct, gc=False):
    """What is wanted of an event; `ts` and `dur` in microseconds, NaN if there is none."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: Label = None
    tid: Label = None
    ts: int | float = nan
    dur: int | float = nan
    args: Args = NO_ARGS
    id: Identity = None


class _Times(Struct, gc=False):
    ts: Decimal | None = None
    dur: Decimal | None = None


@dataclass(slots=True)
class Batch:
    """Events with their times in nanoseconds (`times.NONE`: not usable), `begin` from the reading's reference on.

    `others` counts members of the list that are no objects.
    """

    events: list[Event]
    begin: I64
    length: I64
    others: int = 0


class Reading:
    """Decodes pieces; times count from `reference_ns`, the first time in the file that is not metadata's."""

    def __init__(self) -> None:
        self.reference_ns: int | None = None
        self._events = Decoder(list[Event], strict=False)
        self._times = Decoder(list[_Times])

    def decode(self, text: bytes) -> Batch:
        """The events of a piece.

        Raises:
            NotJson: it is no whole list.
        """
        try:
            events = self._events.decode(text)
        except _SURPRISES:
            return self._lenient(text)
        begin, length = quick_ns([event.ts for event in events]), quick_ns([event.dur for event in events])
        if begin is None or length is None:
            return self._exact(text, events)
        if self.reference_ns is None:
            self._refer(events, begin.tolist())
        return Batch(events, self._shifted(begin), length)

    def _exact(self, text: bytes, events: list[Event]) -> Batch:
        try:
            times = self._times.decode(text)
        except _SURPRISES:
            return self._lenient(text)
        return self._batch(events, [exact_ns(each.ts) for each in times], [exact_ns(each.dur) for each in times])

    def _lenient(self, text: bytes) -> Batch:
        try:
            items = json.loads(text.decode("utf-8", "replace"), strict=False, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise NotJson(str(error)) from error
        found = [item for item in items if isinstance(item, dict)]
        begin, length = [exact_ns(item.get("ts")) for item in found], [exact_ns(item.get("dur")) for item in found]
        batch = self._batch([_event(item) for item in found], begin, length)
        batch.others = len(items) - len(found)
        return batch

    def _batch(self, events: list[Event], begin: list[int | None], length: list[int | None]) -> Batch:
        if self.reference_ns is None:
            self._refer(events, begin)
        return Batch(events, within_reach(begin, self.reference_ns or 0), within_reach(length, 0))

    def _refer(self, events: list[Event], begin: Sequence[int | None]) -> None:
        times = (
            time for event, time in zip(events, begin, strict=True) if event.ph != "M" and time not in (None, NONE)
        )
        self.reference_ns = next(times, None)

    def _shifted(self, begin: I64) -> I64:
        reference = self.reference_ns or 0
        if abs(reference) >= REACH_NS:
            return within_reach([None if time == NONE else time for time in begin.tolist()], reference)
        return np.where(begin == NONE, NONE, begin - reference)


def _event(item: Mapping[str, Any]) -> Event:
    """An event of whatever types its fields are."""
    args = item.get("args")
    return Event(
        ph=_text(item.get("ph")),
        cat=_text(item.get("cat")),
        name=_text(item.get("name")),
        pid=_label(item.get("pid")),
        tid=_label(item.get("tid")),
        args=_args(args) if isinstance(args, dict) else NO_ARGS,
        id=_label(item.get("id")),
    )


def _args(args: Mapping[str, Any]) -> Args:
    return Args(
        external=_integer(args.get("External id")),
        correlation=_integer(args.get("correlation")),
        device=_label(args.get("device")),
        stream=_label(args.get("stream")),
        cuda_stream=_label(args.get("cuda_stream")),
        identity=_integer(args.get("Python id")),
        parent=_integer(args.get("Python parent id")),
        graph=_integer(args.get("graph id", -1)),
        node=_integer(args.get("graph node id", -1)),
    )


def flow_id(value: Identity) -> int | None:
    """The id of a flow: a whole number from 0 on, or text of one, also hexadecimal; None for anything else."""
    if isinstance(value, str) and value[:2].lower() == "0x":
        try:
            return int(value, 16)
        except ValueError:
            return None
    whole = _integer(value) if not isinstance(value, float) or abs(value) < _EXACT else None
    return None if whole is None or whole < 0 else whole


def _text(value: object) -> str:
    """As text that can be written again: half a surrogate pair, which JSON allows, becomes a question mark."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def _label(value: object) -> Label:
    whole = _integer(value)
    return whole if whole is not None or str(value).strip().lower() in NULLS else _text(value)


def _integer(value: object) -> int | None:
    """An integer given as one, as an integral float or as text; None for anything else."""
    if isinstance(value, int):
        return int(value)
    try:
        number = Decimal(str(value).strip())
        return int(number) if number.adjusted() < MOST_DIGITS and number == number.to_integral_value() else None
    except (InvalidOperation, OverflowError, ValueError):
        return None
