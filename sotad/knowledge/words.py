"""Finding a term as a word or path of its own, in any case. Plain scans: dossiers are megabytes, terms are many."""

from __future__ import annotations

from collections.abc import Iterator


def lowered(text: str) -> str:
    """The text in lower case, sign by sign, so that places in both are the same."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(sign if len(sign.lower()) != 1 else sign.lower() for sign in text)


def occurrences(low: str, term: str) -> Iterator[int]:
    """Where a term begins in a lowered text, with no letter, digit or underscore right before or after it."""
    wanted = lowered(term.strip())
    place = low.find(wanted) if wanted else -1
    while place >= 0:
        end = place + len(wanted)
        if not (_in_word(low[place - 1 : place]) or _in_word(low[end : end + 1])):
            yield place
            place = end - 1
        place = low.find(wanted, place + 1)


def mentions(text: str, term: str) -> bool:
    """Whether a text has the term."""
    return next(occurrences(lowered(text), term), None) is not None


def _in_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_"
