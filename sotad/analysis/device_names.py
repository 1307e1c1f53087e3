"""What the names of work on devices say. Most names of a trace are of operators, frames and annotations instead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sotad.trace.columns import Trace


def on_devices(trace: Trace, read: Callable[[str], str]) -> list[str]:
    """For each of `trace.names` what `read` makes of it, empty for the names of no kernel and no copy."""
    found = [""] * len(trace.names)
    for name in np.unique(np.concatenate([trace.kernels.name, trace.copies.name])).tolist():
        found[name] = read(trace.names[name])
    return found
