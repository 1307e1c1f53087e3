"""Which steps of two captures may be compared, in which unit, and in the same columns.

Stages that generate are compared step by step at the batch sizes that both sides ran; stages that read prompts per
token. Where neither makes sense the comparison is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotad.analysis.noise import F64, Stratum, ordinary

I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]
IDLE = "idle"
UNCOVERED = "not in an operator"  # the category of what no operator of a step on the CPU covers
INSIDE, BETWEEN = "(idle inside the step)", "(idle until the next step)"
PROMPTS = ("prefill", "encode")  # stages that are compared per token; the pause after them may be a wait for requests
ALIKE = 0.1  # batch sizes and lengths nearer than this share are compared as they are
SHORT = 64  # tokens; shorter prompts take as long as their weights do to read, whatever their length
STRETCH = 4.0  # prompts that differ by more than this factor do other work per token
KERNELS, OPERATORS = "kernels", "operators"  # what is counted in a capture
PLAIN = "operators"  # the category of operators under no annotation
LENGTHS = "the captures do not tell how long the sequences were, with which attention grows: capture both alike"
APART = "steps do not follow each other on both sides: pauses between steps left out"
COMMON = 0.5  # of each side's steps have to be of the batch sizes that both ran


class Part(NamedTuple):
    """What a step's time is spent on; ``name`` is canonical: equal for the same kernel on both sides."""

    row_id: str
    name: str
    category: str
    annotation: str | None = None


@dataclass(slots=True)
class Steps:
    """The steps of one stage, one row each.

    ``times`` is ms [steps, parts], whose sum over parts is the step's length; ``counts`` says how often each part ran.
    ``sequences`` and ``tokens`` are 0 where the capture does not tell them. ``closed`` are the steps that the next one
    follows for the same sequences: only their part `BETWEEN` holds a time.
    """

    parts: list[Part]
    times: F64
    counts: F64
    sequences: I64
    tokens: I64
    closed: Flags

    def __len__(self) -> int:
        return len(self.times)

    def take(self, kept: NDArray[Any]) -> Steps:
        """Only the steps that ``kept`` selects."""
        columns = (self.times, self.counts, self.sequences, self.tokens, self.closed)
        return Steps(self.parts, *(column[kept] for column in columns))


@dataclass(slots=True)
class Side:
    """One capture: its name, what is counted in it (`KERNELS` or `OPERATORS`), and its steps by stage."""

    name: str
    kind: str
    stages: dict[str, Steps] = field(default_factory=dict)


class Refused(ValueError):
    """These steps cannot be compared; the text says why."""


@dataclass(slots=True)
class Group:
    """Steps of both sides that did the same work but for ``scale``, one factor for each step."""

    weight: float
    target: Steps
    leader: Steps
    scale: tuple[F64, F64]


@dataclass(slots=True)
class Paired:
    """Comparable steps: ``strata`` hold times scaled to ``unit``, ``counts`` launches per step, in columns ``parts``.

    ``left_out`` counts steps of each side whose pause is not known (the last one), that are odd or that have no match.
    """

    target: str
    leader: str
    parts: list[tuple[Part | None, Part | None]]
    strata: list[Stratum]
    counts: tuple[F64, F64]
    used: tuple[Steps, Steps]
    left_out: tuple[int, int]
    unit: str
    notes: list[str]


def pair(stage: str, target: Side, leader: Side) -> Paired:
    """The comparable steps of a stage.

    Raises:
        Refused: a side has none, or they did different work.
    """
    if target.kind != leader.kind:
        told = f"{target.name} has {target.kind} and {leader.name} {leader.kind}"
        raise Refused(f"{told}: capture both with, or both without, the GPU")
    for side in (target, leader):
        if not len(side.stages.get(stage, ())):
            raise Refused(f"{side.name} has no {stage} step in this capture")
    ours, theirs = _alike(target.stages[stage], leader.stages[stage])
    ours, theirs, closed = _whole(ours, theirs)
    per_token = stage in PROMPTS or stage == "mixed"
    groups, unit, notes = (_per_token if per_token else _per_step)(stage, ours, theirs)
    if stage not in PROMPTS:
        notes = [*notes, LENGTHS, *([] if closed or target.kind == OPERATORS else [APART])]
    groups = _telling([_ordinary(group) for group in groups])
    parts, order = _columns(ours.parts, theirs.parts)
    strata = [_stratum(group, order) for group in groups]
    used = (joined([g.target for g in groups]), joined([g.leader for g in groups]))
    counts = tuple(_aligned(side.counts, places).mean(axis=0) for side, places in zip(used, order, strict=True))
    left_out = (len(target.stages[stage]) - len(used[0]), len(leader.stages[stage]) - len(used[1]))
    given = (parts, strata, (counts[0], counts[1]), used, left_out, unit, notes)
    return Paired(target.name, leader.name, *given)


def _alike(target: Steps, leader: Steps) -> tuple[Steps, Steps]:
    """Operators by name alone where the two engines do not share any annotation."""
    ours, theirs = ({part.annotation for part in side.parts} - {None} for side in (target, leader))
    return (target, leader) if ours & theirs or not ours | theirs else (_unannotated(target), _unannotated(leader))


def _unannotated(side: Steps) -> Steps:
    """The same steps with one column for each operator; its row id is that of its largest row."""
    members: dict[str, list[int]] = {}
    for place in np.argsort(-side.times.sum(axis=0), kind="stable").tolist():
        members.setdefault(side.parts[place].name, []).append(place)
    first = [side.parts[places[0]] for places in members.values()]
    parts = [part._replace(annotation=None, category=PLAIN if part.annotation else part.category) for part in first]
    times, counts = (
        np.stack([columns[:, places].sum(axis=1) for places in members.values()], axis=1)
        for columns in (side.times, side.counts)
    )
    return Steps(parts, times, counts, side.sequences, side.tokens, side.closed)


def _whole(target: Steps, leader: Steps) -> tuple[Steps, Steps, bool]:
    """Steps with the pause until the next one where both sides have such; else all of them, without that pause."""
    if target.closed.any() and leader.closed.any():
        return target.take(target.closed), leader.take(leader.closed), True
    return _without_pause(target), _without_pause(leader), False


def _without_pause(side: Steps) -> Steps:
    kept = [i for i, part in enumerate(side.parts) if part.name != BETWEEN]
    parts = [side.parts[i] for i in kept]
    return Steps(parts, side.times[:, kept], side.counts[:, kept], side.sequences, side.tokens, side.closed)


# --- by batch size, or per token ------------------------------------------------------------------------------

Grouped = tuple[list[Group], str, list[str]]


def _per_step(stage: str, target: Steps, leader: Steps) -> Grouped:
    """Steps of the batch sizes that both sides ran, each size with the weight that it has in the target."""
    if not (target.sequences.all() and leader.sequences.all()):
        note = "the batch sizes are not told by both captures: whether the steps did equal work is not known"
        return [_group(target, leader)], "ms per step", [note]
    sizes = np.intersect1d(target.sequences, leader.sequences)
    kept = [np.isin(side.sequences, sizes) for side in (target, leader)]
    if len(sizes) and min(each.mean() for each in kept) >= COMMON:
        groups = [_group(target.take(target.sequences == n), leader.take(leader.sequences == n)) for n in sizes]
        whole = sum(len(group.target) for group in groups)
        for group in groups:
            group.weight = len(group.target) / whole
        return groups, f"ms per step at batch {_span(sizes)}", []
    typical = [float(np.median(side.sequences)) for side in (target, leader)]
    told = f"batch {_span(target.sequences)} against {_span(leader.sequences)}"
    if _ratio(typical) > 1 + ALIKE:
        raise Refused(f"{stage} at {told}: a step does different work; capture both under the same load")
    return [_group(target, leader)], "ms per step", [f"{told}: near enough to compare without scaling"]


def _per_token(stage: str, target: Steps, leader: Steps) -> Grouped:
    """All steps, scaled to the target's usual number of tokens."""
    if not (target.tokens.all() and leader.tokens.all()):
        note = "the numbers of tokens are not told by both captures: whether the steps did equal work is not known"
        return [_group(target, leader)], "ms per step", [note]
    usual = [float(np.median(side.tokens)) for side in (target, leader)]
    if _ratio(usual) > STRETCH:
        raise Refused(f"{stage} steps of {usual[0]:g} against {usual[1]:g} tokens: too far apart to compare per token")
    if min(usual) < SHORT and _ratio(usual) > 1 + ALIKE:
        raise Refused(f"{stage} steps of {usual[0]:g} against {usual[1]:g} tokens: too short to compare per token")
    batches = [float(np.median(side.sequences)) for side in (target, leader)]
    if stage == "mixed" and min(batches) and _ratio(batches) > 1 + ALIKE:
        raise Refused(f"mixed steps of batch {batches[0]:g} against {batches[1]:g}: capture both under the same load")
    group = _group(target, leader)
    group.scale = (usual[0] / target.tokens, usual[0] / leader.tokens)
    lengths = [f"{_span(side.tokens)} tokens" for side in (target, leader)]
    notes = []
    if any(abs(scale - 1).max() > ALIKE for scale in group.scale):
        notes = [f"steps of {lengths[0]} against {lengths[1]}, compared per token: attention grows faster than that"]
    return [group], f"ms per step of {usual[0]:g} tokens", notes


def _group(target: Steps, leader: Steps) -> Group:
    return Group(1.0, target, leader, (np.ones(len(target)), np.ones(len(leader))))


def _span(values: I64) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _ratio(values: Sequence[float]) -> float:
    return max(values) / min(values) if min(values) > 0 else float("inf")


# --- steps into columns -----------------------------------------------------------------------------------------


def _ordinary(group: Group) -> Group:
    """The group without the steps of odd length."""
    sides, scales = [], []
    for side, scale in zip((group.target, group.leader), group.scale, strict=True):
        kept = ordinary(side.times.sum(axis=1) * scale)
        sides.append(side.take(kept))
        scales.append(scale[kept])
    return Group(group.weight, sides[0], sides[1], (scales[0], scales[1]))


def _telling(groups: list[Group]) -> list[Group]:
    """Only groups that tell their noise, if there is one; weights add up to 1."""
    telling = [group for group in groups if min(len(group.target), len(group.leader)) > 1] or groups
    whole = sum(group.weight for group in telling)
    return [Group(group.weight / whole, group.target, group.leader, group.scale) for group in telling]


Places = list[int]  # per column the side's own part, -1 where it has none


def _columns(
    target: list[Part], leader: list[Part]
) -> tuple[list[tuple[Part | None, Part | None]], tuple[Places, Places]]:
    """One column for the parts that are the same on both sides: equal category and name."""
    ours = {_key(part): place for place, part in enumerate(target)}
    theirs = {_key(part): place for place, part in enumerate(leader)}
    keys = list(dict.fromkeys((*ours, *theirs)))
    order = [ours.get(key, -1) for key in keys], [theirs.get(key, -1) for key in keys]
    pairs = zip(*order, strict=True)
    parts = [(target[a] if a >= 0 else None, leader[b] if b >= 0 else None) for a, b in pairs]
    return parts, order


def _aligned(values: F64, places: Places) -> F64:
    """The columns in the common order, zero where the side lacks the part."""
    padded = np.concatenate([values, np.zeros((len(values), 1))], axis=1)
    return padded[:, places]


def _stratum(group: Group, order: tuple[Places, Places]) -> Stratum:
    ours = _aligned(group.target.times * group.scale[0][:, None], order[0])
    theirs = _aligned(group.leader.times * group.scale[1][:, None], order[1])
    return Stratum(group.weight, ours, theirs)


def joined(steps: Sequence[Steps]) -> Steps:
    """All steps in one table; parts that are the same share a column."""
    parts = list({_key(part): part for each in reversed(steps) for part in each.parts}.values())
    places = []
    for each in steps:
        own = {_key(part): place for place, part in enumerate(each.parts)}
        places.append([own.get(_key(part), -1) for part in parts])
    times, counts = (
        np.concatenate([_aligned(getattr(each, name), place) for each, place in zip(steps, places, strict=True)])
        for name in ("times", "counts")
    )
    rest = (np.concatenate([getattr(each, name) for each in steps]) for name in ("sequences", "tokens", "closed"))
    return Steps(parts, times, counts, *rest)


def _key(part: Part) -> tuple[str, str | None, str]:
    return part.category, part.annotation, part.name
