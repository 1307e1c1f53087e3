"""The limits that an SLA may have, and one of them as text. Standard library only: the command line asks here."""

from __future__ import annotations

import math

LIMITS = ("max_p50_ttft_ms", "max_p50_tpot_ms", "max_p50_e2e_ms", "min_success_rate")
DEPRECATED = {
    f"max_{percentile}{name}_ms": f"max_p50_{name}_ms"
    for name in ("ttft", "tpot", "e2e")
    for percentile in ("p99_", "")
}


def limit(text: str) -> tuple[str, float]:
    """``KEY=VALUE`` as a limit; ms, the success rate from 0 to 1.

    Raises:
        ValueError: it is none, with what it should be.
    """
    key, given, value = text.partition("=")
    if key in DEPRECATED:
        raise ValueError(f"{key} is deprecated: use {DEPRECATED[key]}")
    if not given or key not in LIMITS:
        raise ValueError(f"{text!r} is not KEY=VALUE with a key of {', '.join(LIMITS)}")
    highest = 1.0 if key == "min_success_rate" else math.inf
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and 0 <= found <= highest):
        bounds = "from 0 to 1" if highest == 1 else "of at least 0"
        raise ValueError(f"{key} is {value!r}: a number {bounds} is needed")
    return key, found
