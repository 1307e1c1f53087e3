"""How engines name the steps in their traces, read as a stage and the size of the batch.

Sources: the profiler annotations of SGLang (`step[EXTEND bs=4 toks=8192]`, words of its ForwardMode), vLLM
(`execute_context_<requests>(<tokens>)_generation_<requests>(<tokens>)`) and TensorRT-LLM
(`[Executor] _forward_step 12: 2 ctx reqs, 4 gen reqs`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

WORDS: dict[str, str | None] = {  # words that are not a stage by themselves; None: an empty step
    "extend": "prefill",
    "split_prefill": "prefill",
    "context": "prefill",
    "generation": "decode",
    "target_verify": "verify",
    "draft_extend": "draft",
    "draft_extend_v2": "draft",
    "idle": None,
    "dummy": None,
}
MOST_DIGITS = 12
ORDER = ("prefill", "mixed", "decode", "verify", "draft")  # how stages are shown; others follow by name


class Named(NamedTuple):
    """What the name of a step says; `stage` None means that the step did nothing. 0 where a size is not said."""

    stage: str | None
    sequences: int
    tokens: int


def _size(digits: str | None) -> int:
    """A size; 0, as where it is not said, for what cannot be one."""
    return int(digits) if digits and len(digits) <= MOST_DIGITS else 0


def _worded(found: re.Match[str]) -> Named:
    word = found["word"].lower()
    sizes = {key: _size(value) for key, value in re.findall(r"\b(bs|toks)=(\d+)", found["rest"])}
    return Named(WORDS.get(word, word), sizes.get("bs", 0), sizes.get("toks", 0))


def _counted(found: re.Match[str]) -> Named:
    numbers = {key: _size(value) for key, value in found.groupdict().items()}
    context, generation = numbers["context"], numbers["generation"]
    stage = "mixed" if context and generation else "prefill" if context else "decode" if generation else None
    return Named(stage, context + generation, numbers.get("context_tokens", 0) + numbers.get("generation_tokens", 0))


DIALECTS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Named]], ...] = (
    (re.compile(r"step\[\s*(?P<word>[A-Za-z][A-Za-z0-9_]*)(?P<rest>[^\]]*)\]"), _worded),
    (
        re.compile(
            r"execute_context_(?P<context>\d+)\((?P<context_tokens>\d+)\)"
            r"_generation_(?P<generation>\d+)\((?P<generation_tokens>\d+)\)"
        ),
        _counted,
    ),
    (re.compile(r"_forward_step\b.*?(?P<context>\d+)\s+ctx reqs?,\s*(?P<generation>\d+)\s+gen reqs?"), _counted),
)
_PLAIN = re.compile(r"(?<![A-Za-z0-9])(?P<word>prefill|extend|decode)(?![A-Za-z0-9])", re.IGNORECASE)


def parse(text: str) -> Named | None:
    """What an annotation in the form of a step says; None when it has no such form."""
    for pattern, read in DIALECTS:
        found = pattern.search(text)
        if found:
            return read(found)
    return None


def parse_plain(text: str) -> Named | None:
    """The stage of an annotation that holds just one of the words prefill (or extend) and decode."""
    stages = {WORDS.get(word.lower(), word.lower()) for word in _PLAIN.findall(text)}
    return Named(stages.pop(), 0, 0) if len(stages) == 1 else None
