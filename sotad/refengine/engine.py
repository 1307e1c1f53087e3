"""The engine thread: takes requests, runs one step after another, hands out tokens."""

import queue
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from .flags import Config
from .kvcache import KVCache
from .model import Batch, Decoder, Span
from .profiling import StepProfiler, span
from .scheduler import Scheduler, Sequence, Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token; `finish` is set on the last one of a sequence."""

    sequence_id: str
    token: int
    reused: int
    finish: str | None


@dataclass
class Counters:
    """Totals since start, written by the engine thread only."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=lambda: {"prefill": 0, "decode": 0})


class Engine:
    """Owns model, cache and scheduler; other threads only `call` into it."""

    def __init__(self, config: Config) -> None:
        torch.set_num_threads(config.threads)
        self._threads = config.threads
        self.model = Decoder(
            config.layers, config.hidden, config.heads, config.vocab_size, config.max_model_len, config.seed
        )
        self.cache = KVCache(
            config.layers,
            config.heads,
            config.hidden // config.heads,
            config.kv_tokens,
            config.block_size,
            config.prefix_cache,
        )
        self.scheduler = Scheduler(self.cache, config.max_batch_size, config.prefill_chunk, config.schedule_policy)
        self.profiler = StepProfiler(config.profile_dir)
        self.counters = Counters()
        self.failure: BaseException | None = None
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._generators: dict[str, torch.Generator] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._publish: Callable[[list[Token]], object] = lambda tokens: None
        self._on_failure: Callable[[], object] = lambda: None

    def start(self, publish: Callable[[list[Token]], object], on_failure: Callable[[], object]) -> None:
        """Begin stepping; both callbacks are called on the engine's thread, `publish` once per step."""
        self._publish, self._on_failure = publish, on_failure
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is in."""
        self._inbox.put(None)
        self._thread.join()

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; its tokens arrive through `publish`."""
        self._inbox.put(lambda: self.scheduler.submit(sequence))

    def cancel(self, sequence_id: str) -> None:
        """Stop working on a sequence."""
        self._inbox.put(lambda: self._cancel(sequence_id))

    def call(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` on the engine's thread between two steps."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)

        self._inbox.put(run)
        return future

    @torch.inference_mode()
    def run_step(self) -> list[Token] | None:
        """Plan, compute and account for one step; None when there is nothing to do."""
        step = self.scheduler.plan()
        if step is None:
            return None
        with self.profiler.step(step.stage, len(step.work), step.tokens):
            logits = self.model.forward(_batch(step), self.cache)
            with span("sample"):
                sampled = self._sample(step, logits)
        self.profiler.settle()
        advanced = self.scheduler.commit(step, sampled)
        self._count(step, advanced)
        return [Token(s.id, s.output[-1], s.reused, s.finish) for s in advanced]

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP keeps the number per thread
        try:
            while self._take_jobs():
                tokens = self.run_step()
                if tokens:
                    self._publish(tokens)
        except Exception as error:
            traceback.print_exception(error)
            self.failure = error
            self._on_failure()

    def _take_jobs(self) -> bool:
        """Run what other threads asked for, waiting for it when idle; False when it is time to stop."""
        idle = not (self.scheduler.running or self.scheduler.waiting)
        while idle or not self._inbox.empty():
            job = self._inbox.get()
            if job is None:
                return False
            job()
            idle = False
        return True

    def _cancel(self, sequence_id: str) -> None:
        self.scheduler.cancel(sequence_id)
        self._generators.pop(sequence_id, None)

    def _sample(self, step: Step, logits: Tensor) -> list[int]:
        """The next token of each sampling row: the largest logit, or a draw if it has a temperature."""
        tokens: list[int] = logits.argmax(dim=-1).tolist()
        sequences = [work.sequence for work in step.work if work.samples]
        for row, sequence in enumerate(sequences):
            if sequence.temperature > 0:
                weights = torch.softmax(logits[row] / sequence.temperature, dim=-1)
                tokens[row] = int(torch.multinomial(weights, 1, generator=self._generator(sequence)))
        return tokens

    def _generator(self, sequence: Sequence) -> torch.Generator:
        generator = self._generators.get(sequence.id)
        if generator is None:
            generator = self._generators[sequence.id] = torch.Generator()
            if sequence.seed is None:
                generator.seed()
            else:
                generator.manual_seed(sequence.seed)
        return generator

    def _count(self, step: Step, advanced: list[Sequence]) -> None:
        counters = self.counters
        counters.steps[step.stage] += 1
        counters.prompt_tokens += step.tokens if step.stage == "prefill" else 0
        counters.generation_tokens += len(advanced)
        for sequence in advanced:
            if sequence.finish:
                counters.finished[sequence.finish] = counters.finished.get(sequence.finish, 0) + 1
                self._generators.pop(sequence.id, None)


def _batch(step: Step) -> Batch:
    """The tensors of a step: the rows of its sequences, end to end."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    spans: list[Span] = []
    wanted: list[int] = []
    for work in step.work:
        sequence, rows = work.sequence, len(work.tokens)
        assert sequence.region is not None
        start, base = sequence.computed, sequence.region.start
        spans.append(Span(len(tokens), rows, base, start + rows, _chunk_mask(rows, start)))
        tokens += work.tokens
        positions += range(start, start + rows)
        slots += range(base + start, base + start + rows)
        if work.samples:
            wanted.append(len(tokens) - 1)
    return Batch(
        torch.tensor(tokens),
        torch.tensor(positions),
        torch.tensor(slots),
        spans,
        torch.tensor(wanted, dtype=torch.long),
    )


def _chunk_mask(rows: int, start: int) -> Tensor | None:
    """Which of `start + rows` slots each row may see; None when the kernel's own rule says the same."""
    if rows == 1 or start == 0:
        return None
    return torch.ones(rows, start + rows, dtype=torch.bool).tril(start)
