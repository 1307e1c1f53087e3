"""Where the time of a trace went: tables of operators or kernels per stage, and of two traces side by side.

Reads Chrome traces as `torch.profiler` exports them (.json or .json.gz; `ts` and `dur` in microseconds).
Steps are `user_annotation` events named `step[PREFILL bs=2 toks=64]`. With GPU kernels in the trace these
are what is counted, in the step that launched them; without, operators by their self time.

The whole file is held in memory: about ten times its size.
"""

import gzip
import re
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

STAGES = {"EXTEND": "prefill"}  # other words are stages by themselves, in lower case
OUTSIDE = "outside"  # the stage of what no step covers
UNNAMED = "(not in an operator)"  # the time of steps that no operator covers
_STEP = re.compile(r"step\[(?P<word>[A-Z_]+)(?:\s+bs=(?P<sequences>\d+))?(?:\s+toks=(?P<tokens>\d+))?[^\]]*\]")
_PLAIN = re.compile(r"[A-Za-z0-9_:.()<>, -]{1,80}")


class TraceError(ValueError):
    """The trace cannot be used; the text says which file, why, and what to do."""


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


def read_tables(path: Path) -> Tables:
    """The tables of the trace in `path`.

    Raises:
        TraceError: it cannot be read, is cut or damaged, or has no steps or nothing to count.
    """
    try:
        return make_tables(_load(path))
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from error.__cause__


def _load(path: Path) -> list[Mapping[str, Any]]:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        trace = orjson.loads(raw)
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise TraceError("damaged gzip; capture the trace again") from error
        raise TraceError(f"{error.strerror}; give the path of a trace") from error
    except (EOFError, zlib.error) as error:
        raise TraceError("the gzip data is cut short or damaged; capture the trace again") from error
    except orjson.JSONDecodeError as error:
        raise TraceError(f"not whole JSON ({error}); wait until the profiler has written it") from error
    events = trace.get("traceEvents") if isinstance(trace, dict) else trace
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise TraceError("no list of traceEvents; give a Chrome trace of torch.profiler")
    return events


def make_tables(events: Sequence[Mapping[str, Any]]) -> Tables:
    """The tables of the events of a Chrome trace.

    Raises:
        TraceError: no step annotation, or no operator and no kernel.
    """
    whole = [event for event in events if event.get("ph") == "X" and _timed(event)]
    spans = [_span(event) for event in whole]
    steps = sorted(_steps(spans), key=lambda step: step.begin)
    if not steps:
        raise TraceError("no step[...] annotation; capture with the engine's own profiler")
    kernels = [event for event in whole if event.get("cat") == "kernel"]
    counted = _kernels(kernels, whole, steps) if kernels else _operators(spans, steps)
    totals: dict[tuple[str, str | None, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for stage, annotation, name, category, duration in counted:
        total = totals[stage, annotation, name, category]
        total[0] += 1
        total[1] += duration
    if not totals:
        raise TraceError("no operator and no kernel; capture with CPU or CUDA activity switched on")
    if not kernels:
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


def _kernels(
    kernels: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]], steps: Sequence[Step]
) -> Iterator[Counted]:
    """Every kernel, in the stage of the step that launched it; without a launch, of the step it ran in."""
    begins = [step.begin for step in steps]
    launches = {
        event["args"]["correlation"]: round(event["ts"] * 1000)
        for event in events
        if event.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in event.get("args", {})
    }
    for event in kernels:
        span = _span(event)
        moment = launches.get(event.get("args", {}).get("correlation"), span.begin)
        yield _stage_at(moment, steps, begins), None, span.name, "kernel", span.end - span.begin


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


def row_id(stage: str, annotation: str | None, name: str) -> str:
    """The same for the same row in every trace: `decode/aten::addmm`, `decode/attention/aten::bmm`.

    Names that are long or hold other characters are shortened and marked with a digest of the whole.
    """
    parts = [part for part in (stage, annotation, name) if part is not None]
    if all(_PLAIN.fullmatch(part) for part in parts):
        return "/".join(parts)
    short = "/".join(re.sub(r"[^A-Za-z0-9_:.()<>, -]+", "_", part)[:80] for part in parts)
    return f"{short}~{sha256(repr(parts).encode()).hexdigest()[:8]}"


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


def compare(target: Tables, leader: Tables) -> list[dict[str, Any]]:
    """What the target spends more than the leader, most extra milliseconds first.

    Captures differ in length, so times are compared per token of their stage (prompt tokens in prefill,
    output tokens in decode); `extra_ms` is the difference over the target's tokens. A row that only one
    side has counts as no time on the other (`in_target`, `in_leader` say so). `STAGE/step` rows compare
    whole steps. A stage that one side lacks, or whose steps tell no token counts, is left out.
    """
    rows = []
    for stage, ours in target.stages.items():
        theirs = leader.stages.get(stage)
        if theirs and ours["tokens"] and theirs["tokens"]:
            rows += list(_compare_stage(stage, target, leader))
    return sorted(rows, key=lambda row: (-row["extra_ms"], row["row_id"]))


def _compare_stage(stage: str, target: Tables, leader: Tables) -> Iterator[dict[str, Any]]:
    tokens, leader_tokens = target.stages[stage]["tokens"], leader.stages[stage]["tokens"]
    ours, theirs = _times(stage, target), _times(stage, leader)
    for identity in ours | theirs:
        name, time_ms = ours.get(identity, (None, 0.0))
        leader_name, leader_time_ms = theirs.get(identity, (None, 0.0))
        per_token, leader_per_token = 1000 * time_ms / tokens, 1000 * leader_time_ms / leader_tokens
        yield {
            "row_id": identity,
            "stage": stage,
            "name": name or leader_name,
            "time_ms": time_ms,
            "leader_time_ms": leader_time_ms,
            "us_per_token": per_token,
            "leader_us_per_token": leader_per_token,
            "extra_ms": (per_token - leader_per_token) * tokens / 1000,
            "in_target": identity in ours,
            "in_leader": identity in theirs,
        }


def _times(stage: str, tables: Tables) -> dict[str, tuple[str, float]]:
    times = {row["row_id"]: (row["name"], row["time_ms"]) for row in tables.rows if row["stage"] == stage}
    whole = tables.stages[stage]
    return {**times, whole["row_id"]: ("step", whole["total_ms"])}
