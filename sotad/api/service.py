"""What the API asks of the daemon behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ledger.events import Event
from statemachine.state import World


class Service(Protocol):
    """A running daemon. The coroutines return when the operator's event is durable.

    ``operator`` is an event's actor, such as ``operator:uid=1000``. Everything here may raise the errors of
    :mod:`sotad.errors`, :mod:`ledger.errors` and ``IllegalEvent``; the API tells the caller which.
    """

    @property
    def world(self) -> World:
        """The folded state; read only."""

    @property
    def ledger_path(self) -> Path:
        """The ledger's file."""

    def status(self) -> dict[str, Any]:
        """``{"daemon": {version, pid, epoch, started_ns, state_dir, seq, machine_digest, sqlite, ready,
        progress_age_s}, "campaigns": [sotad.api.summary.summary(c), ...]}``."""

    async def submit(self, text: str, source: str, operator: str) -> str:
        """Start the campaign that a YAML text describes; return its id."""

    async def pause(self, campaign: str, reason: str, operator: str) -> None:
        """Halt a campaign where it is."""

    async def resume(self, campaign: str, operator: str) -> None:
        """Let a halted campaign go on."""

    async def cancel(self, campaign: str, confirmed: bool, operator: str) -> None:
        """End a campaign; ``confirmed`` also when it is stopping already."""

    async def approve(self, campaign: str, subject: str, approved: bool, reason: str, operator: str) -> dict[str, Any]:
        """Say yes or no to a subject that a campaign waits for: ``{campaign, subject, waits, phase}``."""

    async def answer(self, campaign: str, subject: str, text: str, operator: str) -> dict[str, Any]:
        """Answer a question that a campaign waits for: ``{campaign, subject, waits, phase}``."""

    async def amend(self, campaign: str, plan: Any, reason: str, operator: str) -> dict[str, Any]:
        """Propose another plan: ``{campaign, subject, changes}``; it is in force once the subject is approved."""

    async def humanize(self, report: dict[str, Any], operator: str) -> dict[str, Any]:
        """Keep a file of a loop that the Humanize plugin runs (loop, file, kind, fields, text): ``{seq, sha256}``."""

    async def shutdown(self) -> None:
        """Ask the daemon to end; returns at once."""

    def events(self, after: int, campaign: str | None, limit: int) -> list[Event]:
        """Events after a seq, in order, read from the file; called from a thread."""

    async def changed(self, after: int, timeout: float) -> int:
        """The ledger's last seq, as soon as it is beyond ``after`` or when ``timeout`` seconds are over."""

    def why(self, seq: int) -> dict[str, Any]:
        """The reasons of one event, as :func:`sotad.api.past.why_at` gives them; called from a thread."""
