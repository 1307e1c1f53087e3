"""How evenly the ranks of a capture are loaded: who computes longest, and who waits in collectives for it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from sotad.analysis.categories import categorize
from sotad.analysis.device_names import on_devices
from sotad.analysis.overlap import Overlap
from sotad.analysis.stages import Stages
from sotad.trace.columns import Trace
from sotad.trace.files import TraceFile

JSON = dict[str, Any]
TIMES = ("busy_ms", "communication_ms", "computing_ms")
STRAGGLES = 2.0  # percent more computing time than the median of the ranks


def rank_times(file: TraceFile, trace: Trace, stages: Stages, overlap: Overlap) -> list[JSON]:
    """Per stage and device the busy time, what of it is communication, and what is computing."""
    talks = np.array([kind == "communication" for kind in on_devices(trace, categorize)], dtype=np.bool_)
    shared = np.concatenate([overlap.kernels.attributed, overlap.copies.attributed])
    device = np.concatenate([trace.kernels.device, trace.copies.device])
    stage = np.concatenate([stages.kernel, stages.copy])
    communicates = np.concatenate([talks[trace.kernels.name], np.zeros(len(trace.copies), dtype=np.bool_)])
    rows = []
    for number, name in enumerate(stages.names):
        for place in np.unique(device[stage == number]).tolist():
            own = (stage == number) & (device == place)
            busy, talking = int(shared[own].sum()) / 1e6, int(shared[own & communicates].sum()) / 1e6
            about = {"stage": name, "rank": file.rank, "device": trace.devices[place], "path": str(file.path)}
            rows.append({**about, "busy_ms": busy, "communication_ms": talking, "computing_ms": busy - talking})
    return rows


def rank_rows(rows: list[JSON]) -> list[JSON]:
    """The rows with how far each rank is from the median of its stage; empty where nothing is to be compared.

    A straggler computes longer than the others, and the others wait for it in their collectives.
    """
    ranks: dict[tuple[str, Any, str], JSON] = {}
    for row in rows:  # a rank may have several files, one for each stage
        key = (row["stage"], row["path"] if row["rank"] is None else row["rank"], row["device"])
        known = ranks.get(key, {**row, **dict.fromkeys(TIMES, 0.0)})
        ranks[key] = {**known, **{time: known[time] + row[time] for time in TIMES}}
    by_stage: dict[str, list[JSON]] = defaultdict(list)
    for row in ranks.values():
        by_stage[row["stage"]].append(row)
    return [row for members in by_stage.values() if len(members) > 1 for row in _compared(members)]


def _compared(members: list[JSON]) -> list[JSON]:
    middle = float(np.median([row["computing_ms"] for row in members]))
    least = min(row["communication_ms"] for row in members)
    return [
        {
            **row,
            "behind_percent": (behind := 100 * (row["computing_ms"] - middle) / middle if middle else 0.0),
            "straggler": behind > STRAGGLES,
            "waits_ms": row["communication_ms"] - least,
        }
        for row in members
    ]
