"""The Python location that launched most of a stage's time in a kernel or copy, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sotad.trace.columns import Trace

if TYPE_CHECKING:
    from sotad.analysis.attribution import Attribution
    from sotad.analysis.stages import Stages


def scopes_of(trace: Trace, attribution: Attribution | None, stages: Stages, number: int) -> list[str]:
    """The location for each of `trace.names`; empty for what ran not in the stage, or whose main site names no line."""
    found = [""] * len(trace.names)
    if attribution is None:
        return found
    sites, located = len(attribution.sites), attribution.located()
    parts = [
        (work, site, np.flatnonzero(stage == number))
        for work, site, stage in (
            (trace.kernels, attribution.kernel_site, stages.kernel),
            (trace.copies, attribution.copy_site, stages.copy),
        )
    ]
    key = np.concatenate([work.name[rows].astype(np.int64) * sites + site[rows] for work, site, rows in parts])
    duration = np.concatenate([work.end[rows] - work.begin[rows] for work, _, rows in parts])
    keys, which = np.unique(key, return_inverse=True)
    time = np.bincount(which, weights=duration)
    for place in np.argsort(time, kind="stable").tolist():  # the longest comes last and stays
        name, site = divmod(int(keys[place]), sites)
        found[name] = attribution.sites[site].location if located[site] else ""
    return found
