"""KV cache: one preallocated pool of token slots, a contiguous region per sequence, and a prefix index.

A region stays readable after its sequence has ended until its room is needed (least recently used first).
The prefix index names every full block of computed tokens by a hash over itself and everything before it; a
new sequence copies the blocks it shares with earlier ones instead of computing them.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


class KVCacheTooSmall(ValueError):
    """The pool cannot hold even one sequence of the longest length allowed."""


@dataclass(eq=False, slots=True)
class Region:
    """Slots [start, start + size) of the pool; the first `reused` were filled from the prefix cache."""

    start: int
    size: int
    reused: int = 0
    in_use: bool = True
    keys: list[bytes] = field(default_factory=list)


class KVCache:
    """Owns the pool, hands out regions, and reads and writes keys and values by layer."""

    def __init__(self, layers: int, heads: int, head_dim: int, tokens: int, block: int, prefix: bool) -> None:
        shape = (1, tokens, heads, head_dim)  # the leading 1 is the batch that attention kernels expect
        self._keys = [torch.zeros(shape).transpose(1, 2) for _ in range(layers)]
        self._values = [torch.zeros(shape).transpose(1, 2) for _ in range(layers)]
        self._block, self._prefix = block, prefix
        self._regions: list[Region] = []  # by start
        self._index: dict[bytes, tuple[Region, int]] = {}  # block hash -> region, first slot
        self._idle: list[Region] = []  # ended sequences, least recently used first
        self.capacity = tokens
        self.queried_tokens = self.hit_tokens = 0

    @property
    def used(self) -> int:
        """Slots reserved by sequences that are running."""
        return sum(region.size for region in self._regions if region.in_use)

    def append(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write keys and values, both [1, heads, rows, head_dim], into the given slots, one per row."""
        self._keys[layer].index_copy_(2, slots, keys)
        self._values[layer].index_copy_(2, slots, values)

    def context(self, layer: int, start: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of `length` slots from `start`, as views of shape [1, heads, length, head_dim]."""
        return self._keys[layer].narrow(2, start, length), self._values[layer].narrow(2, start, length)

    def reserve(self, prompt: Sequence[int], total: int) -> Region | None:
        """A region of `total` slots, the known prefix of `prompt` in place; None when there is no room."""
        for owner, _ in self._known_blocks(prompt):
            self._touch(owner)
        region = self._allocate(total)
        if region is not None and self._prefix:
            self._copy_prefix(region, prompt)
        return region

    def publish(self, region: Region, tokens: Sequence[int]) -> None:
        """Make the blocks of `tokens`, whose KV is complete in `region`, known to later prompts."""
        if not self._prefix:
            return
        for number, key in enumerate(_block_keys(tokens, self._block)):
            if key not in self._index:
                self._index[key] = (region, region.start + number * self._block)
                region.keys.append(key)

    def release(self, region: Region) -> None:
        """Give a region back; it stays a source of prefixes while nobody needs its room."""
        region.in_use = False
        if region.keys:
            self._idle.append(region)
        else:
            self._regions.remove(region)

    def _known_blocks(self, prompt: Sequence[int]) -> Iterator[tuple[Region, int]]:
        """Owner and first slot of each leading block known; the last prompt token is always computed anew."""
        if self._prefix:
            for key in _block_keys(prompt[:-1], self._block):
                if key not in self._index:
                    return
                yield self._index[key]

    def _copy_prefix(self, region: Region, prompt: Sequence[int]) -> None:
        self.queried_tokens += len(prompt)
        for _, source in self._known_blocks(prompt):
            target = region.start + region.reused
            for pool in (*self._keys, *self._values):
                pool.narrow(2, target, self._block).copy_(pool.narrow(2, source, self._block))
            region.reused += self._block
        self.hit_tokens += region.reused

    def _allocate(self, size: int) -> Region | None:
        while (place := self._gap(size)) is None:
            if not self._idle:
                return None
            self._evict(self._idle[0])
        position, start = place
        region = Region(start, size)
        self._regions.insert(position, region)
        return region

    def _gap(self, size: int) -> tuple[int, int] | None:
        """List position and first slot of the first gap that is large enough."""
        start = 0
        for position, region in enumerate(self._regions):
            if region.start - start >= size:
                return position, start
            start = region.start + region.size
        return (len(self._regions), start) if self.capacity - start >= size else None

    def _touch(self, region: Region) -> None:
        if not region.in_use:
            self._idle.remove(region)
            self._idle.append(region)

    def _evict(self, region: Region) -> None:
        self._idle.remove(region)
        self._regions.remove(region)
        for key in region.keys:
            del self._index[key]


def check_capacity(tokens: int, max_model_len: int) -> None:
    """Raises KVCacheTooSmall when `tokens` slots cannot hold one sequence of `max_model_len`."""
    if tokens < max_model_len:
        raise KVCacheTooSmall(
            f"KV cache of {tokens} tokens cannot hold one sequence of max_model_len {max_model_len}; "
            f"raise --kv-tokens to at least {max_model_len} or lower --max-model-len to at most {tokens}"
        )


def _block_keys(tokens: Sequence[int], block: int) -> Iterator[bytes]:
    key = b""
    for end in range(block, len(tokens) + 1, block):
        key = hashlib.blake2b(key + array("i", tokens[end - block : end]).tobytes(), digest_size=16).digest()
        yield key
