"""Two captures of two frameworks side by side: which stage is slower, and which rows explain how much of it.

Every step's time is the sum of its parts: kernels and copies (time that several share on the device is split between
them), the pauses inside the step, and the pause until the next one. Means over steps keep that sum, so the rows of a
difference add up to the difference of the stage.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sotad.analysis.dialects import ORDER
from sotad.analysis.noise import F64, LEVEL, Estimate, Stratum, estimate, holm
from sotad.analysis.pairing import IDLE, KERNELS, Paired, Part, Refused, Side, pair

JSON = dict[str, Any]
UNCOUNTED = ("outside", "all")  # no steps to compare by
LARGE = frozenset({"gemm", "attention", "linear_attn", "moe", "conv", "communication", "copy", IDLE})
SMALL = "small kernels"  # all others: compilers fuse across their categories, so that only their sum compares
CAPTURES = 2.0  # percent by which two captures of one unchanged server may differ (launch to launch about 0.8% each)


def difference(target: Side, leader: Side) -> JSON:
    """What the target spends more than the leader, per stage and row, in ms per step.

    `stages` has every stage of either side; `comparable` false comes with the `reason`. `rows` are categories with
    their kernels, `groups` the same time with all small kernels in one: each adds up to the stage's `extra_ms`.
    `slower` is the comparable stage in which the target loses most, relative to the leader; None where it loses none
    beyond the noise of the steps and what two captures of one server may differ by.
    """
    names = in_order({*target.stages, *leader.stages} - set(UNCOUNTED))
    stages = {name: _stage(name, target, leader) for name in names}
    losing = [name for name in names if stages[name]["comparable"] and _behind(stages[name])]
    slower = max(losing, key=lambda name: (stages[name]["extra_percent"] or math.inf, name), default=None)
    found = {"target": target.name, "leader": leader.name, "slower": slower, "stages": stages}
    told = list(sentences(found))
    return {**found, "sentences": told, "statement": " ".join(told)}


def in_order(stages: Iterable[str]) -> list[str]:
    """Stages in the order in which a request meets them."""
    return sorted(stages, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def _behind(stage: JSON) -> bool:
    return stage["extra_ms"] > 0 and not stage["within_noise"] and not stage["below_capture_noise"]


def _stage(name: str, target: Side, leader: Side) -> JSON:
    try:
        paired = pair(name, target, leader)
    except Refused as refused:
        return {"comparable": False, "reason": str(refused)}
    everything = [list(range(len(paired.parts)))]
    whole = estimate([_summed(stratum, everything) for stratum in paired.strata])
    total = _entry(whole, 0, holm(whole.p))
    base = total["leader_ms"]
    percent = 100 * total["extra_ms"] / base if base else None
    small = percent is not None and abs(percent) < CAPTURES
    proven = total["extra_ms"] if not (small or total["within_noise"]) else 0.0
    return {
        "comparable": True,
        "reason": None,
        "unit": paired.unit,
        **total,
        "extra_percent": percent,
        "below_capture_noise": small,
        "steps": _two(*(len(side) for side in paired.used)),
        "left_out": _two(*paired.left_out),
        "sequences": _two(*(_typical(side.sequences) for side in paired.used)),
        "tokens": _two(*(_typical(side.tokens) for side in paired.used)),
        "same_kernels_ratio": _same(paired) if target.kind == KERNELS else None,
        "groups": _rows(name, paired, total["extra_ms"], proven, _group if target.kind == KERNELS else _category),
        "rows": _with_kernels(_rows(name, paired, total["extra_ms"], proven, _category), paired),
        "notes": [*paired.notes, *_remarks(paired)],
    }


def _two(target: Any, leader: Any) -> JSON:
    return {"target": target, "leader": leader}


def _typical(values: Any) -> float | None:
    return float(np.median(values)) if values.all() else None


def _remarks(paired: Paired) -> Iterator[str]:
    """What limits this comparison."""
    if min(len(side) for side in paired.used) < 2:
        yield "fewer than two comparable steps on a side: how sure the difference is cannot be told"
    if any(paired.left_out):
        ours, theirs = paired.left_out
        told = f"{ours} of {paired.target}, {theirs} of {paired.leader}"
        yield f"steps left out (the last one, odd ones, those without a match): {told}"


def _same(paired: Paired) -> float | None:
    """Target's over leader's time in kernels of the same name that ran equally often: far from 1, clocks differ."""
    counts = list(zip(*paired.counts, strict=True))
    both = [
        place
        for place, (ours, theirs) in enumerate(paired.parts)
        if ours and theirs and ours.category != IDLE and _equal(*counts[place])
    ]
    found = estimate([_summed(stratum, [both]) for stratum in paired.strata]) if both else None
    return float(found.target[0] / found.leader[0]) if found and found.leader[0] > 0 else None


def _equal(ours: float, theirs: float) -> bool:
    return abs(ours - theirs) <= 0.01 * max(ours, theirs)


# --- rows -----------------------------------------------------------------------------------------------------


def _category(part: Part) -> str:
    return part.category


def _group(part: Part) -> str:
    return part.category if part.category in LARGE else SMALL


def _rows(stage: str, paired: Paired, extra_ms: float, proven_ms: float, key: Callable[[Part], str]) -> list[JSON]:
    """One row per category, those that explain the difference first; they add up to it.

    Percent are told of a proven difference only, which is not 0.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, (ours, theirs) in enumerate(paired.parts):
        members[key(either(ours, theirs))].append(place)
    found = estimate([_summed(stratum, list(members.values())) for stratum in paired.strata])
    corrected = holm(found.p)
    rows: list[JSON] = [
        {"row_id": f"{stage}/({category})", "category": category, **_entry(found, i, corrected)}
        for i, category in enumerate(members)
    ]
    cumulated = 0.0
    for row in (rows := _explaining(rows, extra_ms)):
        cumulated += row["extra_ms"]
        row |= {"cumulated_ms": cumulated, "cumulated_percent": 100 * cumulated / proven_ms if proven_ms else None}
    return rows


def _with_kernels(rows: list[JSON], paired: Paired) -> list[JSON]:
    kernels = _kernels(paired)
    for row in rows:
        own = [kernel for kernel in kernels if kernel["category"] == row["category"]]
        row["kernels"] = _explaining(own, row["extra_ms"])
    return rows


def _summed(stratum: Stratum, columns: Sequence[list[int]]) -> Stratum:
    """The stratum with one column for each list of columns."""
    ours = np.stack([stratum.target[:, places].sum(axis=1) for places in columns], axis=1)
    theirs = np.stack([stratum.leader[:, places].sum(axis=1) for places in columns], axis=1)
    return Stratum(stratum.weight, ours, theirs)


def _kernels(paired: Paired) -> list[JSON]:
    found = estimate(paired.strata)
    corrected = holm(found.p)
    rows = []
    for place, (ours, theirs) in enumerate(paired.parts):
        counts = _two(*(float(counts[place]) for counts in paired.counts))
        rows.append({**_identity(ours, theirs), **_entry(found, place, corrected), "count_per_step": counts})
    return rows


def _identity(ours: Part | None, theirs: Part | None) -> JSON:
    """Row ids as the tables of each side have them; None where the side has no such row."""
    ids = {"row_id": ours.row_id if ours else None, "leader_row_id": theirs.row_id if theirs else None}
    return {**ids, "name": either(ours, theirs).name, "category": either(ours, theirs).category}


def either(ours: Part | None, theirs: Part | None) -> Part:
    found = ours or theirs
    assert found is not None
    return found


def _explaining(rows: list[JSON], extra_ms: float) -> list[JSON]:
    """Rows that go the way of the difference first, the largest first; then those against it, the smallest first."""
    sign = -1.0 if extra_ms < 0 else 1.0
    return sorted(rows, key=lambda row: (-sign * row["extra_ms"], row["row_id"] or row["leader_row_id"]))


def _entry(found: Estimate, place: int, corrected: F64) -> JSON:
    low, high, p = (_known(values[place]) for values in (found.low, found.high, corrected))
    return {
        "target_ms": float(found.target[place]),
        "leader_ms": float(found.leader[place]),
        "extra_ms": float(found.extra[place]),
        "interval_ms": None if low is None else [low, high],
        "p_holm": p,
        "within_noise": None if p is None else p >= LEVEL,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


# --- in words ---------------------------------------------------------------------------------------------------


def sentences(found: JSON) -> Iterator[str]:
    """The answer, a sentence for each stage, with row ids."""
    target, leader = found["target"], found["leader"]
    if not found["stages"]:
        yield f"Neither {target} nor {leader} marks steps in its capture: there is nothing to compare by."
    if any(stage["comparable"] for stage in found["stages"].values()):
        yield _verdict(found)
    for name, stage in found["stages"].items():
        if stage["comparable"]:
            yield _sentence(name, stage, target, leader)
        else:
            yield f"{name}: not comparable, {stage['reason']}."


def _verdict(found: JSON) -> str:
    if found["slower"] is None:
        sure = f"beyond the noise and the {CAPTURES:g}% by which two captures of one server may differ"
        return f"No stage of {found['target']} is slower than that of {found['leader']} {sure}."
    return f"{found['target']} loses most in {found['slower']}."


def _sentence(name: str, stage: JSON, target: str, leader: str) -> str:
    times = f"{stage['target_ms']:.3f} against {stage['leader_ms']:.3f} {stage['unit']}"
    if stage["within_noise"]:
        text = f"{name}: no difference beyond the noise of the steps, {times}"
        beyond = [_told(row) for row in stage["groups"] if row["within_noise"] is False]
        return f"{text}; only of its parts: {', '.join(beyond)}." if beyond else f"{text}."
    verdict = "slower" if stage["extra_ms"] > 0 else "faster"
    percent = "" if stage["extra_percent"] is None else f" ({abs(stage['extra_percent']):.1f}%)"
    text = f"{name}: {target} is {abs(stage['extra_ms']):.3f} ms{percent} {verdict} than {leader}, {times}"
    text += ", too few steps to know how sure that is" if stage["within_noise"] is None else ""
    if stage["below_capture_noise"]:
        text += f", which is less than the {CAPTURES:g}% by which two captures of one server may differ"
    return f"{text}; {', '.join(_largest(stage))}."


def _largest(stage: JSON) -> Iterator[str]:
    """The rows that explain the difference, until they do; then the largest of those against it."""
    against = stage["groups"][-1]
    for row in stage["groups"]:
        if row["extra_ms"] * stage["extra_ms"] <= 0:
            break
        yield _told(row)
        if abs(row["cumulated_ms"]) >= abs(stage["extra_ms"]):
            break
    if against["extra_ms"] * stage["extra_ms"] < 0 and not against["within_noise"]:
        yield f"against it {_told(against)}"


def _told(row: JSON) -> str:
    return f"{row['row_id']} {row['extra_ms']:+.3f} ms{' (within noise)' if row['within_noise'] else ''}"
