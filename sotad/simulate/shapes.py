"""What one step processes: groups of requests with new tokens and the context that they see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from sotad.simulate.errors import SimulateError


@dataclass(frozen=True, slots=True)
class Group:
    """``count`` requests with ``new`` tokens each, the last of which sees ``context`` tokens, itself included."""

    count: int
    new: int
    context: int

    @property
    def decoding(self) -> bool:
        """Whether it generates: one token on top of a cache, or the few that speculation verifies."""
        return self.new <= 16 and (self.context > self.new or self.new == 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """The groups of one step."""

    groups: tuple[Group, ...]

    @property
    def sequences(self) -> int:
        """Requests in the step."""
        return sum(group.count for group in self.groups)

    @property
    def tokens(self) -> int:
        """New tokens in the step."""
        return sum(group.count * group.new for group in self.groups)

    def pairs(self, window: int | None = None, chunk: int | None = None, top: int | None = None) -> int:
        """Pairs of query and key that causal attention multiplies; exact, summed over all new tokens."""
        limit = min(filter(None, (window, top)), default=None)
        return sum(group.count * _pairs(group, limit, chunk) for group in self.groups)

    def read(self, window: int | None = None, chunk: int | None = None, top: int | None = None) -> int:
        """Tokens whose keys and values are read from the cache at least once."""
        return sum(group.count * _read(group, window, chunk, top) for group in self.groups)

    def only(self, decoding: bool) -> Batch:
        """The groups that decode, or those that do not."""
        return Batch(tuple(group for group in self.groups if group.decoding == decoding))

    def split(self, ways: int) -> Batch:
        """The largest share of one of ``ways`` replicas between which the requests are divided."""
        return Batch(tuple(replace(group, count=ceil(group.count / ways)) for group in self.groups))

    def as_json(self) -> Iterator[dict[str, int]]:
        """The groups as plain objects."""
        return ({"count": g.count, "q_len": g.new, "kv_len": g.context} for g in self.groups)


def prefill(batch: int, input_len: int, cached: int = 0) -> Batch:
    """``batch`` prompts of ``input_len`` tokens, the first ``cached`` of which are in the cache already.

    Raises:
        SimulateError: a number is not positive, or nothing is left to compute.
    """
    _positive(batch=batch, input_len=input_len)
    if not 0 <= cached < input_len:
        raise SimulateError(f"cached prefix {cached}: it must be from 0 to input_len - 1 = {input_len - 1}")
    return Batch((Group(batch, input_len - cached, input_len),))


def decode(batch: int, kv_len: int, new: int = 1) -> Batch:
    """``batch`` requests that compute ``new`` tokens each, the last of which sees ``kv_len`` tokens.

    Raises:
        SimulateError: a number is not positive.
    """
    _positive(batch=batch, kv_len=kv_len, new=new)
    return Batch((Group(batch, new, max(kv_len, new)),))


def _positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise SimulateError(f"{name} is {value}: it must be at least 1")


def _triangle(tokens: int, limit: int | None) -> int:
    """Sum of min(i, limit) for i from 1 to ``tokens``."""
    if limit is None or tokens <= limit:
        return tokens * (tokens + 1) // 2
    return limit * (limit + 1) // 2 + (tokens - limit) * limit


def _sawtooth(tokens: int, chunk: int) -> int:
    """Sum of the place within its chunk, from 1, of each of the first ``tokens``."""
    whole, rest = divmod(tokens, chunk)
    return whole * (chunk * (chunk + 1) // 2) + rest * (rest + 1) // 2


def _pairs(group: Group, window: int | None, chunk: int | None) -> int:
    past = group.context - group.new
    if chunk:
        return _sawtooth(group.context, chunk) - _sawtooth(past, chunk)
    return _triangle(group.context, window) - _triangle(past, window)


def _read(group: Group, window: int | None, chunk: int | None, top: int | None) -> int:
    past = group.context - group.new
    if chunk:
        return group.context - past // chunk * chunk
    seen = group.context if window is None else min(group.context, window + group.new - 1)
    return seen if top is None else min(seen, top * group.new)
