"""The guards, by name. Each looks at the folded state and the event, and says what evidence is missing.

A guard returns None when it holds, else the missing evidence in words. Nothing here reads a clock, a file or
a random number, so a replay of the ledger asks exactly the questions that were asked when it was written.
"""

from statemachine.guards import beginning, ending, explaining, leasing, measuring, patching, reviewing
from statemachine.guards.asking import GUARDS, Ask, Guard
from statemachine.guards.reviewing import MAX_FIX_CYCLES, MAX_STALLS

__all__ = [
    "GUARDS",
    "MAX_FIX_CYCLES",
    "MAX_STALLS",
    "Ask",
    "Guard",
    "beginning",
    "ending",
    "explaining",
    "leasing",
    "measuring",
    "patching",
    "reviewing",
]
