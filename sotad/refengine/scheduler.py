"""Continuous batching: which sequences run, and what the next step computes. Pure bookkeeping, no tensors."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from .kvcache import Region

Stage = Literal["prefill", "decode"]


@dataclass(eq=False, slots=True)
class Sequence:
    """One request: what was asked, and how far it has come."""

    id: str
    prompt: list[int]
    max_tokens: int
    eos: int | None = None  # None: run to max_tokens whatever is sampled
    temperature: float = 0.0
    seed: int | None = None
    output: list[int] = field(default_factory=list)
    computed: int = 0  # tokens whose keys and values are in the cache
    reused: int = 0  # of these, taken from the prefix cache
    region: Region | None = None
    finish: str | None = None

    @property
    def prefilling(self) -> bool:
        """Whether part of the prompt is still to be computed."""
        return self.computed < len(self.prompt)


@dataclass(frozen=True, slots=True)
class Work:
    """The tokens of one sequence in a step; `samples` when the step yields its next token."""

    sequence: Sequence
    tokens: list[int]
    samples: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass; all its work is of the same stage."""

    stage: Stage
    work: list[Work]

    @property
    def tokens(self) -> int:
        """Rows of the forward pass."""
        return sum(len(work.tokens) for work in self.work)


class Slots(Protocol):
    """What the scheduler needs of a KV cache."""

    def reserve(self, prompt: list[int], total: int) -> Region | None: ...
    def publish(self, region: Region, tokens: list[int]) -> None: ...
    def release(self, region: Region) -> None: ...


class Scheduler:
    """Admits waiting sequences as soon as a batch place and KV room are free, and plans steps."""

    def __init__(self, cache: Slots, max_batch: int, chunk: int, policy: str) -> None:
        self._cache, self._max_batch, self._chunk, self._policy = cache, max_batch, chunk, policy
        self._last: Stage = "decode"
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def cancel(self, sequence_id: str) -> None:
        """Forget a sequence whose client has gone; unknown ids are ignored."""
        self.waiting = deque(s for s in self.waiting if s.id != sequence_id)
        for sequence in [s for s in self.running if s.id == sequence_id]:
            self._retire(sequence, "abort")

    def plan(self) -> Step | None:
        """The next step, or None when there is nothing to do."""
        self._admit()
        prefilling = [s for s in self.running if s.prefilling]
        decoding = [s for s in self.running if not s.prefilling]
        if not prefilling and not decoding:
            return None
        self._last = self._stage(bool(prefilling), bool(decoding))
        if self._last == "prefill":
            return Step("prefill", self._chunks(prefilling))
        return Step("decode", [Work(s, s.output[-1:], True) for s in decoding])

    def commit(self, step: Step, sampled: Iterable[int]) -> list[Sequence]:
        """Account for a step that ran; returns the sequences that got a token, in the order of `sampled`."""
        for work in step.work:
            work.sequence.computed += len(work.tokens)
            if step.stage == "prefill" and work.samples and work.sequence.region:
                self._cache.publish(work.sequence.region, work.sequence.prompt)
        advanced = [work.sequence for work in step.work if work.samples]
        for sequence, token in zip(advanced, sampled, strict=True):
            sequence.output.append(token)
            if token == sequence.eos or len(sequence.output) >= sequence.max_tokens:
                self._retire(sequence, "stop" if token == sequence.eos else "length")
        return advanced

    def _stage(self, prefilling: bool, decoding: bool) -> Stage:
        if prefilling and decoding and self._policy == "decode-first":
            return "decode" if self._last == "prefill" else "prefill"
        return "prefill" if prefilling else "decode"

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._max_batch:
            sequence = self._next_waiting()
            region = self._cache.reserve(sequence.prompt, len(sequence.prompt) + sequence.max_tokens)
            if region is None:
                return
            self.waiting.remove(sequence)
            sequence.region, sequence.computed, sequence.reused = region, region.reused, region.reused
            self.running.append(sequence)

    def _next_waiting(self) -> Sequence:
        if self._policy == "shortest-first":
            return min(self.waiting, key=lambda s: len(s.prompt))
        return self.waiting[0]

    def _chunks(self, prefilling: list[Sequence]) -> list[Work]:
        """As many prompt tokens as one prefill step may take, in order of admission."""
        room, work = self._chunk, []
        for sequence in prefilling:
            if not room:
                break
            tokens = sequence.prompt[sequence.computed : sequence.computed + room]
            room -= len(tokens)
            work.append(Work(sequence, tokens, sequence.computed + len(tokens) == len(sequence.prompt)))
        return work

    def _retire(self, sequence: Sequence, reason: str) -> None:
        sequence.finish = reason
        self.running.remove(sequence)
        if sequence.region is not None:
            self._cache.publish(sequence.region, (sequence.prompt + sequence.output)[: sequence.computed])
            self._cache.release(sequence.region)
