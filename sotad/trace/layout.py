"""Cuts the JSON of a Chrome trace into pieces that hold whole events, without holding the file.

A trace is an object with `traceEvents` at any place among its keys, or a bare list of events
(https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU); how it is spaced is free.

Finding where an event ends costs a look at every bracket. So a cut is guessed first, where the text that stands
between two events (`},{"ph"` or so) last occurs, and the guess is proven: `[` + piece + `]` decodes only if all
brackets and strings are closed in it, so that a cut inside an event can never pass for one between two.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Decoded = TypeVar("Decoded")

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]', re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\]}\[{"]+(?=[\s,\]}])')
_SPACE = re.compile(rb"[\s,]*+")
_SEPARATOR = re.compile(rb'\}\s*+,\s*+\{\s*+"[^"\\]*"')
_STEPS = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
WRONG_GUESSES = 3  # after so many, brackets are counted


class NotJson(ValueError):
    """A text does not decode as JSON."""


class Incomplete(Exception):
    """The text ends before the trace does."""


class Layout(Generic[Decoded]):
    """The events of one JSON text and, once these are read, the other keys' values in `facts` (undecoded).

    `read` gives up to so many bytes, b"" at the end. `decode` turns the text of a list of events into whatever
    is wanted of them and raises NotJson for a text that is no whole list. `found` tells whether there was a list
    of events at all.
    """

    def __init__(self, read: Callable[[int], bytes], decode: Callable[[bytes], Decoded], block: int) -> None:
        self.facts: dict[str, bytes] = {}
        self.found = False
        self._read, self._decode, self._block = read, decode, block
        self._text, self._at, self._ended = b"", 0, False
        self._separator, self._guesses = b"", WRONG_GUESSES

    def pieces(self) -> Iterator[Decoded]:
        """What the pieces decode to, in the order of the file.

        Raises:
            NotJson: the text is no JSON, or something follows it.
            Incomplete: the text ends early; every whole event was given out before.
        """
        while len(self._text) < len(BOM_UTF8) and self._more():
            pass
        if self._text.startswith(BOM_UTF8):
            self._at = len(BOM_UTF8)
        first = self._peek()
        if first == b"[":
            yield from self._events()
        elif first == b"{":
            yield from self._members()
        else:
            raise NotJson("it does not begin with { or [")
        self._skip()
        if self._at < len(self._text):
            raise NotJson("something follows the end of the JSON")

    def _more(self) -> bool:
        """One more block, or as much again as is held, so that a long event costs linear time."""
        held = self._text[self._at :]
        block = self._read(max(self._block, len(held)))
        self._text, self._at, self._ended = held + block, 0, not block
        return bool(block)

    def _skip(self) -> None:
        """Past spaces and commas."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return

    def _peek(self) -> bytes:
        """The next byte that is neither space nor comma.

        Raises:
            Incomplete: there is none.
        """
        self._skip()
        if self._at == len(self._text):
            raise Incomplete
        return self._text[self._at : self._at + 1]

    def _members(self) -> Iterator[Decoded]:
        """The keys of the root object and their values."""
        self._at += 1
        while self._peek() != b"}":
            key = self._value()
            if not key.startswith(b'"') or self._peek() != b":":
                raise NotJson("a key and a colon are expected")
            self._at += 1
            if key == b'"traceEvents"' and self._peek() == b"[":
                yield from self._events()
            else:
                self._peek()
                self.facts[key.decode("utf-8", "replace")[1:-1]] = self._value()
        self._at += 1

    def _value(self) -> bytes:
        """The text of the whole value that begins here."""
        while True:
            end = self._value_end()
            if end >= 0:
                text = self._text[self._at : end]
                self._at = end
                return text
            if not self._more():
                raise Incomplete

    def _value_end(self) -> int:
        first = self._text[self._at : self._at + 1]
        if first in (b"{", b"["):
            return next(_ends(self._text, self._at), -1)
        found = (_STRING if first == b'"' else _SCALAR).match(self._text, self._at)
        if found is None and not first.isalnum() and first not in (b'"', b"-"):
            raise NotJson(f"unexpected {first!r}")
        return found.end() if found else -1

    def _events(self) -> Iterator[Decoded]:
        """The pieces of the list of events that begins here."""
        self.found = True
        self._at += 1
        while self._peek() != b"]":
            if len(self._text) - self._at < self._block and not self._ended:
                self._more()
            guess = self._guess()
            if guess is not None:
                yield guess
                continue
            end = self._cut()
            if end > self._at:
                yield self._take(end)
            elif not self._more():
                raise Incomplete
        self._at += 1

    def _guess(self) -> Decoded | None:
        """What lies before the last separator, if that proves to be whole events."""
        at = self._text.rfind(self._learnt(), self._at) if self._guesses else -1
        if at <= self._at:
            return None
        try:
            return self._take(at + 1)
        except NotJson:
            self._guesses -= 1
            self._separator = b""
            return None

    def _learnt(self) -> bytes:
        """The text between two events: as it was before, else between the two that come next."""
        if not self._separator:
            end = next(_ends(self._text, self._at), 0)
            found = _SEPARATOR.match(self._text, end - 1) if end else None
            self._separator = found[0] if found else b""
        return self._separator or b"\0"

    def _cut(self) -> int:
        """Where the last whole event that is held ends, by counting brackets; the present place if there is none."""
        return max(_ends(self._text, self._at), default=self._at)

    def _take(self, end: int) -> Decoded:
        decoded = self._decode(b"".join((b"[", memoryview(self._text)[self._at : end], b"]")))
        self._at = end
        return decoded


def _ends(text: bytes, at: int) -> Iterator[int]:
    """Where each object or list ends that stands at the top from `at` on; last, where a closing bracket ends it all."""
    depth = 0
    for found in _TOKEN.finditer(text, at):
        step = _STEPS.get(found[0], 0)
        depth += step
        if depth < 0:
            yield len(text[: found.start()].rstrip(b" \t\r\n,"))
            return
        if step < 0 and depth == 0:
            yield found.end()
