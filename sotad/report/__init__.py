"""The report of a campaign: a pure projection of its events, the same to the byte for the same events."""

from __future__ import annotations

from sotad.report.outcome import summary
from sotad.report.tree import build

__all__ = ["build", "summary"]
