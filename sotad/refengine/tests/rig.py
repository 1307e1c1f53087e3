"""A small engine without threads or HTTP, driven to the end of its work."""

import random
from collections.abc import Iterable

from ..engine import Engine
from ..flags import Config
from ..scheduler import Sequence

SMALL = {"layers": 2, "hidden": 64, "heads": 2, "vocab_size": 1024, "max_model_len": 128, "kv_tokens": 1024}


def engine(**changes: object) -> Engine:
    """An engine over a small model; `changes` override its configuration."""
    return Engine(Config(**(SMALL | changes)))  # type: ignore[arg-type]


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Random prompts of 8 to 40 byte tokens."""
    source = random.Random(seed)
    return [[source.randrange(256) for _ in range(source.randint(8, 40))] for _ in range(count)]


def complete(target: Engine, asked: Iterable[list[int]], tokens: int = 12) -> list[list[int]]:
    """The greedy continuation of every prompt, all submitted at once."""
    sequences = [Sequence(id=str(n), prompt=p, max_tokens=tokens) for n, p in enumerate(asked)]
    for sequence in sequences:
        target.scheduler.submit(sequence)
    while target.run_step() is not None:
        pass
    return [sequence.output for sequence in sequences]
