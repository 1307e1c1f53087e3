"""What the campaign cost in time, from the times of its events alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from sotad.report.document import Block, Table, Text
from sotad.report.facts import Facts, cite, utc
from statemachine.state import JSON

Span = tuple[int, int]
_HALTS = ("campaign.paused", "campaign.blocked", "preflight.failed", "resource.wait_expired")
_ENDS = ("job.finished", "job.lost", "job.timed_out")


def union_ns(spans: Iterable[Span]) -> int:
    """Length of what the spans cover together; overlaps count once."""
    total, reached = 0, 0
    for begin, end in sorted(spans):
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def job_spans(f: Facts) -> dict[str, list[Span]]:
    """Per activity, the time from dispatch to end of each job; one still running ends with the last event."""
    spans: dict[str, list[Span]] = defaultdict(list)
    for activity, _, span in _jobs(f):
        spans[activity].append(span)
    return spans


def job_spans_of(f: Facts, activity: str, part: str) -> list[Span]:
    """The times of an activity's jobs whose name has that part between its slashes."""
    return [span for found, job, span in _jobs(f) if found == activity and part in job.split("/")]


def _jobs(f: Facts) -> Iterator[tuple[str, str, Span]]:
    """(activity, job, time) of every attempt of every job, in the order of their ends."""
    running: dict[str, tuple[str, int]] = {}
    for event in f.all("job.dispatched", *_ENDS):
        job = event.payload["job"]
        if event.type == "job.dispatched":
            running[job] = (event.payload["activity"], event.time_ns)
        elif job in running:
            activity, begin = running.pop(job)
            yield activity, job, (begin, event.time_ns)
    for job, (activity, begin) in running.items():
        yield activity, job, (begin, f.events[-1].time_ns)


def halted_ns(f: Facts) -> int:
    """How long the campaign stood paused or blocked."""
    spans, since = [], None
    for event in f.all(*_HALTS, "campaign.resumed", "campaign.cancel_requested"):
        if event.type in _HALTS:
            since = event.time_ns if since is None else since
        elif since is not None:
            spans.append((since, event.time_ns))
            since = None
    if since is not None:
        spans.append((since, f.events[-1].time_ns))
    return union_ns(spans)


def cost(f: Facts) -> JSON | None:
    """Seconds: ``wall_s`` from creation to the last event, ``jobs_s`` covered by activities, ``halted_s``;
    ``outside_share`` of the wall clock, from 0 to 1. None before there is a campaign."""
    created, closed = f.last("campaign.created"), f.last("campaign.closed")
    if created is None:
        return None
    end = closed or f.events[-1]
    wall = end.time_ns - created.time_ns
    jobs = union_ns(span for spans in job_spans(f).values() for span in spans)
    return {
        "begin": created,
        "end": end,
        "wall_s": wall / 1e9,
        "jobs_s": jobs / 1e9,
        "halted_s": halted_ns(f) / 1e9,
        "outside_share": max(0, wall - jobs) / wall if wall else None,
    }


def cost_blocks(f: Facts) -> list[Block]:
    """Wall clock, the share outside activities, and a line per activity."""
    found = cost(f)
    if found is None:
        return [Text("not recorded")]
    begin, end, share = found["begin"], found["end"], found["outside_share"]
    outside = "not recorded" if share is None else f"{100 * share:.1f}%"
    rows = [
        (activity, str(len(spans)), f"{union_ns(spans) / 1e9:.1f}")
        for activity, spans in sorted(job_spans(f).items(), key=lambda item: -union_ns(item[1]))
    ]
    return [
        Text(
            f"Wall clock {found['wall_s']:.1f} s, from {utc(begin.time_ns)} {cite(begin)} "
            f"to {utc(end.time_ns)} {cite(end)}; {found['jobs_s']:.1f} s of it inside "
            f"activities, {outside} outside; {found['halted_s']:.1f} s paused or blocked."
        ),
        Table(("activity", "jobs", "seconds (overlaps once)"), rows),
        *_launch_blocks(f),
        Text(_unpriced(f)),
    ]


def _launch_blocks(f: Facts) -> list[Block]:
    """What launches took, as far as it was seen: servers that start, runs, the rest; nothing before the first one."""
    whole = sum(seconds for _, seconds in f.c.pace.values())
    rows = []
    for name, (number, seconds) in sorted(f.c.pace.items(), key=lambda item: -item[1][1]):
        part, *of = name.split("/")
        share = f"{100 * seconds / whole:.1f}%" if whole else ""
        rows.append((_PARTS[part].format(*of), str(number), f"{seconds / number:.1f}", f"{seconds:.1f}", share))
    return [Table(("of launches", "number", "mean, s", "together, s", "share"), rows)] if rows else []


_PARTS = {  # statemachine.pace names them
    "startup": "{0} starts, caches {1}",
    "run": "{0} runs {1}",
    "rest": "{0}: waiting, stop, log",
    "rate": "runs at a rate",
}


def _unpriced(f: Facts) -> str:
    """What of the cost nobody recorded."""
    agents = "what agents used stands under Agents" if f.all("agent.finished") else "tokens and money: not recorded"
    return f"GPU seconds are given per attempt where GPUs are named; {agents}."
