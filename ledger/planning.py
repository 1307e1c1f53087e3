"""Turn requests into rows: every check happens here, before anything is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.boundary import Catalogue, event_of
from ledger.chain import canonical, plain_text, row_hash
from ledger.errors import Conflict, InvalidEvent, KeyReused, LedgerError
from ledger.events import Draft, Event
from ledger.schema import COLUMNS

_LAST_OF = "SELECT max(campaign_seq) FROM events WHERE campaign = ?"
_BY_KEY = f"SELECT {COLUMNS} FROM events WHERE key = ?"


Content = tuple[int, bytes, dict[str, Any]]
"""What there is to write of a draft: its version, its canonical bytes, and what they decode to."""


class Request(NamedTuple):
    """Events that are written together or not at all, and the content of each."""

    drafts: Sequence[Draft]
    contents: Sequence[Content]
    expect: Mapping[str, int] | None = None


Outcome = list[Event] | LedgerError


class Checker:
    """Everything that can be said of a draft without looking into the ledger; in any thread."""

    def __init__(self, catalogue: Catalogue, redact: Callable[[Any], Any] | None) -> None:
        self._validate = catalogue.validate
        self._redact = redact

    def content(self, draft: Draft) -> Content:
        """Return what there is to write of the draft.

        Raises:
            InvalidEvent: it is not an event that the catalogue knows, or cannot be stored.
        """
        _, type_, payload, *_ = draft
        _check_texts(draft.campaign, type_, draft.actor)
        try:
            version, clean = self._validate(type_, self._redact(dict(payload)) if self._redact else payload)
        except InvalidEvent:
            raise
        except Exception as error:  # a faulty check must not pass for a fault of the ledger
            raise InvalidEvent(f"{type_}: {error}") from error
        return (version, *canonical(clean))


class Planner:
    """What the next event builds on, kept in memory for as long as the epoch is ours.

    Nobody writes without the epoch, so whatever is read here holds until the insert, which checks the epoch again.
    Planning moves it forward: if the insert then fails, the planner must be thrown away.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        catalogue: Catalogue,
        clock: Callable[[], int],
        epoch: int,
        head: tuple[int, str],
    ) -> None:
        self.seq, self.hash = head
        self._connection = connection
        self._catalogue = catalogue
        self._clock = clock
        self._epoch = epoch
        self._last: dict[str, int] = {}
        self._unwritten: dict[str, Event] = {}

    def plan(self, requests: Sequence[Request]) -> tuple[list[Outcome], list[Any]]:
        """Return each request's events or refusal, and the columns of all new rows, one row after the other."""
        columns: list[Any] = []
        self._unwritten.clear()
        return [self._outcome(request, columns) for request in requests], columns

    def _outcome(self, request: Request, columns: list[Any]) -> Outcome:
        """All checks come before the first row: once a row is made, nothing of the request can be refused."""
        drafts, contents, expect = request
        try:
            written = self._written(drafts, contents)
            if expect and len(written) < len(drafts):
                self._expect(expect)
        except LedgerError as refusal:
            return refusal
        return [
            written.get(draft.key) or self._row(draft, content, columns)
            for draft, content in zip(drafts, contents, strict=True)
        ]

    def _written(self, drafts: Sequence[Draft], contents: Sequence[Content]) -> dict[str | None, Event]:
        """Return the events that are already there under a key of these drafts."""
        written: dict[str | None, Event] = {}
        seen: set[str] = set()
        for draft, (_, _, payload) in zip(drafts, contents, strict=True):
            cause, key = draft.cause, draft.key
            if cause is not None and (type(cause) is not int or not 0 < cause <= self.seq):
                raise InvalidEvent(f"cause: there is no event {cause!r} yet; the last one is {self.seq}")
            if key is not None:
                if plain_text("key", key) in seen:
                    raise InvalidEvent(f"key: {key!r} stands twice in one request; a key names one event")
                seen.add(key)
                if event := self._known(draft, key, payload):
                    written[key] = event
        return written

    def _known(self, draft: Draft, key: str, payload: dict[str, Any]) -> Event | None:
        event = self._unwritten.get(key) or self._stored(key)
        if event is not None and (event.campaign, event.type, event.actor, event.cause, event.payload) != (
            draft.campaign,
            draft.type,
            draft.actor,
            draft.cause,
            payload,
        ):
            where = f"event {event.seq} ({event.type})"
            raise KeyReused(f"key {key!r} belongs to {where} with other content; use a new key")
        return event

    def _stored(self, key: str) -> Event | None:
        row = self._connection.execute(_BY_KEY, (key,)).fetchone()
        return event_of(row, self._catalogue) if row else None

    def _expect(self, expect: Mapping[str, int]) -> None:
        for campaign, seen in expect.items():
            last = self._last_of(campaign)
            if last != seen:
                where = f"campaign {campaign!r} is at {last}, the caller has seen {seen}"
                raise Conflict(f"{where}; read the events in between and decide again")

    def _last_of(self, campaign: str) -> int:
        last = self._last.get(campaign)
        if last is None:
            last = self._last[campaign] = self._connection.execute(_LAST_OF, (campaign,)).fetchone()[0] or 0
        return last

    def _row(self, draft: Draft, content: Content, columns: list[Any]) -> Event:
        version, data, payload = content
        campaign, key = draft.campaign, draft.key
        seq = self.seq + 1
        last = self._last_of(campaign) + 1
        head = (
            seq, campaign, last, self._clock(), self._epoch,
            draft.type, version, draft.actor, draft.cause, key,
        )  # fmt: skip
        hash_ = row_hash(self.hash, head, data)
        columns += (*head, data.decode(), hash_)
        self.seq, self.hash, self._last[campaign] = seq, hash_, last
        event: Event = tuple.__new__(Event, (*head, payload, hash_))
        if key is not None:
            self._unwritten[key] = event
        return event


@lru_cache(4096)
def _check_texts(campaign: str, type_: str, actor: str) -> None:
    """The same few come again and again."""
    for name, value in (("campaign", campaign), ("type", type_), ("actor", actor)):
        plain_text(name, value)
