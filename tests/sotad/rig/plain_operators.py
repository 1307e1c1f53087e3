"""What operators of a trace without a device take, worked out the plain way: what the fast way is compared with."""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sotad.analysis.rows import row_id

STAGES = {"EXTEND": "prefill"}  # other words are stages by themselves, in lower case
OUTSIDE = "outside"  # the stage of what no step covers
UNNAMED = "(not in an operator)"  # the time of steps that no operator covers
_STEP = re.compile(r"step\[(?P<word>[A-Z_]+)(?:\s+bs=(?P<sequences>\d+))?(?:\s+toks=(?P<tokens>\d+))?[^\]]*\]")


class Span(NamedTuple):
    """One complete event, in nanoseconds."""

    begin: int
    end: int
    name: str
    thread: tuple[Any, Any]
    category: str


@dataclass
class Step:
    """One pass of the engine: `sequences` in the batch, `tokens` processed."""

    begin: int
    end: int
    stage: str
    sequences: int
    tokens: int


@dataclass
class Tables:
    """What one trace says.

    `rows`: row_id, stage, name, annotation, category, count, time_ms, share (percent of the stage's counted
    time), by time. `stages`: per stage row_id, stage, count (steps), mean_batch_size, tokens, total_ms.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)


def make_tables(events: Sequence[Mapping[str, Any]]) -> Tables:
    """The tables of the events of a Chrome trace.

    There has to be a step and an operator.
    """
    whole = [event for event in events if event.get("ph") == "X" and _timed(event)]
    spans = [_span(event) for event in whole]
    steps = sorted(_steps(spans), key=lambda step: step.begin)
    counted = _operators(spans, steps)
    totals: dict[tuple[str, str | None, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for stage, annotation, name, category, duration in counted:
        total = totals[stage, annotation, name, category]
        total[0] += 1
        total[1] += duration
    _add_unnamed(totals, steps)
    return Tables(_rows(totals), _stage_rows(steps))


def _timed(event: Mapping[str, Any]) -> bool:
    return all(isinstance(event.get(key), (int, float)) for key in ("ts", "dur"))


def _span(event: Mapping[str, Any]) -> Span:
    begin = round(event["ts"] * 1000)
    thread = (event.get("pid"), event.get("tid"))
    return Span(begin, begin + round(event["dur"] * 1000), str(event.get("name")), thread, str(event.get("cat")))


def _steps(spans: Iterable[Span]) -> Iterator[Step]:
    for span in spans:
        found = _STEP.match(span.name) if span.category == "user_annotation" else None
        if found:
            stage = STAGES.get(found["word"], found["word"].lower())
            yield Step(span.begin, span.end, stage, int(found["sequences"] or 0), int(found["tokens"] or 0))


def _stage_at(moment: int, steps: Sequence[Step], begins: Sequence[int]) -> str:
    """The stage of the step that `moment` lies in; steps are sorted and do not overlap."""
    index = bisect_right(begins, moment) - 1
    return steps[index].stage if index >= 0 and moment < steps[index].end else OUTSIDE


Counted = tuple[str, str | None, str, str, int]  # stage, annotation, name, category, ns


def _operators(spans: Iterable[Span], steps: Sequence[Step]) -> Iterator[Counted]:
    """Every operator with its self time: its duration without the operators that it called."""
    begins = [step.begin for step in steps]
    threads: dict[tuple[Any, Any], list[Span]] = defaultdict(list)
    for span in spans:
        if span.category in ("cpu_op", "user_annotation"):
            threads[span.thread].append(span)
    for members in threads.values():
        members.sort(key=lambda span: (span.begin, -span.end, span.category == "cpu_op"))
        for span, annotation, inner in _nested(members):
            stage = _stage_at(span.begin, steps, begins)
            yield stage, annotation, span.name, span.category, max(0, span.end - span.begin - inner)


def _nested(members: Iterable[Span]) -> Iterator[tuple[Span, str | None, int]]:
    """Each operator of one thread, its innermost annotation, and the time in the operators that it called."""
    open_spans: list[Span] = []
    inner: list[int] = []
    for span in members:
        while open_spans and open_spans[-1].end <= span.begin:
            yield from _close(open_spans, inner)
        open_spans.append(span)
        inner.append(0)
    while open_spans:
        yield from _close(open_spans, inner)


def _close(open_spans: list[Span], inner: list[int]) -> Iterator[tuple[Span, str | None, int]]:
    span, inside = open_spans.pop(), inner.pop()
    operator = span.category == "cpu_op"
    if inner:
        limit = open_spans[-1].end - span.begin  # rounding may let a child end after its parent
        inner[-1] += min(span.end - span.begin, limit) if operator else inside
    if operator:
        around = (each.name for each in reversed(open_spans) if each.category == "user_annotation")
        annotation = next((name for name in around if not _STEP.match(name)), None)
        yield span, annotation, inside


def _add_unnamed(totals: dict[tuple[str, str | None, str, str], list[int]], steps: Iterable[Step]) -> None:
    left: dict[str, int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    for step in steps:
        left[step.stage] += step.end - step.begin
        counts[step.stage] += 1
    for (stage, _, _, _), (_, duration) in totals.items():
        left[stage] -= duration
    for stage, count in counts.items():
        if left[stage] > 0:
            totals[stage, None, UNNAMED, "gap"] = [count, left[stage]]


def _rows(totals: Mapping[tuple[str, str | None, str, str], Sequence[int]]) -> list[dict[str, Any]]:
    whole: dict[str, int] = defaultdict(int)
    for (stage, *_), (_, duration) in totals.items():
        whole[stage] += duration
    rows = [
        {
            "row_id": row_id(stage, annotation, name),
            "stage": stage,
            "name": name,
            "annotation": annotation,
            "category": category,
            "count": count,
            "time_ms": duration / 1e6,
            "share": 100 * duration / whole[stage] if whole[stage] else None,
        }
        for (stage, annotation, name, category), (count, duration) in totals.items()
    ]
    return sorted(rows, key=lambda row: (-row["time_ms"], row["row_id"]))


def _stage_rows(steps: Iterable[Step]) -> dict[str, dict[str, Any]]:
    members: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        members[step.stage].append(step)
    return {
        stage: {
            "row_id": f"{stage}/step",
            "stage": stage,
            "count": len(group),
            "mean_batch_size": sum(step.sequences for step in group) / len(group),
            "tokens": sum(step.tokens for step in group),
            "total_ms": sum(step.end - step.begin for step in group) / 1e6,
        }
        for stage, group in members.items()
    }
