"""What the processes of one run share: the requests as bytes, a queue of tickets, counters of progress.

All three lie in anonymous memory (memfd) whose descriptors the processes inherit. Tickets are read from one
open file: the kernel moves its offset for each reader, so every request is sent exactly once, in order, by
whichever process has room first.
"""

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sotad.loadgen.wire import Patience

TICKET = struct.Struct("<I")
PROGRESS = struct.Struct("<QQ")


@dataclass(frozen=True)
class Plan:
    """One batch of requests. `ends` says where each ends in the shared bytes; `due_ns` is after the start.

    `wanted` is the number of tokens that makes a reply complete, None where any number does. `slots` has for
    each process how many requests it may have under way. The descriptors belong to whoever made the plan.
    """

    base_url: str
    patience: Patience
    ends: Sequence[int]
    due_ns: Sequence[int]
    wanted: Sequence[int | None]
    slots: Sequence[int]
    tokenizer: str | None
    bytes_fd: int
    tickets_fd: int
    progress_fd: int

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Plan":
        """The plan as another process wrote it down."""
        return cls(**{**plain, "patience": Patience(*plain["patience"])})

    def as_json(self) -> dict[str, Any]:
        """Plain data; what the descriptors stand for does not go with it."""
        return {**asdict(self), "patience": list(self.patience)}

    @property
    def descriptors(self) -> tuple[int, int, int]:
        return self.bytes_fd, self.tickets_fd, self.progress_fd

    def close(self) -> None:
        """Give the shared memory back."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def make_plan(
    base_url: str,
    patience: Patience,
    requests: Sequence[bytes],
    due_ns: Sequence[int],
    wanted: Sequence[int | None],
    slots: Sequence[int],
    tokenizer: str | None = None,
) -> Plan:
    """The plan, and the shared memory behind it; close it when the run is over."""
    ends, end = [], 0
    for each in requests:
        end += len(each)
        ends.append(end)
    tickets = b"".join(map(TICKET.pack, range(len(requests))))
    descriptors = (_memory("requests", *requests), _reopened(_memory("tickets", tickets)))
    progress = _memory("progress", bytes(PROGRESS.size * len(slots)))
    return Plan(base_url, patience, ends, due_ns, wanted, slots, tokenizer, *descriptors, progress)


def _memory(name: str, *parts: bytes) -> int:
    descriptor = os.memfd_create(f"sotad-{name}", 0)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.writelines(parts)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _reopened(descriptor: int) -> int:
    """The same memory, opened by name: only then does the kernel lock the offset while a process reads.

    What memfd_create(2) itself returns lacks FMODE_ATOMIC_POS (Linux, fs/file.c): two readers may get one ticket.
    """
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    finally:
        os.close(descriptor)


class Shared:
    """One process's view of the plan's shared memory."""

    def __init__(self, plan: Plan, share: int) -> None:
        self._plan, self._at = plan, PROGRESS.size * share
        self._bytes = memoryview(mmap.mmap(plan.bytes_fd, 0, prot=mmap.PROT_READ)) if plan.ends else memoryview(b"")
        self._progress = mmap.mmap(plan.progress_fd, 0)
        self._done = self._failed = 0

    def next(self) -> int | None:
        """The index of the next request that nobody has taken, None when there is none left."""
        ticket = os.read(self._plan.tickets_fd, TICKET.size)
        return TICKET.unpack(ticket)[0] if ticket else None

    def request(self, index: int) -> memoryview:
        """The bytes to send."""
        ends = self._plan.ends
        return self._bytes[ends[index - 1] if index else 0 : ends[index]]

    def count(self, failed: bool) -> None:
        """One more request has ended."""
        self._done += 1
        self._failed += failed
        PROGRESS.pack_into(self._progress, self._at, self._done, self._failed)


def progress(plan: Plan) -> tuple[int, int]:
    """How many requests have ended so far, and how many of them failed on the wire."""
    counters = os.pread(plan.progress_fd, PROGRESS.size * len(plan.slots), 0)
    pairs = list(PROGRESS.iter_unpack(counters))
    return sum(done for done, _ in pairs), sum(failed for _, failed in pairs)
