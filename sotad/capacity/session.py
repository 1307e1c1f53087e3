"""One pass over a log: what was recognised, split into the runs of the server that the file holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from sotad.capacity import settings, sglang, trtllm, vllm
from sotad.capacity.ranks import Rank, Ranks
from sotad.capacity.rules import Compiled, Event
from sotad.capacity.settings import Setting
from sotad.frameworks.logs import COMMON

RULES = (*sglang.RULES, *vllm.RULES, *trtllm.RULES)
HEAD = 3000  # lines of a session in which it says what it is
_BEFORE_MEMORY = ("arguments", "engine", "window", "distributed", "ready")
_TRAFFIC = ("decode", "prefill")
_OUT_OF_MEMORY = re.compile(next(pattern.words for pattern in COMMON if pattern.kind == "oom"), re.I)
_ECHO = re.compile(
    r"\bserver_args=|\bnon-default args\b|\bLLM engine\b.{0,40}\bwith config:|^\s*(?:raise|except|if|#)\b"
)
_MARKS = (
    ("tokenspeed", re.compile(r"tokenspeed", re.I)),
    ("sglang", re.compile(r"\bsglang\b|server_args=ServerArgs", re.I)),
    ("tensorrt-llm", re.compile(r"\[TRT-LLM\]|\[TensorRT-LLM\]|tensorrt_llm", re.I)),
    ("vllm", re.compile(r"\bvllm\b", re.I)),
)
_MARKED = re.compile("|".join(mark.pattern for _, mark in _MARKS), re.I)
_VERSION = re.compile(r"(?:LLM engine \(v|vLLM API server version |\bversion |TensorRT-LLM version: )(\d+\.\d+[\w.+]*)")


@dataclass(slots=True)
class Session:
    """One run of a server. ``events`` in the order of the file, traffic apart; lines are those of the file."""

    first: int = 0
    last: int = 0
    settings: dict[str, Setting] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    traffic: list[Event] = field(default_factory=list)
    out_of_memory: list[tuple[int, str, int, Rank]] = field(default_factory=list)  # line, text, events before, rank
    marks: dict[str, int] = field(default_factory=dict)
    version: str | None = None

    @property
    def framework(self) -> str | None:
        """The framework whose lines these are, None if no line of memory was recognised."""
        hits: dict[str, int] = {}
        unmarked = self.out_of_memory and not self.events
        if unmarked:
            return min((name for name in self.marks if name != "tokenspeed"), key=self.marks.__getitem__, default=None)
        for event in (*self.events, *self.traffic):
            hits[event.framework] = hits.get(event.framework, 0) + (event.name not in ("arguments", "ready"))
        best = max(hits, key=lambda name: hits[name], default=None)
        if not best or not (hits[best] or self.out_of_memory):
            return None
        descends = best == "sglang" and "tokenspeed" in self.marks and "sglang" not in self.marks
        return "tokenspeed" if descends else best

    @property
    def complete(self) -> bool:
        """Whether the log got as far as to say how many tokens fit."""
        sized = ("final", "blocks", "kv_pool") if self.framework == "tensorrt-llm" else ("final", "blocks")
        return any(event.name in sized for event in self.events)

    def of(self, *names: str) -> list[Event]:
        """Events of those names, of the session's framework, in order."""
        framework = "sglang" if self.framework == "tokenspeed" else self.framework
        return [event for event in self.events if event.name in names and event.framework == framework]

    def setting(self, name: str) -> object:
        """A setting's value, None if the log does not state it."""
        found = self.settings.get(name)
        return found.value if found else None

    def whole(self, name: str) -> int | None:
        """A setting that is a count."""
        found = self.setting(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else None


class Parser:
    """Feed it lines, then take the sessions."""

    def __init__(self) -> None:
        self.sessions = [Session()]
        self.lines = 0
        self._rules = Compiled(RULES)
        self._ranks = Ranks()

    def feed(self, number: int, text: str) -> None:
        """Take one line."""
        self.lines = number
        if "is assigned as" in text:
            self._ranks.learn(text)
        if candidates := self._rules.candidates(text):
            for rule, start, message, values in self._rules.matches(candidates, text):
                rank = self._ranks.before(text, start)
                kept = "" if rule.name in _TRAFFIC else message[:2000]
                self._take(Event(rule.framework, rule.name, rank, number, kept, values), text)
        session = self.sessions[-1]
        session.last = number
        session.first = session.first or number
        if number - session.first < HEAD:
            self._mark(session, text)
        if "emory" in text or "cache" in text or "bad_alloc" in text:
            self._memory_error(session, number, text)

    def _take(self, event: Event, text: str) -> None:
        if self._starts_anew(event):
            self.sessions.append(Session(event.line, event.line))
        session = self.sessions[-1]
        if session.events and not event.values and session.events[-1].name == event.name != "arguments":
            return  # a progress bar repeats itself
        if event.name in ("arguments", "engine"):
            for name, found in settings.parse(text, event.line).items():
                session.settings.setdefault(name, found)
        (session.traffic if event.name in _TRAFFIC else session.events).append(event)

    def _starts_anew(self, event: Event) -> bool:
        """A server echoes its arguments once, and an engine of one rank is set up once."""
        present = self.sessions[-1].events
        if event.name == "arguments":
            began = any(other.name not in _BEFORE_MEMORY for other in present)
            repeated = any(other.name == "arguments" and other.text == event.text for other in present)
            return began or (bool(present) and not repeated)
        if event.name != "engine":
            return False
        return any(other.name == "final" and other.rank.pool == event.rank.pool for other in present)

    def _mark(self, session: Session, text: str) -> None:
        if _MARKED.search(text):
            for name, mark in _MARKS:
                if mark.search(text):
                    session.marks.setdefault(name, self.lines)
        if not session.version and (found := _VERSION.search(text)):
            session.version = found[1]

    def _memory_error(self, session: Session, number: int, text: str) -> None:
        if _OUT_OF_MEMORY.search(text) and not _ECHO.search(text):
            rank = self._ranks.before(text, len(text))
            session.out_of_memory.append((number, text[:500], len(session.events), rank))


def parse_log(lines: Iterable[tuple[int, str]]) -> list[Session]:
    """The sessions of a log; never raises over content. Lines are pairs of number and text."""
    parser = Parser()
    for number, text in lines:
        parser.feed(number, text)
    return parser.sessions


def parse_text(text: str) -> list[Session]:
    """Sessions of a log that is at hand as text."""
    from sotad.capacity.lines import pieces

    rows = ((number, pieces(line.encode())) for number, line in enumerate(text.split("\n"), 1))
    return parse_log(chain.from_iterable(((number, piece) for piece in found) for number, found in rows))
