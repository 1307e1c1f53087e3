"""Turn requests into rows: every check happens here, before anything is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.boundary import Catalogue, event_of
from ledger.chain import Row, canonical, plain_text, row_hash
from ledger.errors import Conflict, InvalidEvent, KeyReused, LedgerError
from ledger.events import Draft, Event
from ledger.schema import COLUMNS

_LAST_OF = "SELECT max(campaign_seq) FROM events WHERE campaign = ?"
_BY_KEY = f"SELECT {COLUMNS} FROM events WHERE key = ?"

_repeated_text = lru_cache(4096)(plain_text)  # campaigns, types and actors come again and again


class Request(NamedTuple):
    """Events that are written together or not at all."""

    drafts: Sequence[Draft]
    expect: Mapping[str, int] | None = None


Outcome = list[Event] | LedgerError


class _Checked(NamedTuple):
    """A draft that may be written: its version, its canonical bytes, and what they decode to."""

    draft: Draft
    version: int
    data: bytes
    payload: dict[str, Any]


class Planner:
    """What the next event builds on, kept in memory for as long as the epoch is ours.

    Planning moves it forward: if the transaction then fails, the planner must be thrown away.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        catalogue: Catalogue,
        clock: Callable[[], int],
        redact: Callable[[Any], Any] | None,
        epoch: int,
        head: tuple[int, str],
    ) -> None:
        self.seq, self.hash = head
        self._connection = connection
        self._catalogue = catalogue
        self._clock = clock
        self._redact = redact
        self._epoch = epoch
        self._last: dict[str, int] = {}
        self._unwritten: dict[str, Event] = {}

    def plan(self, requests: Sequence[Request]) -> tuple[list[Outcome], list[Row]]:
        """Return each request's events or refusal, and the rows that make the events true."""
        rows: list[Row] = []
        self._unwritten.clear()
        return [self._outcome(request, rows) for request in requests], rows

    def _outcome(self, request: Request, rows: list[Row]) -> Outcome:
        """All checks come before the first row: once a row is made, nothing of the request can be refused."""
        try:
            checked = [self._check(draft) for draft in request.drafts]
            _refuse_repeated_keys(request.drafts)
            written = [self._written(item) for item in checked]
            if request.expect and None in written:
                self._expect(request.expect)
        except LedgerError as refusal:
            return refusal
        return [event or self._row(item, rows) for item, event in zip(checked, written, strict=True)]

    def _check(self, draft: Draft) -> _Checked:
        _repeated_text("campaign", draft.campaign)
        _repeated_text("type", draft.type)
        _repeated_text("actor", draft.actor)
        if draft.cause is not None and (type(draft.cause) is not int or not 0 < draft.cause <= self.seq):
            raise InvalidEvent(f"cause: there is no event {draft.cause!r} yet; the last one is {self.seq}")
        try:
            payload = self._redact(draft.payload) if self._redact else draft.payload
            version, clean = self._catalogue.validate(draft.type, payload)
        except InvalidEvent:
            raise
        except Exception as error:  # a faulty check must not take the rest of the group down
            raise InvalidEvent(f"{draft.type}: {error}") from error
        return _Checked(draft, version, *canonical(clean))

    def _written(self, item: _Checked) -> Event | None:
        """Return the event that is already there under the draft's key; it must say the same."""
        draft = item.draft
        if draft.key is None:
            return None
        event = self._unwritten.get(draft.key) or self._stored(plain_text("key", draft.key))
        if event is None:
            return None
        if (event.campaign, event.type, event.actor, event.cause, event.payload) != (
            draft.campaign,
            draft.type,
            draft.actor,
            draft.cause,
            item.payload,
        ):
            where = f"event {event.seq} ({event.type})"
            raise KeyReused(f"key {draft.key!r} belongs to {where} with other content; use a new key")
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

    def _row(self, item: _Checked, rows: list[Row]) -> Event:
        draft = item.draft
        campaign_seq = self._last_of(draft.campaign) + 1
        head = (
            self.seq + 1,
            draft.campaign,
            campaign_seq,
            self._clock(),
            self._epoch,
            draft.type,
            item.version,
            draft.actor,
            draft.cause,
            draft.key,
        )
        hash_ = row_hash(self.hash, head, item.data)
        rows.append((*head, item.data.decode(), hash_))
        self.seq, self.hash, self._last[draft.campaign] = head[0], hash_, campaign_seq
        event = Event(*head, item.payload, hash_)
        if draft.key is not None:
            self._unwritten[draft.key] = event
        return event


def _refuse_repeated_keys(drafts: Sequence[Draft]) -> None:
    keys = [draft.key for draft in drafts if draft.key is not None]
    for key in set(keys):
        if keys.count(key) > 1:
            raise InvalidEvent(f"key: {key!r} stands twice in one request; a key names one event")
