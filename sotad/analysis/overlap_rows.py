"""Which kernels could run beside others: the rows of the overlap table, by exposed time per step.

Overlap helps only work that waits for something else than the GPU's arithmetic: communication first, then copies and
small kernels. Compute kernels that run alone are no opportunity, however long. What a kernel is tied to is judged from
the trace: tight neighbours on its own stream, and idle streams that start as soon as it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sotad.analysis.canonical import canonical
from sotad.analysis.catalogue import families_of
from sotad.analysis.categories import categorize
from sotad.analysis.cover import Cover
from sotad.analysis.neighbours import Around, Neighbours
from sotad.analysis.overlap import COMPUTE, Overlap
from sotad.analysis.rows import row_id
from sotad.analysis.scopes import scopes_of
from sotad.trace.columns import I64, Trace

if TYPE_CHECKING:
    from sotad.analysis.attribution import Attribution
    from sotad.analysis.stages import Stages

MEMORY = frozenset({"memory", "data_movement", "kv_write"})
OVERLAPPED = 0.05  # compute kernels that run beside others for less than this are no row
HIDDEN = 0.65  # from this share on, what is left to hide is not worth a change
ENOUGH = 8  # instances of either kind before they are compared
SAMPLES = 256  # instances of a kernel looked at for dependencies, evenly spread
_NONE: I64 = np.zeros(0, dtype=np.int64)
_SIDES = (("prev", "before"), ("next", "after"))

Row = dict[str, Any]


def overlap_class(category: str) -> str:
    """The coarse view of a category: compute, communication, memory, other or elementwise."""
    if category in COMPUTE:
        return "compute"
    if category in MEMORY:
        return "memory"
    return category if category in ("communication", "other") else "elementwise"


def same_scope_family(left: str, right: str) -> bool:
    """Whether two Python locations, `path:line func` or `path(line): func`, name one file or one function."""
    (file, function), (other_file, other_function) = _scope(left), _scope(right)
    return bool((file and file == other_file) or (function and function == other_function))


def _scope(text: str) -> tuple[str, str]:
    if "): " in text:
        place, function = text.split("): ", 1)
        return place.split("(", 1)[0], function
    place, _, function = text.partition(" ")
    return (place.rsplit(":", 1)[0] if ":" in place else ""), function


@dataclass(slots=True)
class _Group:
    """The kernels or copies of one stage and one canonical name.

    ``first`` is the first of its name ids, ``rows`` are indices into all work (copies come after the kernels).
    """

    name: str
    first: int
    category: str
    rows: I64


class _Everything:
    """Kernels and copies of a trace as one table."""

    def __init__(self, trace: Trace, stages: Stages, overlap: Overlap) -> None:
        parts = (trace.kernels, trace.copies)
        self.name = np.concatenate([part.name for part in parts])
        self.begin = np.concatenate([part.begin for part in parts])
        self.end = np.concatenate([part.end for part in parts])
        self.stream = np.concatenate([part.stream for part in parts])
        self.device = np.concatenate([part.device for part in parts])
        self.stage = np.concatenate((stages.kernel, stages.copy))
        shares = (overlap.kernels, overlap.copies)
        self.duration = np.concatenate([part.duration for part in shares])
        self.hidden = np.concatenate([part.hidden for part in shares])
        self.by_compute = np.concatenate([part.hidden_by_compute for part in shares])
        self.kernels = len(trace.kernels)


def overlap_rows(
    trace: Trace,
    stages: Stages,
    overlap: Overlap,
    attribution: Attribution | None = None,
    *,
    framework: str | None = None,
    scopes: Sequence[str] | None = None,
    min_share: float = 1.0,
    category: Callable[[str], str] = categorize,
) -> dict[str, list[Row]]:
    """Per stage the rows, most urgent and most exposed first, of work with `min_share` percent of its kernel time.

    In a stage without steps it is `min_share` percent of all kernel time, as what runs between steps is little.
    `scopes` are Python locations by name id, of another trace for instance; else they come from `attribution`.

    Keys: row_id, stage, kernel, category, class, priority (P1 to P4), verdict (`opportunity`, `exposed`, `serial`,
    `overlapped`, `hidden`), recommendation, python_scope, formal_signal, dep_risk (`low`, `unclear`, `high`),
    dep_sides, dep_evidence, count, steps, total_us, share, exclusive_ratio, hidden_ratio, hidden_by_compute_ratio,
    slowdown_when_overlapped (a factor, or None), exposed_us, exposed_us_per_step (over all of the stage's steps; None
    in a stage without steps), families.
    """
    table = _Everything(trace, stages, overlap)
    kinds = [category(name) for name in trace.names]
    canon = [canonical(name) for name in trace.names]
    scopes = scopes_of(trace, attribution) if scopes is None else scopes
    times = _kernel_times(table, len(stages.names))
    groups = {}
    for number, stage in enumerate(stages.names):
        whole = times[number] if overlap.stages[stage].steps else times.sum()  # what is in no step: of everything
        groups[stage] = _groups(table, number, canon, kinds, float(whole * min_share / 100))
    around = _look_around(table, groups, overlap.busy)
    found = {}
    for number, (stage, members) in enumerate(groups.items()):
        rows = []
        for index, group in enumerate(members):
            row = _measured(table, group, stage, overlap.stages[stage].steps, int(times[number]))
            row |= _risk(around.get((stage, index), []), trace, kinds, group, scopes)
            row |= {"python_scope": scopes[group.first], "families": families_of(group.name, framework)}
            rows.append(row | _judged(row, overlap.stages[stage].multi_stream_ns > 0))
        found[stage] = sorted(rows, key=lambda row: (row["priority"], -row["exposed_us"], row["row_id"]))
    return found


def _kernel_times(table: _Everything, stages: int) -> I64:
    """The time of all kernels of each stage, ns."""
    found = np.zeros(stages, dtype=np.int64)
    np.add.at(found, table.stage[: table.kernels], table.duration[: table.kernels])
    return found


def _groups(table: _Everything, number: int, canon: list[str], kinds: list[str], least_ns: float) -> list[_Group]:
    rows = np.flatnonzero(table.stage == number)
    names, which = np.unique(table.name[rows], return_inverse=True)
    members: dict[tuple[str, str], list[int]] = {}
    for place, name in enumerate(names.tolist()):
        members.setdefault((canon[name], kinds[name]), []).append(place)
    found = []
    for (name, kind), places in members.items():
        own = rows[np.isin(which, places)]
        hidden = int(table.hidden[own].sum())
        time = int(table.duration[own].sum())
        if time >= max(least_ns, 1) and (kind not in COMPUTE or hidden >= OVERLAPPED * time):
            found.append(_Group(name, int(names[places[0]]), kind, own))
    return found


def _look_around(
    table: _Everything, groups: Mapping[str, list[_Group]], busy: Mapping[int, Cover]
) -> dict[tuple[str, int], list[Around]]:
    """What is around the samples of each group, device by device."""
    found: dict[tuple[str, int], list[Around]] = {}
    for device, cover in busy.items():
        own = np.flatnonzero(table.device == device)
        columns = (table.begin, table.end, table.stream, table.name)
        begin, end, stream, name = columns if len(busy) == 1 else (column[own] for column in columns)
        samples = {
            (stage, index): _samples(np.searchsorted(own, group.rows[table.device[group.rows] == device]))
            for stage, members in groups.items()
            for index, group in enumerate(members)
        }
        around = Neighbours(begin, end, stream, name, cover).around(np.concatenate([_NONE, *samples.values()]))
        at = 0
        for key, rows in samples.items():
            found.setdefault(key, []).append(around.part(at, at + len(rows)))
            at += len(rows)
    return found


def _samples(rows: I64) -> I64:
    """Some of the rows, evenly spread."""
    if len(rows) <= SAMPLES:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLES).astype(np.int64))]


def _measured(table: _Everything, group: _Group, stage: str, steps: int, kernel_time: int) -> Row:
    total = int(table.duration[group.rows].sum())
    hidden = int(table.hidden[group.rows].sum())
    ratio = hidden / total if total else 0.0
    share = 100 * total / kernel_time if kernel_time else 0.0
    return {
        "row_id": row_id(stage, "overlap", group.name),
        "stage": stage,
        "kernel": group.name,
        "category": group.category,
        "class": overlap_class(group.category),
        "count": len(group.rows),
        "steps": steps,
        "total_us": total / 1000,
        "share": share,
        "exclusive_ratio": 1 - ratio,
        "hidden_ratio": ratio,
        "hidden_by_compute_ratio": int(table.by_compute[group.rows].sum()) / total if total else 0.0,
        "slowdown_when_overlapped": _slowdown(table, group.rows),
        "exposed_us": (total - hidden) / 1000,
        "exposed_us_per_step": (total - hidden) / 1000 / steps if steps else None,
        "formal_signal": f"{total / 1000:.1f} us, {share:.1f} %, excl {1 - ratio:.0%}, hid {ratio:.0%}",
    }


def _slowdown(table: _Everything, rows: I64) -> float | None:
    """Median time of the instances that mostly ran beside others over that of those that ran alone.

    None with too few of either. Instances of one name may differ in size, so it is a hint.
    """
    duration, hidden = table.duration[rows], table.hidden[rows]
    beside, alone = duration[2 * hidden >= duration], duration[hidden == 0]
    if min(len(beside), len(alone)) < ENOUGH:
        return None
    return float(np.median(beside) / max(np.median(alone), 1))


def _risk(around: list[Around], trace: Trace, kinds: list[str], group: _Group, scopes: Sequence[str]) -> Row:
    """What ties the kernel to others, by what most of its samples show."""
    count = sum(len(each.before) for each in around)
    sides, evidence, unclear = [], [], False
    for side, name in _SIDES:
        tight = _common(around, f"tight_{name}", name, count)
        across = _common(around, "", "fed_by" if side == "prev" else "feeds", count)
        if tight is not None:
            weak = kinds[tight] == "other" or group.category == "communication" == kinds[tight]
            if weak and not same_scope_family(scopes[group.first], scopes[tight]):
                unclear = True
            else:
                sides.append(side)
            evidence.append(f"{side}: {canonical(trace.names[tight])[:80]} without a gap on the same stream")
        if across is not None:
            sides.append(side)
            verb = "starts on an idle stream when this ends" if side == "next" else "ends when this starts"
            evidence.append(f"{side}: {canonical(trace.names[across])[:80]} on another stream {verb}")
        if sum(int(getattr(each, f"waits_{name}").sum()) for each in around) * 2 > count:
            unclear = True
            evidence.append(f"{side}: the device idles there, the order of launches says nothing about need")
    risk = "high" if sides else "unclear" if unclear else "low"
    return {"dep_risk": risk, "dep_sides": list(dict.fromkeys(sides)), "dep_evidence": evidence}


def _common(around: list[Around], flag: str, name: str, count: int) -> int | None:
    """The most frequent neighbour, if at least half of the samples have one."""
    ids = [getattr(each, name)[getattr(each, flag) if flag else slice(None)] for each in around]
    known = [int(number) for part in ids for number in part if number >= 0]
    return Counter(known).most_common(1)[0][0] if known and 2 * len(known) >= count else None


def _judged(row: Row, several: bool) -> Row:
    """Priority, verdict and recommendation; `several` tells that the stage runs work on several streams at once."""
    if row["hidden_ratio"] >= HIDDEN:
        return _verdict("P4", "hidden", "leave it: other streams already hide most of it")
    if row["class"] == "compute":
        return _verdict("P4", "overlapped", "leave it: others hide behind it; check that it does not run slower")
    if row["class"] == "communication":
        if row["dep_risk"] == "low":
            return _verdict("P1", "opportunity", "try overlap: nothing near it seems to wait for it")
        return _verdict("P2", "exposed", "check dependencies: overlap needs independent work, else fuse or shorten it")
    if several and row["dep_risk"] == "low":
        return _verdict("P1", "opportunity", "try overlap: move it beside the work of the other stream")
    return _verdict("P3", "serial", "fuse or shorten it: nothing independent to run beside it is in sight")


def _verdict(priority: str, verdict: str, recommendation: str) -> Row:
    return {"priority": priority, "verdict": verdict, "recommendation": recommendation}
