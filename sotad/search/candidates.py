"""Candidates from a search space: which combinations of flags are tried, in which order, under which name.

Two flag sets are the same when their JSON is: ``1``, ``1.0`` and ``true`` are three values. The order of a space's
flags and values is that of the file; a candidate's id depends on its flags only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

Flags: TypeAlias = dict[str, Any]
Space: TypeAlias = Mapping[str, Any]
BASELINE = "baseline"
LONGEST_ID = 63
HASH_LENGTH = 8
_PLAIN_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_WORDS = {True: "on", False: "off", None: "none"}
_MINUS = "minus-"


def baseline_first_bounded_product(base: Flags, space: Space, limit: int) -> list[Flags]:
    """The base, then the Cartesian product over it with the last flag varying fastest; at most ``limit`` in all.

    Raises:
        ValueError: ``limit`` is below 1.
    """
    values = _values(space)
    product = ({**base, **dict(zip(values, chosen, strict=True))} for chosen in itertools.product(*values.values()))
    return _first(itertools.chain([dict(base)], product), limit)


def one_factor_first(base: Flags, space: Space, limit: int) -> list[Flags]:
    """The base, then every value of every flag alone, then pairs of values; at most ``limit`` in all.

    Values are taken in turns, the first of every flag before the second of any, so that a small limit still touches
    every flag. Of the pairs the one comes next whose values were tried least.

    Raises:
        ValueError: ``limit`` is below 1.
    """
    singles = list(
        _in_turns({flag: [v for v in listed if not _held(base, flag, v)] for flag, listed in _values(space).items()})
    )
    changes = itertools.chain([()], ((single,) for single in singles), _spread_pairs(singles))
    return _first(({**base, **dict(change)} for change in changes), limit)


GENERATIONS: dict[str, Callable[[Flags, Space, int], list[Flags]]] = {
    "one_factor_first": one_factor_first,
    "baseline_first_bounded_product": baseline_first_bounded_product,
}


def overrides(base: Flags, flags: Flags) -> Flags:
    """What a candidate's flags change of the base."""
    return {flag: value for flag, value in flags.items() if not _held(base, flag, value)}


def candidate_id(changed: Flags) -> str:
    """A readable id of what a candidate changes, in at most 63 characters of ``[a-z0-9._-]``.

    The same for every order of the flags and for ``-`` or ``_`` in their names. What would be too long or would
    lose something ends in a hash of the flags.
    """
    if not changed:
        return BASELINE
    spelled = sorted((name.replace("_", "-"), value) for name, value in changed.items())
    readable = "__".join(f"{_clean(name)}_{_clean(_word(value))}" for name, value in spelled)
    lossless = all(_PLAIN_NAME.fullmatch(name) and _is_plain(value) for name, value in spelled)
    if lossless and len(readable) <= LONGEST_ID:
        return readable
    digest = hashlib.sha256(canonical(dict(spelled)).encode()).hexdigest()[:HASH_LENGTH]
    return f"{readable[: LONGEST_ID - HASH_LENGTH - 1].rstrip('_.-') or 'x'}-{digest}"


def size(space: Space) -> int:
    """How many combinations a space has, without the baseline."""
    total = 1
    for listed in _values(space).values():
        total *= len(listed)
    return total


def untried(space: Space, candidates: Iterable[Flags]) -> Flags:
    """The values of every flag that no candidate has; ``candidates`` are whole flag sets, base included."""
    tried = {(flag, canonical(value)) for flags in candidates for flag, value in flags.items()}
    missing = {
        flag: [v for v in listed if (flag, canonical(v)) not in tried] for flag, listed in _values(space).items()
    }
    return {flag: listed for flag, listed in missing.items() if listed}


def canonical(value: Any) -> str:
    """A JSON value as text that is equal exactly when the value is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _values(space: Space) -> dict[str, list[Any]]:
    """Every flag's values, each once; a single value stands for a list of it."""
    listed = {flag: found if isinstance(found, list) else [found] for flag, found in space.items()}
    return {flag: list({canonical(value): value for value in found}.values()) for flag, found in listed.items()}


def _held(base: Flags, flag: str, value: Any) -> bool:
    return flag in base and canonical(base[flag]) == canonical(value)


def _first(found: Iterable[Flags], limit: int) -> list[Flags]:
    """The first ``limit`` different flag sets."""
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    kept: dict[str, Flags] = {}
    for flags in found:
        kept.setdefault(canonical(flags), flags)
        if len(kept) >= limit:
            break
    return list(kept.values())


Single: TypeAlias = tuple[str, Any]


def _in_turns(space: Mapping[str, list[Any]]) -> Iterator[Single]:
    for turn in range(max(map(len, space.values()), default=0)):
        yield from ((flag, listed[turn]) for flag, listed in space.items() if turn < len(listed))


def _spread_pairs(singles: list[Single]) -> Iterator[tuple[Single, Single]]:
    """Pairs of values of different flags, always one whose values were paired least, the earliest of these first."""
    indices = itertools.combinations(range(len(singles)), 2)
    left = [(a, b) for a, b in indices if singles[a][0] != singles[b][0]]
    uses: Counter[int] = Counter()
    while left:
        best = min(left, key=lambda pair: (max(uses[pair[0]], uses[pair[1]]), uses[pair[0]] + uses[pair[1]]))
        left.remove(best)
        uses.update(best)
        yield singles[best[0]], singles[best[1]]


def _word(value: Any) -> str:
    """A value as a word of an id."""
    if isinstance(value, bool) or value is None:
        return _WORDS[value]
    return value if isinstance(value, str) else re.sub("^-", _MINUS, canonical(value))


def _is_plain(value: Any) -> bool:
    """Whether the value's word is the value, and stands for no other."""
    word = _word(value)
    if isinstance(value, list | dict) or _clean(word) != word:
        return False
    another = word in _WORDS.values() or word[:1].isdigit() or word.startswith(_MINUS)
    return not (isinstance(value, str) and another)


def _clean(text: str) -> str:
    """Text in the characters of an id; two underscores are what joins its parts, so none has them."""
    return re.sub("_+", "_", re.sub(r"[^a-z0-9._]+", "-", text.lower())).strip("-._") or "x"
