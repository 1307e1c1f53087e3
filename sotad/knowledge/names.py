"""How near the name of a folder is to a model: `deepseek-v3-r1` to `deepseek-ai/DeepSeek-R1`."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Final

SAME: Final = 3
VERSION: Final = 2
FAMILY: Final = 1
MATCHES: Final = {SAME: "slug", VERSION: "version", FAMILY: "family", 0: "terms"}
SHORTEST_FAMILY = 2


def squeezed(name: str) -> str:
    """Only its letters and digits, in lower case: `tensorrt_llm` and `TensorRT-LLM` are one name."""
    return re.sub(r"[\W_]+", "", name.lower())


def closeness(model: str, slug: str) -> int:
    """``SAME`` name, same ``VERSION`` of a family (one of those that the slug joins), same ``FAMILY``, or 0.

    Dots within versions do not count, nor where a name is split: `GLM-4.6` is of `glm46-glm47`.
    """
    ours, theirs = _words(model), _words(slug)
    if not ours or not theirs:
        return 0
    if "".join(ours) == "".join(theirs):
        return SAME
    line = _letters(ours[0])
    shared = {name for name in _joined(ours) & _joined(theirs) if line and name.startswith(line)}
    if any(re.search(r"\d", name) for name in shared):
        return VERSION
    return FAMILY if len(line) >= SHORTEST_FAMILY and line in map(_letters, theirs) else 0


def family_terms(model: str) -> list[str]:
    """What to search for by words: the family, and its version when the name has one: `kimi`, `kimi-k2`."""
    words = [word for word in re.split(r"[^a-z0-9.]+", _last(model)) if word]
    if not words:
        return []
    end = next((place for place, word in enumerate(words) if re.search(r"\d", word)), None)
    versioned = "-".join(words[: end + 1]) if end is not None and end < 3 else words[0]
    family = _letters(words[0])
    return list(dict.fromkeys(term for term in (family, versioned) if len(term) >= SHORTEST_FAMILY))


def _last(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()


def _words(name: str) -> list[str]:
    return [word.replace(".", "") for word in re.split(r"[^\w.]+|_", _last(name)) if word.strip(".")]


def _letters(word: str) -> str:
    return re.split(r"[\d.]", word, maxsplit=1)[0]


def _joined(words: list[str]) -> set[str]:
    """Every run of words as one, and the first word with each later one."""
    runs = {"".join(words[a:b]) for a, b in combinations(range(len(words) + 1), 2)}
    return runs | {words[0] + word for word in words[1:]}
