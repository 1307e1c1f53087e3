"""What can go wrong with a ledger, by what the caller has to do about it.

    LedgerError
    +-- Refused          the request is wrong; nothing was written, and repeating it will not help
    |   +-- InvalidEvent   the payload does not fit its type, or cannot be stored
    |   +-- Conflict       somebody else wrote to the campaign first: fold again, decide again
    |   +-- KeyReused      the idempotency key belongs to an event with other content
    |   +-- Deposed        a newer daemon has taken over: stop
    +-- Unwritable       disk full, read-only or broken: the request is not acknowledged
    +-- NotFound         there is no such file
    +-- NotALedger       the file is something else
    +-- WrongSchema      the ledger was written by a release this one does not understand
    +-- Corrupt          the file contradicts itself: never retried

Every class carries a stable ``code`` for JSON output.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Base of all errors of this package; ``str()`` says what, where and what to do next."""

    code = "ledger"


class Refused(LedgerError):
    """The request was refused before anything was written."""

    code = "refused"


class InvalidEvent(Refused, ValueError):
    """The event does not fit the catalogue, or its values cannot be stored exactly."""

    code = "invalid_event"


class Conflict(Refused):
    """The campaign has moved on since the caller looked."""

    code = "conflict"


class KeyReused(Refused):
    """The idempotency key is taken by an event with different content."""

    code = "key_reused"


class Deposed(Refused):
    """A newer daemon claimed the ledger; this one may not write any more."""

    code = "deposed"


class Unwritable(LedgerError):
    """The write was not acknowledged: treat it as not done, and retry under the same key."""

    code = "unwritable"


class NotFound(LedgerError):
    """There is no file at that path."""

    code = "not_found"


class NotALedger(LedgerError):
    """The file is not a ledger."""

    code = "not_a_ledger"


class WrongSchema(LedgerError):
    """The ledger's layout is not one that this release knows."""

    code = "wrong_schema"


class Corrupt(LedgerError):
    """The ledger contradicts itself or cannot be read."""

    code = "corrupt"
