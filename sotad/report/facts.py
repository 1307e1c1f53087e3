"""The events of one campaign, arranged for reading, and the words in which they are cited."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from ledger.errors import LedgerError
from ledger.events import Event
from sotad.report.document import NOT_RECORDED
from statemachine.state import JSON, Campaign


class Measured(NamedTuple):
    """One benchmark row and where it comes from; ``counts`` is False for rows that became void."""

    seq: int
    launch: str
    attempt: int
    purpose: str
    framework: str
    candidate: str
    scenario: str
    run: int
    seed: int
    row: JSON
    counts: bool


class Facts:
    """A campaign, its events in order, and its artifacts.

    ``problems`` collects what could not be read, artifact digest to reason: a report is written all the same.
    """

    def __init__(self, campaign: Campaign, events: Sequence[Event], read: Callable[[str], bytes]) -> None:
        self.c = campaign
        self.events = [event for event in events if event.campaign == campaign.id]
        self.daemon = [event for event in events if not event.campaign]
        self.problems: dict[str, str] = {}
        self._read = read
        self._by_type: dict[str, list[Event]] = defaultdict(list)
        for event in (*self.events, *self.daemon):
            self._by_type[event.type].append(event)

    def all(self, *types: str) -> list[Event]:
        """Every event of these types, in order."""
        found = [event for type_ in types for event in self._by_type.get(type_, ())]
        return sorted(found, key=lambda event: event.seq)

    def last(self, *types: str) -> Event | None:
        """The latest event of these types, or None."""
        found = self.all(*types)
        return found[-1] if found else None

    def before(self, seq: int, *types: str) -> Event | None:
        """The latest event of these types before an event, or None."""
        return next((event for event in reversed(self.all(*types)) if event.seq < seq), None)

    def after(self, seq: int, *types: str) -> Event | None:
        """The first event of these types after an event, or None."""
        return next((event for event in self.all(*types) if event.seq > seq), None)

    def job_before(self, seq: int, activity: str) -> JSON:
        """What was dispatched last before an event for an activity; empty when nothing was."""
        jobs = (event for event in reversed(self.all("job.dispatched")) if event.seq < seq)
        return next((job.payload for job in jobs if job.payload["activity"] == activity), {})

    def of_attempt(self, attempt_id: str, *types: str) -> list[Event]:
        """The events of these types that name the attempt, in order."""
        return [event for event in self.all(*types) if event.payload["attempt_id"] == attempt_id]

    def latest(self, type_: str, *keys: str) -> list[Event]:
        """The latest event for each value of these payload keys, in the order in which the values came up."""
        found: dict[tuple[str, ...], Event] = {}
        for event in self.all(type_):
            found[tuple(str(event.payload[key]) for key in keys)] = event
        return list(found.values())

    @property
    def spec(self) -> JSON:
        """The campaign's spec; empty before there is one."""
        return self.c.spec

    @property
    def frameworks(self) -> dict[str, JSON]:
        """The frameworks of the spec by name."""
        found: dict[str, JSON] = self.spec.get("frameworks", {})
        return found

    @property
    def target(self) -> str:
        """Name of the framework that is patched; empty when there is no spec."""
        return next((name for name, entry in self.frameworks.items() if entry["role"] == "target"), "")

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return str(self.spec.get("decision", {}).get("metric", "request_throughput"))

    def bytes_of(self, artifact: JSON) -> bytes | None:
        """An artifact's content, or None when it cannot be had; the reason is kept in ``problems``."""
        digest: str = artifact["sha256"]
        try:
            return self._read(digest)
        except (OSError, LookupError, LedgerError) as error:
            self.problems[digest] = str(error) or type(error).__name__
            return None

    def text_of(self, artifact: JSON) -> str:
        """An artifact as text, or a sentence that says why not."""
        data = self.bytes_of(artifact)
        if data is None:
            return f"artifact {artifact['sha256']} could not be read: {self.problems[artifact['sha256']]}"
        return data.decode(errors="replace")

    @cached_property
    def launched(self) -> dict[tuple[str, int], Event]:
        """``candidate.launched`` by launch and attempt."""
        return {(e.payload["launch"], e.payload["attempt"]): e for e in self.all("candidate.launched")}

    @cached_property
    def rows(self) -> list[Measured]:
        """Every benchmark row, in order."""
        standing = {row["seq"] for launch in self.c.launches.values() for row in launch.rows}
        return [self._measured(event, event.seq in standing) for event in self.all("benchmark.finished")]

    def _measured(self, event: Event, counts: bool) -> Measured:
        p = event.payload
        start = self.launched[p["launch"], p["attempt"]].payload
        names = (start["purpose"], start["framework"], start["candidate"])
        return Measured(
            event.seq, p["launch"], p["attempt"], *names, p["scenario"], p["run"], p["seed"], p["row"], counts
        )

    def search_rows(self) -> list[Measured]:
        """The rows of the search that count."""
        return [row for row in self.rows if row.purpose == "search" and row.counts]


def cite(*events: Event | int | None) -> str:
    """``[#57]``, or nothing when there is no such event."""
    numbers = [event if isinstance(event, int) else event.seq for event in events if event is not None]
    return f"[{', '.join(f'#{number}' for number in numbers)}]" if numbers else ""


def cite_range(numbers: Iterable[int]) -> str:
    """``[#57-#90]`` for a set of events that lie in that range."""
    found = sorted(numbers)
    if len(found) < 3:
        return cite(*found)
    return f"[#{found[0]}-#{found[-1]}]"


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits; a missing one is said to be missing, never 0."""
    return NOT_RECORDED if value is None else f"{value:.{digits}f}"


def said(value: object) -> str:
    """Any value as text; None and the empty text are said to be missing."""
    return NOT_RECORDED if value in (None, "") else str(value)


def pairs(entry: JSON) -> str:
    """A flat object as ``key: value; key: value``, by key."""
    return "; ".join(f"{key}: {value}" for key, value in sorted(entry.items()))


def utc(time_ns: int) -> str:
    """A moment in UTC with milliseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}Z"


def file_name(name: str) -> str:
    """A name as part of a path: nothing that could lead out of the folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"
