"""The event: one fact or one step, as it stands in the ledger. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = {}


class Event(NamedTuple):
    """One row of the ledger, decoded.

    ``seq`` counts over the whole ledger from 1 without gaps, ``campaign_seq`` within one campaign; the
    campaign ``""`` holds what concerns the daemon itself. ``time_ns`` is UTC. ``epoch`` is the daemon
    incarnation that wrote the row. ``cause`` is the seq of the event that led to this one. ``key`` is the
    idempotency key: unique in the ledger when set. ``hash`` is the chain hash in hex.
    """

    seq: int
    campaign: str
    campaign_seq: int
    time_ns: int
    epoch: int
    type: str
    version: int
    actor: str
    cause: int | None
    key: str | None
    payload: dict[str, Any]
    hash: str


class Draft(NamedTuple):
    """An event that somebody wants written: what the ledger adds (seq, time, epoch, hash) is not there yet.

    ``actor`` is ``kind:identity`` with kind one of daemon, operator, implementer, reviewer.
    """

    campaign: str
    type: str
    payload: Mapping[str, Any] = _NOTHING
    actor: str = "daemon"
    cause: int | None = None
    key: str | None = None
