"""Which step of the engine each kernel and copy belongs to, and the stage of that step.

A step is what the engine annotated (`sotad.analysis.dialects`). Work belongs to the step that launched it, also when
it runs while the next one is launched. In order of proof: the annotation with the same External id; the annotation
around the launch (found by correlation) on the launching thread; the device's window around the beginning of the
work; and, counted as guesses, a window very close by or the CPU's pass at that moment when nothing else is known.

Engines differ in what their annotation covers: vLLM's ends before the logits and the sampling, SGLang's before the
sampling. What is launched between two steps in the same way after nearly every step of a stage (or inside an
annotation that holds just that one step) therefore `follows` that step, unless another annotation claims it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.dialects import ORDER, Named, parse, parse_plain
from sotad.analysis.joins import by_id, launches_of
from sotad.analysis.nesting import Lane, Nesting, split
from sotad.trace.columns import I32, I64, Spans, Trace, Work

Flags = NDArray[np.bool_]

OUTSIDE = "outside"  # what no step covers
ALL = "all"  # the only stage of a trace without steps
METHODS = ("none", "external", "launch", "follows", "window", "guess")
NONE, EXTERNAL, LAUNCH, FOLLOWS, WINDOW, GUESS = range(6)
RECURS = 0.8  # of the steps of a stage have to be followed by a kernel for it to be part of them; of two at least
COMPILED = "## Call "  # torch.compile's annotations claim nothing
CLOSE_NS = 5_000  # a guess reaches this far (clocks differ), and a tenth of the length of the window at most


@dataclass(slots=True)
class Step:
    """One pass of the engine on one device.

    ``begin`` and ``end`` in ns on the device's clock, of its first and last kernel (without kernels, of its copies and
    the device's own annotation); ``device`` is -1 for a pass of a trace without devices. ``sequences`` and
    ``tokens`` are 0 where the annotation does not say them. ``method`` names how its work was found, surest first
    (of `METHODS`, joined with `+`), or `mark` when no work was.
    """

    begin: int
    end: int
    stage: str
    device: int
    sequences: int
    tokens: int
    text: str
    method: str


@dataclass(slots=True)
class Stages:
    """``kernel`` and ``copy`` hold the index of the stage in ``names``, ``kernel_step`` and ``copy_step`` the index
    in ``steps`` (-1: in none), ``kernel_method`` and ``copy_method`` the index in `METHODS`. ``guessed_ns`` is the
    kernel time whose step is a guess."""

    names: list[str]
    kernel: I32
    kernel_step: I32
    copy: I32
    copy_step: I32
    kernel_method: I32
    copy_method: I32
    steps: list[Step] = field(default_factory=list)
    guessed_ns: int = 0


@dataclass(slots=True)
class _Passes:
    """The annotations that are steps; a pass is one annotation on the CPU with its windows on the devices."""

    named: list[Named]
    texts: list[str]
    cpu: I64  # rows of trace.marks; pass i is row cpu[i]
    gpu: I64  # rows of trace.gpu_marks
    gpu_pass: I64  # the pass of each of them


def find_stages(trace: Trace, forced: str | None = None) -> Stages:
    """The steps of a trace, and to which of them everything on its devices belongs.

    `forced` is the stage of the whole file (as its path says it); it counts only in a trace without any step.
    """
    passes = _passes(trace)
    if not passes.named:
        return _whole(trace, forced or ALL)
    if not (len(trace.kernels) or len(trace.copies) or len(trace.gpu_marks)):
        return _on_cpu(trace, passes)
    kernels, kernel_method = _assign(trace.kernels, trace, passes)
    copies, copy_method = _assign(trace.copies, trace, passes)
    steps, step = _steps(trace, passes, (kernels, copies), (kernel_method, copy_method))
    kernel_step, copy_step = step[: len(kernels)], step[len(kernels) :]
    names = _names(steps, bool((step < 0).any()))
    of_step = np.array([*(names.index(each.stage) for each in steps), len(names) - 1], np.int32)
    guessed = (kernel_method == GUESS) & (kernel_step >= 0)
    guessed_ns = int((trace.kernels.end - trace.kernels.begin)[guessed].sum())
    return Stages(
        names,
        of_step[kernel_step],
        kernel_step,
        of_step[copy_step],
        copy_step,
        kernel_method,
        copy_method,
        steps,
        guessed_ns,
    )


def _names(steps: list[Step], outside: bool) -> list[str]:
    found = {step.stage for step in steps}
    names = [name for name in ORDER if name in found] + sorted(found - set(ORDER))
    return [*names, OUTSIDE] if outside or not names else names


def _whole(trace: Trace, name: str) -> Stages:
    def table(work: Work, value: int) -> I32:
        return np.full(len(work), value, np.int32)

    kernels, copies = trace.kernels, trace.copies
    return Stages(
        [name], table(kernels, 0), table(kernels, -1), table(copies, 0), table(copies, -1), table(kernels, NONE),
        table(copies, NONE),
    )  # fmt: skip


def _on_cpu(trace: Trace, passes: _Passes) -> Stages:
    """The passes of a trace that recorded no device."""
    steps = [
        Step(int(trace.marks.begin[row]), int(trace.marks.end[row]), named.stage, -1, *named[1:], text, "mark")
        for row, named, text in zip(passes.cpu, passes.named, passes.texts, strict=True)
        if named.stage is not None
    ]
    found = _whole(trace, ALL)
    found.names, found.steps = _names(steps, False), steps
    return found


def _passes(trace: Trace) -> _Passes:
    for read, plain in ((parse, False), (parse_plain, True)):
        known = _read_names(trace, read)
        cpu, gpu = _rows(trace.marks, known), _rows(trace.gpu_marks, known)
        if plain:  # a stage's own annotations may hold smaller ones of the same word
            cpu = cpu[_outermost(trace.marks, cpu, trace.marks.thread)]
            gpu = gpu[_outermost(trace.gpu_marks, gpu, trace.gpu_marks.stream)]
        if len(cpu) or len(gpu):
            break
    pair = by_id(trace.gpu_marks.external[gpu], trace.marks.external[cpu])
    alone = np.flatnonzero(pair < 0)  # windows of one annotation on several streams share its External id
    external = trace.gpu_marks.external[gpu[alone]]
    _, first, group = np.unique(np.where(external > 0, external, -1 - alone), return_index=True, return_inverse=True)
    pair[alone] = len(cpu) + group.reshape(-1)
    names = np.concatenate([trace.marks.name[cpu], trace.gpu_marks.name[gpu[alone[first]]]])
    return _Passes([known[int(name)] for name in names], [trace.names[name] for name in names], cpu, gpu, pair)


def _read_names(trace: Trace, read: Callable[[str], Named | None]) -> dict[int, Named]:
    used = np.unique(np.concatenate([trace.marks.name, trace.gpu_marks.name]))
    found = ((int(name), read(trace.names[name])) for name in used)
    return {name: named for name, named in found if named is not None}


def _rows(marks: Spans, known: dict[int, Named]) -> I64:
    return np.flatnonzero(np.isin(marks.name, list(known)))


def _outermost(marks: Spans, rows: I64, lane: I32) -> I64:
    return np.flatnonzero(Nesting(marks.begin[rows], marks.end[rows], lane[rows]).parent < 0)


def _assign(work: Work, trace: Trace, passes: _Passes) -> tuple[I64, I32]:
    """The pass of everything in `work` (-1: in none) and the method that found it."""
    marks, gpu = trace.marks, trace.gpu_marks
    found = by_id(work.external, marks.external[passes.cpu])
    known, first = np.unique(passes.gpu_pass, return_index=True)  # the windows of a pass share its External id
    window = by_id(work.external, gpu.external[passes.gpu[first]])
    found = np.where((found < 0) & (window >= 0), known[window] if len(known) else -1, found)
    named = np.flatnonzero(found >= 0)  # an id that is also an operator's does not name the annotation
    found[named[np.isin(work.external[named], trace.ops.external)]] = -1
    method = np.where(found >= 0, EXTERNAL, NONE).astype(np.int32)
    outside, launch = _by_launch(work, trace, passes, found, method)
    _by_following(work, trace, passes, found, method, outside, launch)
    _by_window(work, trace, passes, found, method, outside)
    if not len(passes.gpu):
        _by_clock(work, trace, passes, found, method, outside)
    return found, method


def _by_launch(work: Work, trace: Trace, passes: _Passes, found: I64, method: I32) -> tuple[I64, I64]:
    """Fill in what was launched inside a pass; returns what was provably launched outside of all, and its launches."""
    left = np.flatnonzero(found < 0)
    launch = launches_of(work, trace)[left]
    left, launch = left[launch >= 0], launch[launch >= 0]
    if not len(left) or not len(passes.cpu):
        return left[:0], launch[:0]
    begin, end = trace.marks.begin[passes.cpu], trace.marks.end[passes.cpu]
    process = _processes(trace)
    of_marks = process[trace.marks.thread[passes.cpu]]
    moments, thread = trace.launches.begin[launch], trace.launches.thread[launch]
    at = Nesting(begin, end, trace.marks.thread[passes.cpu]).innermost(moments, thread)
    at = np.where(at < 0, _only_open(begin, end, of_marks, moments, process[thread]), at)
    found[left], method[left] = at, np.where(at >= 0, LAUNCH, NONE)
    outside = (at < 0) & np.isin(process[thread], of_marks)
    return left[outside], launch[outside]


def _by_following(
    work: Work, trace: Trace, passes: _Passes, found: I64, method: I32, outside: I64, launch: I64
) -> None:
    """Fill in what recurs after the steps of a stage."""
    if not len(outside):
        return
    at = _followed(trace, passes, trace.launches.begin[launch], trace.launches.thread[launch])
    stages = {named.stage: i for i, named in enumerate(passes.named)}
    of_pass = np.array([-1 if named.stage is None else stages[named.stage] for named in passes.named])
    at = np.where(of_pass[at] >= 0, at, -1)
    outside, at = outside[at >= 0], at[at >= 0]
    steps = np.bincount(of_pass[np.unique(found[found >= 0])] + 1, minlength=len(of_pass) + 1)[1:]
    triples = np.unique(np.stack([work.name[outside], of_pass[at], at]), axis=1)
    kinds, seen = np.unique(triples[:2], axis=1, return_counts=True)
    recurs = kinds[:, (seen >= 2) & (seen >= RECURS * steps[kinds[1]])]
    width = len(of_pass)
    part = np.isin(work.name[outside].astype(np.int64) * width + of_pass[at], recurs[0] * width + recurs[1])
    found[outside[part]], method[outside[part]] = at[part], FOLLOWS


def _followed(trace: Trace, passes: _Passes, moments: I64, thread: I32) -> I64:
    """The pass before each moment of a thread, or the only one in the annotation that claims the moment; else -1."""
    marks = trace.marks
    found = np.full(len(moments), -1, np.int64)
    steps = np.zeros(len(marks), bool)
    steps[passes.cpu] = True
    ignored = [i for i, name in enumerate(trace.names) if name.startswith(COMPILED)]
    others = np.flatnonzero(~steps & ~np.isin(marks.name, ignored))
    claims = Nesting(marks.begin[others], marks.end[others], marks.thread[others]).innermost(moments, thread)
    for value, asked in split(thread):
        members = np.flatnonzero(marks.thread[passes.cpu] == value)
        if not len(members):
            continue
        begins = marks.begin[passes.cpu[members]]  # sorted, as the table is
        place = np.searchsorted(begins, moments[asked], side="right") - 1
        before = np.where(place >= 0, members[place], -1)
        claim = others[claims[asked]] if len(others) else np.zeros(len(asked), np.int64)
        first = np.searchsorted(begins, marks.begin[claim], side="left")
        inside = np.searchsorted(begins, marks.end[claim], side="left") - first
        within = np.where(inside == 1, members[np.minimum(first, len(members) - 1)], -1)
        found[asked] = np.where(claims[asked] < 0, before, within)
    return found


def _processes(trace: Trace) -> I64:
    names: dict[str, int] = {}
    return np.array([names.setdefault(pid, len(names)) for pid, _ in trace.threads], np.int64)


def _only_open(begin: I64, end: I64, lane: Lane, moments: I64, lanes: Lane) -> I64:
    """The interval of the lane that holds each moment, where exactly one does; else -1."""
    found = np.full(len(moments), -1, np.int64)
    for value in np.unique(lanes):
        members, asked = np.flatnonzero(lane == value), np.flatnonzero(lanes == value)
        if not len(members):
            continue
        order = members[np.argsort(begin[members], kind="stable")]
        opened = np.searchsorted(begin[order], moments[asked], side="right")
        closed = np.searchsorted(np.sort(end[members]), moments[asked], side="right")
        last = order[np.maximum(opened - 1, 0)]
        # the one that is open need not be the last that began, when an earlier and longer one outlives that
        holds = (opened - closed == 1) & (begin[last] <= moments[asked]) & (moments[asked] < end[last])
        found[asked] = np.where(holds, last, -1)
    return found


def _by_window(work: Work, trace: Trace, passes: _Passes, found: I64, method: I32, outside: I64) -> None:
    """Fill in what ran inside the window of a pass on its stream, or inside the only one on its device, or close."""
    left = np.setdiff1d(np.flatnonzero(found < 0), outside, assume_unique=True)
    gpu = trace.gpu_marks
    if not len(left) or not len(passes.gpu):
        return
    begin, end = gpu.begin[passes.gpu], gpu.end[passes.gpu]
    streams, of_device = Nesting(begin, end, gpu.stream[passes.gpu]), gpu.device[passes.gpu]

    def on_stream(rows: I64) -> I64:
        return streams.innermost(work.begin[rows], work.stream[rows])

    def on_device(rows: I64) -> I64:
        return _only_open(begin, end, of_device, work.begin[rows], work.device[rows])

    def beside(rows: I64) -> I64:
        return _nearest(begin, end, of_device, work.begin[rows], work.device[rows])

    for search, kind in ((on_stream, WINDOW), (on_device, WINDOW), (beside, GUESS)):
        at = search(left)
        held = at >= 0
        found[left[held]], method[left[held]] = passes.gpu_pass[at[held]], kind
        left = left[~held]


def _by_clock(work: Work, trace: Trace, passes: _Passes, found: I64, method: I32, outside: I64) -> None:
    """Guess, for want of launches and windows, that work runs while the CPU is in its pass."""
    left = np.setdiff1d(np.flatnonzero(found < 0), outside, assume_unique=True)
    begin, end = trace.marks.begin[passes.cpu], trace.marks.end[passes.cpu]
    one = np.zeros(len(begin), np.int64)
    at = _only_open(begin, end, one, work.begin[left], np.zeros(len(left), np.int64))
    found[left], method[left] = at, np.where(at >= 0, GUESS, NONE)


def _nearest(begin: I64, end: I64, lane: Lane, moments: I64, lanes: Lane) -> I64:
    """The window of the lane that ended just before each moment or begins just after, where one is close; else -1."""
    found = np.full(len(moments), -1, np.int64)
    for value in np.unique(lanes):
        members, asked = np.flatnonzero(lane == value), np.flatnonzero(lanes == value)
        if not len(members):
            continue
        when = moments[asked]
        ended, begun = members[np.argsort(end[members])], members[np.argsort(begin[members])]
        before = ended[np.maximum(np.searchsorted(end[ended], when, side="right") - 1, 0)]
        after = begun[np.minimum(np.searchsorted(begin[begun], when, side="right"), len(begun) - 1)]
        gap_before = np.where(end[before] <= when, when - end[before], np.iinfo(np.int64).max)
        gap_after = np.where(begin[after] > when, begin[after] - when, np.iinfo(np.int64).max)
        nearest = np.where(gap_before <= gap_after, before, after)
        gap = np.minimum(gap_before, gap_after)
        held = _count_open(begin[members], end[members], when) > 0  # inside several: not for distance to tell
        reach = np.minimum(CLOSE_NS, (end[nearest] - begin[nearest]) // 10)
        found[asked] = np.where((gap <= reach) & ~held, nearest, -1)
    return found


def _count_open(begin: I64, end: I64, moments: I64) -> I64:
    began = np.searchsorted(np.sort(begin), moments, side="right")
    ended = np.searchsorted(np.sort(end), moments, side="right")
    return np.asarray(began - ended, np.int64)


def _steps(trace: Trace, passes: _Passes, found: tuple[I64, I64], methods: tuple[I32, I32]) -> tuple[list[Step], I32]:
    """The passes that did something, one step per device, and the step of every kernel and then every copy."""
    gpu, works, devices = trace.gpu_marks, (trace.kernels, trace.copies), max(1, len(trace.devices))
    of_pass = np.concatenate([*found, passes.gpu_pass])
    device = np.concatenate([*(work.device for work in works), gpu.device[passes.gpu]])
    begin = np.concatenate([*(work.begin for work in works), gpu.begin[passes.gpu]])
    end = np.concatenate([*(work.end for work in works), gpu.end[passes.gpu]])
    method = np.concatenate([*methods, np.zeros(len(passes.gpu), np.int32)])
    member = np.flatnonzero(np.array([*(named.stage is not None for named in passes.named), False])[of_pass])
    key, index = np.unique(of_pass[member] * devices + device[member], return_inverse=True)
    first, last = np.full(len(key), np.iinfo(np.int64).max), np.full(len(key), np.iinfo(np.int64).min)
    kernel = (member < len(trace.kernels)) & (method[member] != GUESS)  # a guess does not stretch the step it is in
    with_kernels = np.zeros(len(key), bool)
    with_kernels[index[kernel]] = True
    telling = kernel | ~with_kernels[index]  # copies for one step run while another one computes
    np.minimum.at(first, index[telling], begin[member[telling]])
    np.maximum.at(last, index[telling], end[member[telling]])
    used = np.zeros((len(key), len(METHODS)), bool)
    used[index, method[member]] = True
    order = np.lexsort((first, key % devices))
    rank = np.empty(len(key), np.int32)
    rank[order] = np.arange(len(key))
    step = np.full(len(of_pass), -1, np.int32)
    step[member] = rank[index]
    steps = [_step(passes, divmod(int(key[i]), devices), int(first[i]), int(last[i]), used[i]) for i in order]
    return steps, step[: len(found[0]) + len(found[1])]


def _step(passes: _Passes, key: tuple[int, int], begin: int, end: int, used: Flags) -> Step:
    of_pass, device = key
    named = passes.named[of_pass]
    method = "+".join(name for name, uses in zip(METHODS[1:], used[1:], strict=True) if uses) or "mark"
    return Step(begin, end, named.stage or ALL, device, *named[1:], passes.texts[of_pass], method)
