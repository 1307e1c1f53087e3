"""The Python location that launched most of the time of a kernel or copy, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sotad.trace.columns import Trace

if TYPE_CHECKING:
    from sotad.analysis.attribution import Attribution


def scopes_of(trace: Trace, attribution: Attribution | None) -> list[str]:
    """The location for each of `trace.names`; empty for what ran on no device, or whose main site names no line."""
    found = [""] * len(trace.names)
    if attribution is None:
        return found
    sites, located = len(attribution.sites), attribution.located()
    parts = ((trace.kernels, attribution.kernel_site), (trace.copies, attribution.copy_site))
    key = np.concatenate([work.name.astype(np.int64) * sites + site for work, site in parts])
    duration = np.concatenate([work.end - work.begin for work, _ in parts])
    keys, which = np.unique(key, return_inverse=True)
    time = np.bincount(which, weights=duration)
    for place in np.argsort(time, kind="stable").tolist():  # the longest comes last and stays
        name, site = divmod(int(keys[place]), sites)
        found[name] = attribution.sites[site].location if located[site] else ""
    return found
