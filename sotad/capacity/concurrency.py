"""How many requests of a length fit at once, which limit binds, and what the server itself says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sotad.capacity.session import Session
from sotad.capacity.tokens import Count, Pool

TOLERANCE = 2.0  # percent between the server's own figure and ours


@dataclass(frozen=True, slots=True)
class Length:
    """A request's tokens: all of them while it ends, ``input`` alone when it starts, if the split is given."""

    tokens: int
    input: int | None = None

    @property
    def mean(self) -> float | None:
        """Tokens that a request holds on average while it generates."""
        return None if self.input is None else (self.tokens + self.input) / 2


def parse_lengths(text: str) -> list[Length]:
    """``4096,6144`` or, with input and output apart, ``1000+500``.

    Raises:
        ValueError: not a list of positive whole numbers.
    """
    return [_length(item.strip()) for item in text.split(",")]


def _length(item: str) -> Length:
    given, plus, generated = item.replace("_", "").partition("+")
    if not given.isdecimal() or (plus and not generated.isdecimal()) or not int(given):
        raise ValueError(f"{item!r} is no number of tokens: give lengths such as 4096,8192 or input+output as 1000+500")
    return Length(int(given) + int(generated), int(given)) if plus else Length(int(given))


def rows(
    lengths: Sequence[Length], pools: Sequence[Pool], page: int | None, context: int | None, window: int | None
) -> list[dict[str, Any]]:
    """A row for each length, all pools together; unknown stays null."""
    return [_row(length, pools, page, context, window) for length in lengths]


def _row(
    length: Length, pools: Sequence[Pool], page: int | None, context: int | None, window: int | None
) -> dict[str, Any]:
    rounded = _rounded(length.tokens, page)
    limits = [_limits(pool, rounded, _rounded(min(length.tokens, window), page) if window else None) for pool in pools]
    by_tokens = [each["tokens"] for each in limits]
    row: dict[str, Any] = {
        "request_tokens": length.tokens,
        "rounded_tokens": rounded,
        "pools": len(pools),
        "token_limit": _sum(by_tokens),
        "request_limit": _sum([pool.requests.value for pool in pools]),
        "max_concurrent": _sum([_smallest(each) for each in limits]),
        "binding": _binding(limits[0]) if limits else "unknown",
    }
    if context is not None and length.tokens > context:
        row |= {"max_concurrent": 0, "binding": "context length"}
    if length.mean is not None:
        mean = [None if pool.tokens.value is None else int(pool.tokens.value // length.mean) for pool in pools]
        row |= {"input_tokens": length.input, "token_limit_at_mean_length": _sum(mean)}
    return row


def _rounded(tokens: int, page: int | None) -> int:
    return tokens if not page else -(-tokens // page) * page


def _limits(pool: Pool, tokens: int, in_window: int | None) -> dict[str, int | None]:
    def whole(have: Count, need: int | None) -> int | None:
        return None if have.value is None or need is None else have.value // need

    return {
        "tokens": whole(pool.tokens, tokens),
        "requests": pool.requests.value,
        "state slots": pool.slots.value,
        "sliding window pool": whole(pool.window, in_window),
    }


def _smallest(limits: dict[str, int | None]) -> int | None:
    """Without the tokens there is no telling; any other limit may be unknown or absent."""
    if limits["tokens"] is None:
        return None
    return min(value for value in limits.values() if value is not None)


def _binding(limits: dict[str, int | None]) -> str:
    least = _smallest(limits)
    return "unknown" if least is None else next(name for name, value in limits.items() if value == least)


def _sum(values: Sequence[int | None]) -> int | None:
    return None if not values or any(value is None for value in values) else sum(value or 0 for value in values)


def reported(session: Session, pools: Sequence[Pool]) -> list[dict[str, Any]]:
    """The server's own "Maximum concurrency" beside tokens / length, with the difference in percent, signed."""
    tokens = {pool.dp: pool.tokens.value for pool in pools}
    found = {}
    for event in session.of("concurrency"):
        length, times = event.whole("length") or 0, float(event.values["times"] or 0)
        have = tokens.get(event.rank.pool)
        ours = round(have / length, 2) if have is not None and length else None
        off = round(100 * (ours - times) / times, 2) if ours is not None and times else None
        found[event.rank.pool, length] = {
            "request_tokens": length,
            "reported": times,
            "computed": ours,
            "difference_pct": off,
            "agrees": None if off is None else abs(off) <= TOLERANCE,
            "lines": [event.line],
        }
    return list(found.values())
