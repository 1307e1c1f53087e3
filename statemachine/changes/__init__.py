"""How each event changes what is known. One small function per type, applied in ledger order."""

from statemachine.changes import course, measurements, people, rounds
from statemachine.changes.register import APPLY

__all__ = ["APPLY", "course", "measurements", "people", "rounds"]
