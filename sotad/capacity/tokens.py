"""How many tokens fit into the KV pool of each data-parallel rank, how many requests may run, how large a page is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sotad.capacity.rules import Event
from sotad.capacity.session import Session

_TELLING = (
    *("final", "blocks", "kv_pool", "cpu_kv_pool", "sizing", "window_tokens", "window_pool", "state_pool", "limits"),
)


@dataclass(frozen=True, slots=True)
class Count:
    """A count with its provenance; None is unknown."""

    value: int | None
    source: str = "unknown"
    lines: tuple[int, ...] = ()
    formula: str = ""

    def as_json(self) -> dict[str, Any]:
        """Value and where it comes from."""
        shown: dict[str, Any] = {"value": self.value, "source": self.source, "lines": list(self.lines)}
        return shown | ({"formula": self.formula} if self.formula else {})


@dataclass(frozen=True, slots=True)
class Pool:
    """One data-parallel rank's pool; ``window`` and ``slots`` only where the model has such a pool."""

    dp: int
    tokens: Count
    window: Count
    slots: Count
    requests: Count


def pools(session: Session) -> list[Pool]:
    """The pools by data-parallel rank; one with everything unknown when the log says nothing."""
    events = session.of(*_TELLING)
    numbers = sorted({event.rank.pool for event in events if event.name != "limits"})
    return [
        _pool(session, number, [event for event in events if event.rank.pool == number]) for number in numbers or [0]
    ]


def _pool(session: Session, number: int, events: Sequence[Event]) -> Pool:
    requests = _last(events, "final", "max_running_requests")
    if requests.value is None:
        requests = _last(events, "limits", "max_running_requests")
    if requests.value is None:
        requests = _setting(session, "max_running_requests")
    window = _last(events, "window_tokens", "window")
    if window.value is None:
        window = _last(events, "window_pool", "window")
    return Pool(number, _tokens(session, events), window, _last(events, "state_pool", "slots"), requests)


def _tokens(session: Session, events: Sequence[Event]) -> Count:
    """All ranks of a pool take what the smallest has room for; of one rank the last word counts."""
    for name, part in (
        ("final", "tokens"),
        ("window_pool", "full"),
        ("window_tokens", "full"),
        ("kv_pool", "tokens"),
        ("sizing", "tokens"),
    ):
        found = _smallest(events, name, part, first=name == "kv_pool" and session.framework != "tensorrt-llm")
        if found.value is not None:
            return found
    return _blocks(session, events)


def _smallest(events: Sequence[Event], name: str, part: str, first: bool = False) -> Count:
    by_rank: dict[tuple[int, ...], list[Event]] = {}
    for event in events:
        if event.name == name and event.whole(part) is not None:
            by_rank.setdefault(event.rank.key, []).append(event)
    if not by_rank:
        return Count(None)
    # vLLM's engine process prints one line for each worker under its own name: the smallest of them counts.
    chosen = [
        min(group, key=lambda event: event.whole(part) or 0)
        if group[0].framework == "vllm"
        else group[0 if first else -1]
        for group in by_rank.values()
    ]
    least = min(chosen, key=lambda event: event.whole(part) or 0)
    same = tuple(sorted({event.line for event in chosen if event.whole(part) == least.whole(part)}))
    return Count(least.whole(part), "read", same)


def _blocks(session: Session, events: Sequence[Event]) -> Count:
    """Older vLLM prints blocks: their size is in the arguments or follows from the concurrency that it reports."""
    blocks, size = _smallest(events, "blocks", "blocks"), page_size(session)
    if blocks.value is None or size.value is None:
        return Count(None)
    formula = f"{blocks.value} blocks * {size.value} tokens a block"
    return Count(blocks.value * size.value, "derived", tuple(sorted({*blocks.lines, *size.lines})), formula)


def page_size(session: Session) -> Count:
    """Tokens in a page of the pool; unknown when the log gives no way to tell."""
    stated = _setting(session, "page_size")
    if stated.value is not None:
        return stated
    events = session.events
    if (page := _last(events, "page", "page_size")).value is not None:
        return page
    blocks = _smallest(events, "blocks", "blocks")
    tokens = _smallest(events, "final", "tokens")
    if blocks.value and tokens.value and tokens.value % blocks.value == 0:
        lines = tuple(sorted({*blocks.lines, *tokens.lines}))
        return Count(tokens.value // blocks.value, "derived", lines, f"{tokens.value} tokens / {blocks.value} blocks")
    return _from_concurrency(events, blocks)


def _from_concurrency(events: Sequence[Event], blocks: Count) -> Count:
    """A whole number of tokens that explains the reported concurrency within its rounding."""
    told = next((event for event in events if event.name == "concurrency"), None)
    if told is None or not blocks.value:
        return Count(None)
    length, times = told.whole("length") or 0, float(told.values["times"] or 0)
    size = round(times * length / blocks.value)
    if size < 1 or abs(size * blocks.value / length - times) > 0.006:
        return Count(None)
    formula = f"{times} * {length} tokens / {blocks.value} blocks"
    return Count(size, "derived", tuple(sorted({*blocks.lines, told.line})), formula)


def context_length(session: Session) -> Count:
    """Tokens that one request may have, as the server resolved it."""
    for name in ("final", "limits"):
        if (found := _last(session.events, name, "context_len")).value is not None:
            return found
    return _setting(session, "context_len")


def _last(events: Sequence[Event], name: str, part: str) -> Count:
    found = [event for event in events if event.name == name and event.whole(part) is not None]
    return Count(found[-1].whole(part), "read", (found[-1].line,)) if found else Count(None)


def _setting(session: Session, name: str) -> Count:
    found = session.settings.get(name)
    if found is None or not isinstance(found.value, int) or isinstance(found.value, bool) or found.value < 1:
        return Count(None)
    return Count(found.value, "read", (found.line,))
