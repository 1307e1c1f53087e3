"""Rows to rankings, winners, rejections, ties within noise and the Pareto front. Pure; the rows' order changes nothing.

The ranking is :mod:`statemachine.ranking`'s. Rows under different loads (scenario, request rate, concurrency) are
never in one ranking. Ties go to the name that sorts first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from typing import Any, Literal

from sotad.results import pareto
from sotad.results.judge import judged, limits
from sotad.results.plausible import doubts
from sotad.results.rows import ORIGIN, Row, load, named, ran
from statemachine.ranking import ranking_key

By = Literal["request_throughput", "output_token_throughput"]
NOISE_PCT = 2.0  # what single runs of one command commonly differ by; repeats in the rows replace it


@dataclass(frozen=True, slots=True)
class Group:
    """One load: its label, all its rows by rank, and how many of them passed."""

    label: str
    scenario: str
    rows: list[Row]
    passed: int
    noise_pct: float
    within_noise: list[Row]
    preferred: Row | None
    gpus_differ: bool
    front: list[Row]

    @property
    def passing(self) -> list[Row]:
        """The rows that ran and meet the SLA, best first."""
        return self.rows[: self.passed]

    @property
    def best(self) -> list[Row]:
        """The best passing row of each framework, best first."""
        found: dict[str, Row] = {}
        for row in self.passing:
            found.setdefault(row["framework"], row)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the rows say."""

    by: By
    groups: list[Group]
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """Every row, by load and rank."""
        return [row for group in self.groups for row in group.rows]

    @property
    def winners(self) -> list[Row]:
        """The best passing row of each framework and load."""
        return [row for group in self.groups for row in group.best]

    @property
    def rejected(self) -> list[Row]:
        """The rows that cannot win; `reasons` says why."""
        return [row for row in self.rows if row["reasons"]]


def compare(
    rows: Iterable[Mapping[str, Any]],
    sla: Mapping[str, float] | None = None,
    by: By = "request_throughput",
    noise_pct: float = NOISE_PCT,
) -> Comparison:
    """The comparison of valid rows. `sla` replaces limits of the rows; `by` is what is ranked by first."""
    ordered = sorted((judged(row, sla or {}) for row in rows), key=_name)
    searched = [row for row in ordered if row["purpose"] in (None, "search", "rate")]
    groups = _groups(searched)
    labels = _labels(groups)
    found = [_group(label, group, by, noise_pct) for label, group in zip(labels, groups, strict=True)]
    left_out = len(ordered) - len(searched)
    notes = [f"left out, measured neither in the search nor for goodput: {left_out} rows"] if left_out else []
    notes += [f"{named(row)}: {doubt}" for row in searched if row["status"] == "ok" for doubt in doubts(row)]
    notes += [
        f"{named(row)}: {row['extra']['repeats_not_ok']} of its runs did not end well"
        for group in found
        for row in group.rows
        if row["extra"].get("repeats_not_ok")
    ]
    return Comparison(by, found, notes)


def _name(row: Row) -> tuple[str, ...]:
    return (row["framework"], row["candidate_id"], *(str(row[key]) for key in ORIGIN), str(row["source"]))


def _load(row: Row) -> tuple[str, float, int]:
    scenario, rate, concurrency = load(row)
    return scenario, rate or 0.0, concurrency or 0


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows by load. One that did not run stands with its scenario's first load, unless its own is there."""
    loads = sorted({_load(row) for row in rows if row["status"] == "ok"})
    found: dict[tuple[str, float, int], list[Row]] = {each: [] for each in loads}
    for row in rows:
        own = _load(row)
        place = own if own in found else next((each for each in loads if each[0] == own[0]), (own[0], 0.0, 0))
        found.setdefault(place, []).append(row)
    return [found[place] for place in sorted(found)]


def _labels(groups: Sequence[Sequence[Row]]) -> list[str]:
    """The scenario's name, with its rate and concurrency where it has several of them."""
    loads = [min((_load(row) for row in group if row["status"] == "ok"), default=_load(group[0])) for group in groups]
    return [_label(load, [other for other in loads if other[0] == load[0]]) for load in loads]


def _label(own: tuple[str, float, int], loads: Sequence[tuple[str, float, int]]) -> str:
    scenario, rate, concurrency = own
    told = []
    if len({each[1] for each in loads}) > 1:
        told.append(f"{rate:g} req/s" if rate else "saturation")
    if len({each[2] for each in loads}) > 1:
        told.append(f"concurrency {concurrency}" if concurrency else "no concurrency limit")
    return f"{scenario} ({', '.join(told)})" if told else scenario


def load_text(row: Row) -> str:
    """Rate and concurrency in words."""
    _, rate, concurrency = load(row)
    told = "saturation" if rate is None else f"{rate:g} req/s"
    return f"{told}, concurrency {concurrency}" if concurrency else f"{told}, no concurrency limit"


def _group(label: str, rows: Sequence[Row], by: By, noise_pct: float) -> Group:
    single = [_one(list(repeats)) for _, repeats in groupby(rows, lambda row: (row["framework"], row["candidate_id"]))]
    passing = sorted((row for row in single if not row["reasons"]), key=lambda row: key(row, by), reverse=True)
    others = sorted((row for row in single if row["reasons"]), key=lambda row: key(row, by), reverse=True)
    ranked = [{**row, "rank": rank} for rank, row in enumerate(passing, 1)]
    band = max([noise_pct, *(_spread_pct(row) for row in ranked[:2])])
    tied = _within(ranked, by, band)
    counts = {row["hardware"]["gpu_count"] for row in single if row["status"] == "ok"} - {None}
    measured = [row for row in (*ranked, *others) if ran(row)]
    front = pareto.front([pareto.point(row, by, len(counts) > 1) for row in measured])
    return Group(
        label,
        rows[0]["workload"]["scenario"],
        [*ranked, *({**row, "rank": None} for row in others)],
        len(ranked),
        band,
        tied,
        _preferred(tied, by, band),
        len(counts) > 1,
        [measured[place] for place in front],
    )


def key(row: Row, by: By) -> tuple[float, ...]:
    """The machine's key; by output tokens, that throughput stands before the requests'."""
    found = ranking_key(row, limits(row))
    return found if by == "request_throughput" else (*found[:2], found[3], found[2], *found[4:])


def _one(repeats: list[Row]) -> Row:
    """The row for a candidate that was measured several times: the one with the median throughput that counts."""
    if len(repeats) == 1:
        return repeats[0]
    measured = [row for row in repeats if ran(row)] or repeats
    failed = sum(row["status"] != "ok" for row in repeats)
    measured = sorted(measured, key=lambda row: row["metrics"]["request_throughput"] or 0.0)
    values = [
        row["metrics"]["request_throughput"] for row in measured if row["metrics"]["request_throughput"] is not None
    ]
    middle = measured[(len(measured) - 1) // 2]
    told = {"repeats_request_throughput": values, "repeats_not_ok": failed if middle["status"] == "ok" else 0}
    return {**middle, "repeats": len(measured), "extra": {**middle["extra"], **told}}


def _spread_pct(row: Row) -> float:
    """Twice the median deviation of at least three repeats from their median, in percent of it; else 0."""
    values = row["extra"].get("repeats_request_throughput") or []
    if len(values) < 3:
        return 0.0
    centre = median(values)
    return 200 * median(abs(value - centre) for value in values) / centre if centre else 0.0


def _within(ranked: Sequence[Row], by: By, band: float) -> list[Row]:
    """The winner and those that one run cannot tell from it."""
    if not ranked or ranked[0]["metrics"][by] is None:
        return list(ranked[:1])
    first = ranked[0]
    floor = first["metrics"][by] * (1 - band / 100)
    known = [row for row in ranked if row["metrics"][by] is not None]
    return [row for row in known if row["metrics"][by] >= floor or _overlap(row, first, by)]


def _overlap(row: Row, first: Row, by: By) -> bool:
    """Whether both rows bring an interval, and these overlap."""
    own, other = row["ci95"].get(by), first["ci95"].get(by)
    return bool(own and other and own[1] >= other[0])


def _preferred(tied: Sequence[Row], by: By, band: float) -> Row | None:
    """Who wins when a difference within the band is none: the next figures decide, each with the same band."""
    left = list(tied)
    other = "output_token_throughput" if by == "request_throughput" else "request_throughput"
    for name, sign in ((other, 1), ("p50_ttft_ms", -1), ("p50_tpot_ms", -1)):
        known = [row["metrics"][name] for row in left if row["metrics"][name] is not None]
        if known:
            best = max(known) if sign > 0 else min(known)
            left = [row for row in left if _close(row["metrics"][name], best, band)]
    return left[0] if left else None


def _close(value: float | None, best: float, band: float) -> bool:
    return value is not None and abs(value - best) <= best * band / 100
