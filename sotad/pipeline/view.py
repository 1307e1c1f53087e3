"""The whole analysis of one trace: for each device its passes, layers and groups of passes that may be averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from sotad.analysis.graphs import replayed_by
from sotad.analysis.stages import Stages, Step
from sotad.pipeline.anchors import Count, Found, by_profile, by_substring, count_layers, counts, discover, regular
from sotad.pipeline.lane import Lane, lanes, used_names, vocabulary
from sotad.pipeline.layers import Layers, segment
from sotad.pipeline.model import Model
from sotad.pipeline.passes import DRAFTS, UNKNOWN, Passes, find_passes
from sotad.pipeline.period import Period, boundary_period, layer_period
from sotad.pipeline.profiles import Profile, infer, named, recognised
from sotad.pipeline.steady import Group, groups
from sotad.trace.columns import I64, Trace


class NoKernels(ValueError):
    """A trace in which no GPU kernel ran; the text says what it holds instead."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person who asks knows already; None where it is to be found out."""

    profile: str | None = None
    anchor: str | None = None
    layers: int | None = None


@dataclass(slots=True)
class View:
    """One device. ``count`` is what kernel names say about the number of layers, ``known`` what config or option
    say (None: nothing), ``expected`` what passes were held against."""

    lane: Lane
    profile: Profile
    profile_source: str
    anchors: Found
    count: Count
    known: int | None
    expected: int | None
    passes: Passes
    layers: Layers
    groups: list[Group]
    notes: list[str] = field(default_factory=list)


def views(
    trace: Trace, stages: Stages, categorize: Callable[[str], str], model: Model | None = None, wish: Wish | None = None
) -> list[View]:
    """The devices of a trace, busiest first.

    Raises:
        NoKernels: there is no GPU kernel in it.
        ValueError: the wished profile does not exist.
    """
    wish, model = wish or Wish(), model or Model()
    if not len(trace.kernels):
        raise NoKernels(_why_empty(trace))
    names = [trace.names[at] for at in used_names(trace)]
    profile, source = _profile(names, model, wish)
    words = vocabulary(names, profile, categorize)
    found = lanes(trace, stages.kernel_step, replayed_by(trace), words)
    return [_view(lane, stages.steps, profile, source, wish.layers or model.layers, wish.anchor) for lane in found]


def _why_empty(trace: Trace) -> str:
    held = f"{len(trace.ops)} CPU operators, {len(trace.copies)} copies"
    return f"{trace.path}: no GPU kernels in it ({held}); capture again with CUDA activity, while requests are running"


def _profile(names: list[str], model: Model, wish: Wish) -> tuple[Profile, str]:
    if wish.profile:
        return named(wish.profile), "option"
    return (infer(model.config), "config") if model.config else (recognised(names), "kernel names")


def _view(lane: Lane, steps: list[Step], profile: Profile, source: str, known: int | None, text: str | None) -> View:
    blocks = profile.blocks_per_layer
    anchors = by_substring(lane, text, blocks) if text else by_profile(lane, profile)
    notes: list[str] = []
    if not len(anchors.at) and not text:
        anchors = regular(lane)
    period = Period(1, 0.0) if (lane.step >= 0).any() else _period(lane, anchors, profile)
    denied = bool(known) and period.sure and period.layers != known
    in_pass = known * anchors.blocks_per_layer if known and not denied else None
    passes = find_passes(lane, steps, anchors, in_pass, period)
    main = np.where(lane.stream == main_streams(lane, anchors, passes)[passes.of], passes.of, -1)
    table = counts(lane, main, len(passes.list))
    count = count_layers(table, (_held(anchors, main, len(table)) // anchors.blocks_per_layer).tolist())
    if passes.method == "anchor count" and not known:
        count = Count(period.layers, period.confidence, period.runner_up)
    if text:
        anchors.blocks_per_layer = _blocks(anchors, _held(anchors, main, len(table)), known or count.layers)
    expected = known or (_usual(anchors, _held(anchors, main, len(table))) if text else count.layers)
    if not text and expected and not _agrees(anchors, _held(anchors, main, len(table)), expected):
        other = discover(lane, main, table, expected)
        notes += [f"{anchors.text or 'the profile has no anchor here'}: not {expected} in a pass"] if other else []
        anchors = other or anchors
    if text and not known and count.layers and expected != count.layers:
        notes.append(f"{text!r} counts {expected} layers, most kernel names {count.layers}")
    held = _held(anchors, main, len(table))
    wanted = _expected(anchors, passes, held, (expected or 0) * anchors.blocks_per_layer)
    layers = segment(lane, passes, anchors, wanted)
    _note(passes, layers)
    usable = [check.reliable for check in layers.checks]
    return View(
        lane, profile, source, anchors, count, known, expected, passes, layers, groups(passes.list, usable), notes
    )


def _period(lane: Lane, anchors: Found, profile: Profile) -> Period:
    """The layers of a pass by what comes once in it, else by what runs in the blocks between anchors and how long."""
    default = profile.layers or 0
    if len(anchors.at) < 2:
        return Period(default, 0.0)
    told = boundary_period(lane.label.astype(np.int64), anchors.at, anchors.blocks_per_layer)
    if told is not None:
        return told
    edges = np.append(anchors.at, len(lane))
    total = np.concatenate(([0], np.cumsum(lane.end - lane.begin)))
    label = lane.label
    kinds: dict[bytes, int] = {}
    names = [kinds.setdefault(label[a:b].tobytes(), len(kinds)) for a, b in pairwise(edges.tolist())]
    return layer_period(names, np.diff(total[edges]), anchors.blocks_per_layer, default)


def main_streams(lane: Lane, anchors: Found, passes: Passes) -> I64:
    """The stream of each pass that holds most of its anchors (of its kernels, if it has none)."""
    if not passes.list:
        return np.zeros(1, np.int64)
    width = int(lane.stream.max()) + 1
    number = np.zeros((len(passes.list), width), np.int64)
    for at, weight in ((np.arange(len(lane)), 1), (anchors.at, len(lane))):
        inside = at[passes.of[at] >= 0]
        np.add.at(number, (passes.of[inside], lane.stream[inside]), weight)
    found: I64 = np.argmax(number, axis=1).astype(np.int64)
    return found


def _held(anchors: Found, main: I64, passes: int) -> I64:
    """Anchors on the main stream of each pass; ``main`` is the pass of every kernel there."""
    of = main[anchors.at]
    return np.bincount(of[of >= 0], minlength=passes).astype(np.int64)


def _usual(anchors: Found, held: I64) -> int | None:
    return int(np.bincount(held[held > 0]).argmax()) // anchors.blocks_per_layer if (held > 0).any() else None


def _blocks(anchors: Found, held: I64, layers: int | None) -> int:
    """How often a given anchor comes in a layer: more than once when a pass holds it several times for each layer."""
    usual = (_usual(anchors, held) or 0) * anchors.blocks_per_layer
    return usual // layers if layers and usual and not usual % layers else anchors.blocks_per_layer


def _agrees(anchors: Found, held: I64, layers: int) -> bool:
    """Whether at least half of the passes with anchors hold as many as expected."""
    used = held[held > 0]
    return bool(len(used)) and float(np.mean(used == layers * anchors.blocks_per_layer)) >= 0.5


def _expected(anchors: Found, passes: Passes, held: I64, usual: int) -> I64:
    """The anchors expected in each pass: draft passes of a smaller model have their own number."""
    expected = np.full(len(passes.list), usual, np.int64)
    for number in np.unique(held[(held > 0) & (held < usual / 2)]).tolist():
        own = [each for each in passes.list if held[each.index] == number]
        drafts = [each for each in own if each.kind in ("draft", UNKNOWN)]
        if len(drafts) == len(own) >= DRAFTS and not number % anchors.blocks_per_layer:
            for each in drafts:
                each.kind, expected[each.index] = "draft", number
    return expected


def _note(passes: Passes, layers: Layers) -> None:
    """Say at each pass what is wrong with its layers."""
    for each, check in zip(passes.list, layers.checks, strict=True):
        notes = [check.note] if check.note else []
        if not check.count:
            notes.append("no layers")
        elif not check.reliable:
            wanted = check.expected or "unknown"
            notes.append(f"layer segmentation unreliable: {check.count} anchors, expected {wanted}")
            if check.expected and check.count % check.expected == 0:
                notes.append(f"{check.count // check.expected} times as many: several forward passes in one step?")
        each.note = "; ".join(notes)
