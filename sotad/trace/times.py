"""Microseconds as a trace gives them -> whole nanoseconds, exactly.

A double of `ts` in microseconds tells nanoseconds apart only below 2**43, 102 days. Newer torch stays below, counting
from the file's `baseTimeNanoseconds`; older traces count from 1970, and their decimals need exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import numpy as np

from sotad.trace.columns import I64

NONE = -(2**63)  # stands for "no usable time"
REACH_NS = 2**61  # times further than this from the reference are not usable: sums of them have to fit 64 bits
MOST_DIGITS = 24  # before the decimal point; 1e999999999 must not become an integer
_FINE_US = 2.0**43
_WHOLE_US = 2**51

Exact = int | float | Decimal | str | None


def quick_ns(values: Sequence[int | float]) -> I64 | None:
    """Nanoseconds of plain numbers, NaN as NONE; None if these do not tell them exactly."""
    us = np.array(values)
    if us.dtype == np.int64:
        return us * 1000 if not len(us) or max(int(us.max()), -int(us.min())) < _WHOLE_US else None
    if us.dtype != np.float64:
        return np.zeros(0, np.int64) if not len(us) else None
    bad = np.isnan(us)
    us[bad] = 0
    if (np.abs(us) >= _FINE_US).any():
        return None
    whole = np.floor(us)
    ns: I64 = whole.astype(np.int64) * 1000 + np.rint((us - whole) * 1000).astype(np.int64)
    ns[bad] = NONE
    return ns


def exact_ns(value: Exact) -> int | None:
    """Nanoseconds of anything that tells microseconds, whatever its size; None if it does not."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value * 1000
    try:
        us = Decimal(value)
        return int((us * 1000).to_integral_value(ROUND_HALF_EVEN)) if us.adjusted() < MOST_DIGITS else None
    except (InvalidOperation, ValueError, OverflowError, TypeError):
        return None


def within_reach(times: Sequence[int | None], reference: int) -> I64:
    """Times from the reference on; NONE where that does not fit."""
    away = [None if time is None else time - reference for time in times]
    return np.array([NONE if time is None or abs(time) >= REACH_NS else time for time in away], np.int64)
