"""Threads, devices and streams of a trace, and whose ids are whose."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sotad.trace.columns import I32, I64
from sotad.trace.decoding import Label
from sotad.trace.gather import Place

RANK_BITS = 48
_RANK = re.compile(r"\[([^\]]*)\]\s*")
_NONE = -1


@dataclass(frozen=True, slots=True)
class Sites:
    """What numbers of places stand for: per place its thread, device and stream (-1: none), and the `offset` that
    keeps the ids of merged ranks apart."""

    threads: list[tuple[str, str]]
    devices: list[str]
    streams: list[tuple[int, str]]
    thread: I32
    device: I32
    stream: I32
    offset: I64


def sites(places: Sequence[Place], used: Iterable[int], on_device: Iterable[int]) -> Sites:
    """The sites of the places with numbers in `used`; those in `on_device` have a device and a stream.

    Files of several ranks merged into one mark each process like `[TP01] 4242`. The ranks' ids count from the same
    numbers, so `offset` lets the ids of the k-th rank (in natural order) begin at k * 2**48.
    """
    thread_of = {number: (_text(places[number].pid), _text(places[number].tid)) for number in used}
    rank_of = {number: _rank(thread[0]) for number, thread in thread_of.items()}
    device_of = _devices({number: places[number] for number in on_device})
    ranks, threads = _ordered(rank_of.values()), _ordered(thread_of.values())
    devices = _ordered(device_of.values())
    device_index = {device: index for index, device in enumerate(devices)}
    stream_of = {number: (device_index[device], _stream(places[number])) for number, device in device_of.items()}
    streams = _ordered(stream_of.values())
    return Sites(
        threads=threads,
        devices=devices,
        streams=streams,
        thread=_column(len(places), thread_of, threads),
        device=_column(len(places), device_of, devices),
        stream=_column(len(places), stream_of, streams),
        offset=_column(len(places), rank_of, ranks).clip(min=0).astype(np.int64) << RANK_BITS,
    )


def _column(length: int, key_of: Mapping[int, Any], keys: Sequence[Any]) -> I32:
    index = {key: number for number, key in enumerate(keys)}
    column = np.full(length, _NONE, np.int32)
    for number, key in key_of.items():
        column[number] = index[key]
    return column


def _devices(places: Mapping[int, Place]) -> dict[int, str]:
    """The device of each place: its process (Kineto's pid of GPU events is the device), and `args.device` where that
    says more."""
    named: dict[str, set[str]] = defaultdict(set)
    for place in places.values():
        if place.device is not None:
            named[_text(place.pid)].add(str(place.device))
    return {number: _device(place, named[_text(place.pid)]) for number, place in places.items()}


def _device(place: Place, named: set[str]) -> str:
    process = _text(place.pid)
    device = str(place.device) if place.device is not None else next(iter(named)) if len(named) == 1 else None
    return process if device in (None, _RANK.sub("", process)) else f"{process} device {device}"


def _stream(place: Place) -> str:
    named = place.stream if place.stream is not None else place.cuda_stream
    return str(named) if named is not None else _text(place.tid)


def _rank(process: str) -> str:
    found = _RANK.match(process)
    return found[1] if found else ""


def _text(label: Label) -> str:
    return "" if label is None else str(label)


def _ordered(keys: Iterable[Any]) -> list[Any]:
    """The different keys, texts with numbers in them by the numbers."""
    return sorted(set(keys), key=_natural)


def _natural(key: Any) -> list[list[tuple[bool, int | str]]]:
    parts = key if isinstance(key, tuple) else (key,)
    pieces = [re.split(r"(\d+)", str(part)) for part in parts]
    return [[(text.isdecimal(), int(text) if text.isdecimal() else text) for text in each] for each in pieces]
