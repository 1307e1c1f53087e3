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
from numpy.typing import NDArray

from sotad.analysis.canonical import canonical
from sotad.analysis.catalogue import families_of
from sotad.analysis.categories import categorize
from sotad.analysis.cover import Cover
from sotad.analysis.device_names import on_devices
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
SHOWN = 60  # characters of a neighbour's name
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
    """Kernels and copies of a trace as one table: rows of copies come after those of the kernels."""

    def __init__(self, trace: Trace, stages: Stages, overlap: Overlap) -> None:
        self.works = (trace.kernels, trace.copies)
        self.stages = (stages.kernel, stages.copy)
        self.shares = (overlap.kernels, overlap.copies)
        self.first = (0, len(trace.kernels))
        self._names = len(trace.names)

    def sums(self, number: int, column: str) -> I64:
        """What a column of the shares adds up to in one stage, per name id."""
        found = np.zeros(self._names, dtype=np.int64)
        for work, stage, shares in zip(self.works, self.stages, self.shares, strict=True):
            inside = stage == number
            np.add.at(found, work.name[inside], getattr(shares, column)[inside])
        return found

    def rows(self, number: int, names: Sequence[int]) -> I64:
        """The rows of these names in one stage, in order."""
        parts = zip(self.works, self.stages, self.first, strict=True)
        found = [np.flatnonzero((stage == number) & np.isin(work.name, names)) + at for work, stage, at in parts]
        return np.concatenate(found)

    def device(self, number: int) -> tuple[I64, tuple[NDArray[Any], ...]]:
        """The rows of one device, in order, and their begin, end, stream and name."""
        own = [np.flatnonzero(work.device == number) for work in self.works]
        pairs = list(zip(self.works, own, strict=True))
        columns = ("begin", "end", "stream", "name")
        found = (np.concatenate([getattr(work, column)[rows] for work, rows in pairs]) for column in columns)
        return np.concatenate([rows + at for rows, at in zip(own, self.first, strict=True)]), tuple(found)

    def shared(self, rows: I64, column: str) -> I64:
        """A column of the shares at some rows, which are in order."""
        kernels = rows[: np.searchsorted(rows, self.first[1])]
        copies = rows[len(kernels) :] - self.first[1]
        parts = zip(self.shares, (kernels, copies), strict=True)
        return np.concatenate([getattr(shares, column)[own] for shares, own in parts])


def overlap_rows(
    trace: Trace,
    stages: Stages,
    overlap: Overlap,
    attribution: Attribution | None = None,
    *,
    framework: str | None = None,
    min_share: float = 1.0,
    category: Callable[[str], str] = categorize,
) -> dict[str, list[Row]]:
    """Per stage the rows, most urgent and most exposed first, of work with `min_share` percent of its kernel time.

    In a stage without steps it is `min_share` percent of all kernel time, as what runs between steps is little.

    Keys: row_id, stage, kernel, category, class, priority (P1 to P4), verdict (`opportunity`, `exposed`, `serial`,
    `overlapped`, `hidden`), recommendation, python_scope, formal_signal, dep_risk (`low`, `unclear`, `high`),
    dep_sides, dep_evidence, count, steps, total_us, share, exclusive_ratio, hidden_ratio, hidden_by_compute_ratio,
    slowdown_when_overlapped (a factor, or None), exposed_us, exposed_us_per_step (over all of the stage's steps; None
    in a stage without steps), families.
    """
    table = _Everything(trace, stages, overlap)
    kinds, canon = on_devices(trace, category), on_devices(trace, canonical)
    times = _kernel_times(trace, stages)
    groups = {}
    for number, stage in enumerate(stages.names):
        whole = times[number] if overlap.stages[stage].steps else times.sum()  # what is in no step: of everything
        groups[stage] = _groups(table, number, canon, kinds, float(whole * min_share / 100))
    around = _look_around(table, groups, overlap.busy)
    found = {}
    for number, (stage, members) in enumerate(groups.items()):
        rows, scopes = [], scopes_of(trace, attribution, stages, number) if members else []
        for index, group in enumerate(members):
            row = _measured(table, group, stage, overlap.stages[stage].steps, int(times[number]))
            row |= _risk(around.get((stage, index), []), trace, kinds, group, scopes)
            row |= {"python_scope": scopes[group.first], "families": families_of(group.name, framework)}
            rows.append(row | _judged(row, overlap.stages[stage].multi_stream_ns > 0))
        found[stage] = sorted(rows, key=lambda row: (row["priority"], -row["exposed_us"], row["row_id"]))
    return found


def _kernel_times(trace: Trace, stages: Stages) -> I64:
    """The time of all kernels of each stage, ns."""
    found = np.zeros(len(stages.names), dtype=np.int64)
    np.add.at(found, stages.kernel, trace.kernels.end - trace.kernels.begin)
    return found


def _groups(table: _Everything, number: int, canon: list[str], kinds: list[str], least_ns: float) -> list[_Group]:
    times, hidden = table.sums(number, "duration"), table.sums(number, "hidden")
    members: dict[tuple[str, str], list[int]] = {}
    for name in np.flatnonzero(times).tolist():
        members.setdefault((canon[name], kinds[name]), []).append(name)
    return [
        _Group(name, ids[0], kind, table.rows(number, ids))
        for (name, kind), ids in members.items()
        if times[ids].sum() >= max(least_ns, 1)
        and (kind not in COMPUTE or hidden[ids].sum() >= OVERLAPPED * times[ids].sum())
    ]


def _look_around(
    table: _Everything, groups: Mapping[str, list[_Group]], busy: Mapping[int, Cover]
) -> dict[tuple[str, int], list[Around]]:
    """What is around the samples of each group, device by device."""
    found: dict[tuple[str, int], list[Around]] = {}
    for device, cover in busy.items():
        own, (begin, end, stream, name) = table.device(device)
        samples = {
            (stage, index): _samples(_places(own, group.rows))
            for stage, members in groups.items()
            for index, group in enumerate(members)
        }
        around = Neighbours(begin, end, stream, name, cover).around(np.concatenate([_NONE, *samples.values()]))
        at = 0
        for key, rows in samples.items():
            found.setdefault(key, []).append(around.part(at, at + len(rows)))
            at += len(rows)
    return found


def _places(own: I64, rows: I64) -> I64:
    """Where in `own` these rows are, without those that are not; both in order."""
    place: I64 = np.searchsorted(own, rows)
    found: I64 = place[own[np.minimum(place, len(own) - 1)] == rows]
    return found


def _samples(rows: I64) -> I64:
    """Some of the rows, evenly spread."""
    if len(rows) <= SAMPLES:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLES).astype(np.int64))]


def _measured(table: _Everything, group: _Group, stage: str, steps: int, kernel_time: int) -> Row:
    duration, covered = table.shared(group.rows, "duration"), table.shared(group.rows, "hidden")
    total, hidden = int(duration.sum()), int(covered.sum())
    by_compute = int(table.shared(group.rows, "hidden_by_compute").sum())
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
        "hidden_by_compute_ratio": by_compute / total if total else 0.0,
        "slowdown_when_overlapped": _slowdown(duration, covered),
        "exposed_us": (total - hidden) / 1000,
        "exposed_us_per_step": (total - hidden) / 1000 / steps if steps else None,
        "formal_signal": f"{total / 1000:.1f} us, {share:.1f} %, excl {1 - ratio:.0%}, hid {ratio:.0%}",
    }


def _slowdown(duration: I64, hidden: I64) -> float | None:
    """Median time of the instances that mostly ran beside others over that of those that ran alone.

    None with too few of either. Instances of one name may differ in size, so it is a hint.
    """
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
            evidence.append(f"{side}: {_short(trace.names[tight])} without a gap")
        if across is not None:
            sides.append(side)
            verb = "starts on an idle stream when this ends" if side == "next" else "ends when this starts"
            evidence.append(f"{side}: {_short(trace.names[across])} on another stream {verb}")
        if sum(int(getattr(each, f"waits_{name}").sum()) for each in around) * 2 > count:
            unclear = True
            evidence.append(f"{side}: the GPU idles there, so order proves no need")
    risk = "high" if sides else "unclear" if unclear else "low"
    return {"dep_risk": risk, "dep_sides": list(dict.fromkeys(sides)), "dep_evidence": evidence}


def _short(name: str) -> str:
    text = canonical(name)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


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
