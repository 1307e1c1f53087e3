"""Real defects for a fork of the reference engine, their repairs, one cheat, and the choice of a repair.

A defect is a diff that `git apply` puts on a checkout whose engine lies in `refengine/`. A repair knows
nothing of defects: it states what a profile must show, target against leader, and what text of the source it
replaces.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Row = Mapping[str, Any]
MIN_SHARE = 0.05  # lost time counts from this share of the stage's largest row


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One way in which a fork is slower than the engine it was made from; its outputs are the same."""

    name: str
    kind: Literal["compute", "scheduling", "memory"]
    symptom: str
    profile: str

    @property
    def diff(self) -> Path:
        """The unified diff that puts the defect into a checkout."""
        return Path(__file__).with_name(f"{self.name}.diff")


@dataclass(frozen=True, kw_only=True)
class SlowRows:
    """Evidence: rows that match cost at least `ratio` times what they cost the leader."""

    stage: Literal["prefill", "decode"]
    pattern: str
    ratio: float

    def lost_ms(self, rows: Iterable[Row]) -> float:
        """Milliseconds that the dearest matching row costs above the leader's; 0 without evidence."""
        staged = _of_stage(rows, self.stage)
        floor = MIN_SHARE * max((_number(row, "time_ms") for row in staged), default=0.0)
        losses = [self._loss(row) for row in staged if re.search(self.pattern, str(row["name"]))]
        lost = max(losses, default=0.0)
        return lost if lost >= floor else 0.0

    def _loss(self, row: Row) -> float:
        mine, leader = _number(row, "time_ms"), _number(row, "leader_time_ms")
        return mine - leader if mine >= self.ratio * leader else 0.0


@dataclass(frozen=True, kw_only=True)
class SmallBatches:
    """Evidence: decode steps hold on average at most 1 / `ratio` of the leader's sequences."""

    ratio: float

    def lost_ms(self, rows: Iterable[Row]) -> float:
        """Milliseconds that the stage's steps cost above the leader's; 0 without evidence."""
        for row in _of_stage(rows, "decode"):
            mine, leader = _number(row, "mean_batch_size"), _number(row, "leader_mean_batch_size")
            if row["name"] == "step" and mine and leader >= self.ratio * mine:
                return max(0.0, _number(row, "time_ms") - _number(row, "leader_time_ms"))
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Replaces `old`, which must be in `file` exactly once, by `new`."""

    file: str  # relative to the checkout
    old: str
    new: str
    subject: str  # of the commit

    def applies_to(self, source: Mapping[str, str]) -> bool:
        """Whether the checkout, as a mapping from file to text, has what this edit replaces."""
        return source.get(self.file, "").count(self.old) == 1

    def apply(self, text: str) -> str:
        """The text of `file` after the edit. Raises ValueError when `old` is not in it exactly once."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: the text to replace occurs {text.count(self.old)} times, not once")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, kw_only=True)
class Fix(Edit):
    """A repair and the evidence that calls for it."""

    name: str
    evidence: SlowRows | SmallBatches


DEFECTS: dict[str, Defect] = {
    defect.name: defect
    for defect in (
        Defect(
            name="full-logits",
            kind="compute",
            symptom="The output head and a double-precision log-softmax run for every prompt position.",
            profile="prefill: aten::_log_softmax and aten::copy_ are new, lm_head grows manifold.",
        ),
        Defect(
            name="token-budget",
            kind="scheduling",
            symptom="A decode step charges each sequence's whole context to the step's token budget, so that few fit.",
            profile="decode: several times the steps, each of bs=2 or 3 where the leader has bs=8.",
        ),
        Defect(
            name="kv-copy",
            kind="memory",
            symptom="Writing new keys and values copies the whole KV pool of every layer in every step.",
            profile="both stages: aten::copy_ under kv.append dominates; index_copy_ is now index_copy.",
        ),
    )
}

FIXES: list[Fix] = [
    Fix(
        name="last-logits",
        evidence=SlowRows(stage="prefill", pattern=r"^lm_head$|log_softmax|^aten::(mm|addmm|copy_)$", ratio=1.5),
        file="refengine/model.py",
        old="""\
            logits = F.linear(self._norm(x), self.head)
            return F.log_softmax(logits, dim=-1, dtype=torch.float64)[batch.wanted]
""",
        new="""\
            return F.linear(self._norm(x[batch.wanted]), self.head)
""",
        subject="model: compute logits only for the rows whose next token is sampled",
    ),
    Fix(
        name="full-decode",
        evidence=SmallBatches(ratio=1.5),
        file="refengine/scheduler.py",
        old="""\
        chosen, budget = [], self._chunk
        for sequence in decoding:
            budget -= sequence.computed
            if budget >= 0 or not chosen:
                chosen.append(sequence)
        return Step("decode", [Work(s, s.output[-1:], True) for s in chosen])
""",
        new="""\
        return Step("decode", [Work(s, s.output[-1:], True) for s in decoding])
""",
        subject="scheduler: decode all running sequences together; a decode step adds one token each",
    ),
    Fix(
        name="in-place-append",
        evidence=SlowRows(stage="decode", pattern=r"^kv\.append$|^aten::(copy_|clone|cat|index_copy)$", ratio=2.0),
        file="refengine/kvcache.py",
        old="""\
        self._keys[layer] = self._keys[layer].index_copy(2, slots, keys)
        self._values[layer] = self._values[layer].index_copy(2, slots, values)
""",
        new="""\
        self._keys[layer].index_copy_(2, slots, keys)
        self._values[layer].index_copy_(2, slots, values)
""",
        subject="kvcache: write new keys and values in place",
    ),
]

CHEAT = Edit(
    file="refengine/model.py",
    old="""\
        for number, layer in enumerate(self.layers):
""",
    new="""\
        long_decode = all(s.rows == 1 and s.context > 48 for s in batch.spans)
        for number, layer in list(enumerate(self.layers))[:: 2 if long_decode else 1]:
""",
    subject="model: use fewer layers for long contexts",
)


def choose_fix(rows: Iterable[Row], source: Mapping[str, str]) -> Fix | None:
    """The repair that the profile calls for most and that applies to the source; None when there is none.

    Args:
        rows: target against leader, with `stage`, `name`, `time_ms`, `leader_time_ms` (0 or None where the leader
            has no such row), and on a stage's `step` row `mean_batch_size` and `leader_mean_batch_size`.
        source: text of the checkout's files by path relative to it.
    """
    table = list(rows)
    losses = {fix.name: fix.evidence.lost_ms(table) for fix in FIXES if fix.applies_to(source)}
    candidates = [fix for fix in FIXES if losses.get(fix.name, 0.0) > 0]
    return max(candidates, key=lambda fix: losses[fix.name], default=None)


def _of_stage(rows: Iterable[Row], stage: str) -> list[Row]:
    return [row for row in rows if row["stage"] == stage]


def _number(row: Row, key: str) -> float:
    return float(row.get(key) or 0)
