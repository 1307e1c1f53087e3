"""One call of an agent: what is asked, what its tool printed meanwhile, what came of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, NoReturn, Protocol

JSON = dict[str, Any]
REQUEST, PROMPT, SCHEMA = "request.json", "prompt.md", "schema.json"
"""What lies on the desk of every call."""
COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens")
MOST = 10**12  # more is no count of tokens and no amount of money; sums of less fit into the ledger


class NoAnswer(Exception):
    """The agent gave no usable answer; the text says what it gave instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Everything that decides an agent's command line.

    Attributes:
        desk: absolute folder of this call alone: the request lies in it, the answer appears in it.
        folder: absolute folder that the agent works in; ``writes`` says whether it may change anything there.
        resume: session of an earlier try to go on with; empty for a new one.
        confined: our own sandbox bounds the process, so that the tool's own would only be in the way.
    """

    role: str
    folder: str
    desk: str
    schema: JSON
    argv: tuple[str, ...] = ()
    model: str = ""
    effort: str = ""
    money_usd: float | None = None
    writes: bool = False
    resume: str = ""
    confined: bool = False

    def on_desk(self, name: str) -> str:
        """The path of a file on the desk."""
        return f"{self.desk}/{name}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tool reported; None is unknown, never 0. ``input_tokens`` counts cached ones too."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    def __add__(self, other: Usage) -> Usage:
        """The sum of what is known; unknown where neither knows."""
        theirs = asdict(other)
        return Usage(**{name: _sum(mine, theirs[name]) for name, mine in asdict(self).items()})

    def __sub__(self, other: Usage) -> Usage:
        """What came on top of what was reported before; never below 0."""
        before = asdict(other)
        return Usage(**{k: None if v is None else max(0, v - (before[k] or 0)) for k, v in asdict(self).items()})

    @property
    def tokens(self) -> int | None:
        """Tokens in and out; None when neither is known."""
        known = [count for count in (self.input_tokens, self.output_tokens) if count is not None]
        return sum(known) if known else None

    @property
    def known(self) -> bool:
        """Whether anything was reported."""
        return self != Usage()


@dataclass(frozen=True, slots=True)
class Said:
    """What a tool printed so far, folded line by line.

    ``usage`` is by what it was reported for, so that a repeated report is counted once, and ``before`` what of it the
    session had used when this call began. ``answer`` is the final answer where the tool prints it. ``error`` is the
    tool's own complaint, ``over`` that it met its own limit.
    """

    session: str = ""
    usage: Mapping[str, Usage] = field(default_factory=dict)
    before: Usage = Usage()
    answer: str | JSON | None = None
    error: str = ""
    over: bool = False

    def using(self, what: str, usage: Usage) -> Said:
        """With what was reported for ``what`` replaced."""
        return replace(self, usage={**self.usage, what: usage}) if usage.known else self

    @property
    def total(self) -> Usage:
        """All that was reported of this call."""
        return sum(self.usage.values(), Usage()) - self.before


class Command(NamedTuple):
    """A command line, the file of the desk on its standard input, and its first argument that is the driver's."""

    argv: tuple[str, ...]
    stdin: str = ""
    first: str = ""


class Tool(Protocol):
    """A driver. Everything is pure: text in, text out.

    Attributes:
        silence_s: seconds without a line of output after which it hangs; None for a program that does not talk.
        result: file on the desk that holds the final answer; empty when it is in what was printed.
        help: argument lists whose output names every flag; empty for a program that has none to check.
        resumes: whether a session can go on in a later call.
        moves: whether a session can go on in another folder.
        counts_sessions: whether a session that goes on reports what it used before, too.
    """

    silence_s: float | None
    result: str
    help: tuple[tuple[str, ...], ...]
    resumes: bool
    moves: bool
    counts_sessions: bool

    def command(self, call: Call) -> Command:
        """The command line of a call."""

    def schema(self, schema: JSON) -> JSON:
        """The schema as the tool wants it."""

    def heard(self, said: Said, line: JSON) -> Said:
        """What is known after one more line."""


def answer_of(tool: Tool, said: Said, result: bytes | None) -> JSON:
    """The agent's answer: one JSON object, from the file that the tool wrote or from what it printed.

    Raises:
        NoAnswer: there is none, or something else than one object.
    """
    answer = said.answer
    if tool.result:
        answer = None if result is None else result.decode("utf-8", "replace")
    if answer is None:
        raise NoAnswer("nothing at all")
    return answer if isinstance(answer, dict) else only_object(answer)


def only_object(text: str) -> JSON:
    """The one JSON object that a text is, white space around it apart.

    Raises:
        NoAnswer: it is something else.
    """
    text = text.strip()
    if not text:
        raise NoAnswer("an empty text")
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        more = error.msg == "Extra data"
        raise NoAnswer("more than one JSON document" if more else f"no JSON but {text[:60]!r}") from None
    except RecursionError:
        raise NoAnswer("JSON too deep to read") from None
    if not isinstance(value, dict):
        raise NoAnswer(f"JSON of type {type(value).__name__}")
    return value


def whole(value: Any) -> int | None:
    """A count of a report, or None when it is no count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST else None


def money(value: Any) -> float | None:
    """An amount of a report, or None when it is none."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST
    return float(value) if fine else None


def text(value: Any) -> str:
    """A text of a report; empty when it is none."""
    return value if isinstance(value, str) else ""


def section(line: JSON, key: str) -> JSON:
    """An object within a line; empty when it is none."""
    found = line.get(key)
    return found if isinstance(found, dict) else {}


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _without_repeats(pairs: list[tuple[str, Any]]) -> JSON:
    if len({key for key, _ in pairs}) < len(pairs):
        raise NoAnswer("a JSON object that names a key twice")
    return dict(pairs)


def _no_number(name: str) -> NoReturn:
    raise NoAnswer(f"JSON with {name}, which is no number")
