"""What the crash sweep interrupts: recover a ledger, append, sign, close; say what was acknowledged.

Usage: crash_worker.py LEDGER APPENDS. Prints ``ack SEQ HASH`` or ``failed CODE`` lines, at last ``done``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ledger.artifacts import Artifacts
from ledger.errors import LedgerError
from ledger.events import Draft
from ledger.keys import Signer
from ledger.store import Ledger


class AnyPayload:
    """A catalogue that takes everything."""

    def validate(self, type_: str, payload: Mapping[str, Any], /) -> tuple[int, dict[str, Any]]:
        return 1, dict(payload)

    def upcast(self, type_: str, version: int, payload: dict[str, Any], /) -> dict[str, Any]:
        return payload


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def append(ledger: Ledger, size: int) -> None:
    """One group of two requests, so that more than one row hangs on one commit."""
    draft = Draft(campaign="c", type="step", payload={"text": "x" * size})
    for outcome in ledger.append_group([ledger.prepare([draft, draft]), ledger.prepare([draft])]):
        assert not isinstance(outcome, LedgerError)
        for event in outcome:
            say(f"ack {event.seq} {event.hash}")


def work(path: Path, appends: int) -> None:
    with Ledger.open(path, catalogue=AnyPayload()) as ledger:
        ledger.claim_epoch()
        signer = Signer.load_or_create(path.parent)
        for number in range(appends):
            try:
                append(ledger, 3000 * number)
            except LedgerError as error:
                say(f"failed {error.code}")
        if appends:
            ledger.append(
                [Draft(campaign="c", type="step", payload=Artifacts(path.parent / "artifacts").put_bytes(b"x"))]
            )
            ledger.checkpoint(signer)
            ledger.save_snapshot(1, b"state", "machine")


def main() -> None:
    try:
        work(Path(sys.argv[1]), int(sys.argv[2]))
    except (LedgerError, OSError) as error:
        say(f"failed {getattr(error, 'code', 'os')} {error}")
        return
    say("done")


if __name__ == "__main__":
    main()
