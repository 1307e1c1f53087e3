"""One line that says where the time of a kind of pass goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

IDLE = 25.0  # percent of a pass
EXPOSED = 15.0
AROUND = 30.0


def bottleneck(steady: dict[str, Any], clusters: Sequence[dict[str, Any]]) -> str:
    """What takes most: waiting for launches, exposed communication, what is around the layers, or one cluster."""
    whole = steady["median_us"] or 1.0
    idle, exposed = 100 * steady["idle_us"] / whole, 100 * steady["exposed_comm_us"] / whole
    around = 100 * (steady["before_layers_us"] + steady["after_layers_us"]) / whole
    if idle >= IDLE:
        return f"the GPU is idle {idle:.0f} % of the pass: launches or the CPU hold it up, not kernels"
    if exposed >= EXPOSED:
        return f"{exposed:.0f} % of the pass is communication that nothing overlaps"
    if not clusters:
        return f"the GPU works {100 - idle:.0f} % of the pass; layers could not be told apart"
    if around >= AROUND:
        return f"{around:.0f} % of the pass lies before the first or after the last layer"
    most = clusters[0]
    kind, share = next(iter(most["by_category_pct"].items()), ("unknown", 0.0))
    where = f"{len(most['layers'])} {most['label']} layers (cluster {most['id']}) take {most['share_of_pass']:.0f} %"
    return f"{where} of the pass, {share:.0f} % of their kernel time is {kind}; the GPU is idle {idle:.0f} %"
