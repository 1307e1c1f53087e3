"""Why a server ended, read from its log: the kind of failure, and the line that says so.

Patterns are tried in order of how much they explain: a server that is out of memory also prints a traceback, and one
whose flag is wrong also exits early. Of a kind, the first line counts, because later processes only repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_LINE = 500  # characters of the offending line that are kept


@dataclass(frozen=True, slots=True)
class Failure:
    """``status`` is that of a result row: oom, failed or timeout. ``line`` is empty when nothing in the log tells."""

    status: str
    kind: str
    line: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """Lines of a kind of failure; ``words`` is searched without regard to case."""

    kind: str
    words: str


_RAISED = r"(?:^|[\s\]:])[\w.]*(?:Error|Exception|error|ERROR)\b.{0,400}?"
COMMON = (
    Pattern(
        "oom",
        r"\bOutOfMemoryError|\bout of memory|cudaErrorMemoryAllocation|Not enough memory\b|cannot allocate memory"
        r"|No available memory for the cache blocks|larger than the available KV cache memory"
        r"|larger than the maximum number of tokens that can be stored in KV cache"
        r"|Free memory on device .* is less than desired|std::bad_alloc|MemoryError\b",
    ),
    Pattern(
        "bad_flag",
        r"error: unrecognized arguments|error: argument \S.*?: (?:invalid|expected|not allowed|must|ignored)"
        r"|error: the following arguments are required|error: ambiguous option|\bNo such option: "
        r"|Error: Invalid value for|Error: Missing (?:option|argument)|invalid choice:"
        r"|Error: Option '?--\S+ (?:requires|does not)|Error: Got unexpected extra argument",
    ),
    Pattern(
        "port", r"address already in use|\bEADDRINUSE|Port \d+ is already (?:in use|allocated)|Failed to bind socket"
    ),
    Pattern(
        "unsupported",
        _RAISED + r"(?:is not supported|are not supported|not yet supported|unsupported|does not support"
        r"|not implemented for|requires (?:compute capability|sm_?\d+|Hopper|Blackwell))"
        r"|^.{0,80}\bNotImplementedError\b|^(?:\S+ )*(?:ModuleNotFoundError|ImportError): "
        r"|no kernel image is available|\bnot in the supported architectures",
    ),
    Pattern(
        "timeout",
        r"\bwatchdog (?:timeout \(|timed out)|\bTimeoutError\b|Timed out waiting|timed out after \d+",
    ),
)
_FATAL = re.compile(
    r"Segmentation fault|Fatal Python error|EngineDeadError|died unexpectedly|core dumped|illegal memory access"
    r"|device-side assert|terminate called after throwing",
    re.I,
)
_EXCEPTION = re.compile(r"(?:^|\s|\])((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b(?::.*)?)$")
_REPEATS = re.compile(r"See (?:stack trace|root cause)|Engine core initialization failed|subprocess\.CalledProcess")
# Echoed settings, a missing optional model, and a client that asked before the port was open are no failures.
_QUIET = re.compile(
    r"server_args=|non-default args|engine .{0,40}with config:|Ignore import error"
    r"|ConnectionRefusedError|NewConnectionError|MaxRetryError"
)
_PROCESS = re.compile(r"^\s*\([^)]*\bpid=\d+\)")  # what vLLM writes before each line of a process
_VALIDATION = re.compile(r"\bvalidation errors? for \S+$")
_ENDED_WELL = re.compile(r"Application shutdown complete|Finished server process")
_STATUS = {"oom": "oom", "timeout": "timeout"}


def classify(log: str, extra: Iterable[Pattern] = ()) -> Failure:
    """The most telling failure in a log; kind ``ended`` and no line when there is no trace of one."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not _QUIET.search(line)]
    for pattern in (*extra, *COMMON):
        words = re.compile(pattern.words, re.I)
        if line := next((line for line in lines if words.search(line)), ""):
            return _failure(pattern.kind, line)
    line = _crash(lines)
    return _failure("crash", _with_cause(line, lines)) if line else _failure("ended", "")


def _with_cause(line: str, lines: Sequence[str]) -> str:
    """pydantic says in the lines below its error what was wrong: field and reason."""
    if not _VALIDATION.search(line):
        return line
    at = next(number for number, whole in enumerate(lines) if line in whole)
    parts = [line]
    for below in lines[at + 1 : at + 4]:
        message, typed, _ = below.partition(" [type=")
        parts.append(_PROCESS.sub("", message).strip())
        if typed:
            break
    return " ".join(parts)


def _failure(kind: str, line: str) -> Failure:
    return Failure(_STATUS.get(kind, "failed"), kind, line.strip()[:LONGEST_LINE])


def _crash(lines: Sequence[str]) -> str:
    """The line of a fatal signal, else the exception that ended the process: one that it outlived does not count."""
    if line := next((line for line in lines if _FATAL.search(line)), ""):
        return line
    well = max((at for at, line in enumerate(lines) if _ENDED_WELL.search(line)), default=-1)
    raised = [match[1] for line in lines[well + 1 :] if (match := _EXCEPTION.search(line))]
    causes = [line for line in raised if not _REPEATS.search(line)]
    return (causes or raised or [""])[0 if causes and _chained(lines) else -1]


def _chained(lines: Sequence[str]) -> bool:
    """Whether another process reported the failure again, so that the first exception is the cause."""
    return any(_REPEATS.search(line) for line in lines)


FELL_BACK = (
    r"\b(?:fall(?:s|ing)? ?back|fell back|fallback) (?:to|on)\b.{0,80}"
    r"\b(?:eager|backend|attention|native|sdpa|unfused|cpu|diffusers|transformers)\b",
    r"\bbackend\b.{0,80}\bis not (?:available|installed|supported)\b",
)
"""Lines in which a server says that it does something else than it was asked for."""
GRAPHS_LOST = r"cuda ?graphs? (?:is|are|was|were) (?:disabled|not supported)|disabl\w+ cuda ?graphs?"


def fell_back(log: str, patterns: Iterable[str], asked: Mapping[str, Any], used: Mapping[str, str]) -> list[str]:
    """The log's lines about a fallback, and the flags that ``asked`` sets and of which the log tells another value."""
    words = re.compile("|".join(patterns), re.IGNORECASE)
    lines = dict.fromkeys(line.strip()[:LONGEST_LINE] for line in log.splitlines() if words.search(line))
    found = [f"the server's log: {line}" for line in lines]
    for flag, value in used.items():
        wanted = asked.get(flag)
        if wanted is not None and _plain(wanted) not in (_plain(value), "auto"):
            found.append(f"{flag} is {wanted} in the flags, and {value} in the server's log")
    return found


def _plain(value: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(value).lower())
