"""The GPUs of a campaign: which were leased, how long it waited for them, what they showed while it measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from sotad.report.document import Block, Items, Table, Text
from sotad.report.facts import Facts, cite, cite_range, number, said
from statemachine.state import JSON

LEASED = ("GPU", "uuid", "name", "memory, MiB", "in use before the campaign, MiB", "leased")
SHOWN = (
    *("GPU", "samples", "memory most, MiB", "load, %", "power mean, W", "power most, W", "most, °C", "SM clock, MHz"),
    *("held down by", "ECC errors", "events"),
)
MOST = ("power_w_most", "temperature_c_most")
WAITS = ("resource.wait_started", "resource.wait_ended", "resource.wait_expired")


def gpu_blocks(f: Facts) -> list[Block]:
    """Leases, waits and telemetry; nothing for a campaign that names no GPUs."""
    leases = [event for event in f.all("lease.granted") if event.payload.get("gpus")]
    if not leases:
        return []
    rows = [
        [*(said(gpu.get(key)) for key in ("index", "uuid", "name", "memory_total_mib", "level_mib")), cite(*leases)]
        for gpu in leases[-1].payload["gpus"]
    ]
    return [Table(LEASED, rows), Items(list(_waits(f)), empty="it never waited for them"), *_shown(f)]


def _waits(f: Facts) -> Iterator[str]:
    for event in f.all(*WAITS):
        p = event.payload
        if event.type == "resource.wait_started":
            yield f"waited for: {p['holder']} {cite(event)}"
        elif event.type == "resource.wait_ended":
            yield f"free after {p['waited_s']:.0f} s {cite(event)}"
        else:
            yield f"not free in time: {'; '.join(p.get('reasons') or ()) or 'see the wait'} {cite(event)}"


def _shown(f: Facts) -> list[Block]:
    """One row a GPU over all samples, and GPUs that were leased and that none of our processes was seen on."""
    seen: dict[str, list[tuple[int, JSON]]] = defaultdict(list)
    for event in f.all("benchmark.finished", "benchmark.disturbed"):
        for gpu in (event.payload.get("gpus") or {}).get("gpus", ()):
            seen[gpu["uuid"]].append((event.seq, gpu))
    if not seen:
        return []
    note = Text("While samples were measured, disturbed ones included; every reading is in the samples' artifacts.")
    rows = [_row(found) for found in seen.values()]
    return [note, Table(SHOWN, rows), Items([*_unused(seen.values()), *_host_cpu(f)], empty="")]


def _row(found: Sequence[tuple[int, JSON]]) -> list[str]:
    gpus = [gpu for _, gpu in found]
    clocks = _several(gpus, "sm_clock_mhz")
    return [
        str(gpus[0]["index"]),
        str(len(gpus)),
        said(max(_known(_several(gpus, "memory_mib")), default=None)),
        *(number(_mean([gpu.get(key) for gpu in gpus]), 0) for key in ("utilization_pct", "power_w")),
        *(said(max(_known(gpu.get(key) for gpu in gpus), default=None)) for key in MOST),
        f"{min(clocks)}-{max(clocks)}" if clocks else said(None),
        _held_down(gpus),
        _errors(gpus),
        cite_range(seq for seq, _ in found),
    ]


def _held_down(gpus: Sequence[JSON]) -> str:
    total: dict[str, float] = defaultdict(float)
    for gpu in gpus:
        for reason, ms in gpu.get("throttled_ms", {}).items():
            total[reason] += ms
    return ", ".join(f"{reason.replace('_', ' ')} {ms:.0f} ms" for reason, ms in sorted(total.items())) or "nothing"


def _errors(gpus: Sequence[JSON]) -> str:
    counts = [(kind, _known(gpu.get(f"ecc_{kind}") for gpu in gpus)) for kind in ("corrected", "uncorrected")]
    return ", ".join(f"{sum(known)} {kind}" for kind, known in counts if known) or said(None)


def _unused(found: Iterable[Sequence[tuple[int, JSON]]]) -> Iterator[str]:
    for samples in found:
        idle = [seq for seq, gpu in samples if gpu.get("used") is False]
        if idle:
            index = samples[0][1]["index"]
            yield f"GPU {index} was leased, and no process of ours was on it in {len(idle)} samples {cite_range(idle)}"


def _host_cpu(f: Facts) -> Iterator[str]:
    """What is usual, and the sample with most of it: of an engine that waits for its CPU, a slow run may show here."""
    events = f.all("benchmark.finished", "benchmark.disturbed")
    samples = [((event.payload.get("gpus") or {}).get("cpu") or {}, event.seq) for event in events]
    for figure, what in (("busy_cores", "were busy"), ("stolen_cores", "were stolen by its hypervisor")):
        found = [(cpu[figure], seq) for cpu, seq in samples if figure in cpu]
        if found:
            middle, (most, seq) = median(cores for cores, _ in found), max(found)
            yield f"of the host's CPU {middle:.2f} cores {what} in the median sample, {most:.2f} at most {cite(seq)}"


def _several(gpus: Sequence[JSON], key: str) -> list[Any]:
    """The values of a figure that has more than one, of all samples; none where it was not recorded."""
    return [value for gpu in gpus if isinstance(gpu.get(key), list) for value in gpu[key]]


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[Any]) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None
