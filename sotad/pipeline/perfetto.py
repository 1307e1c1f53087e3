"""Ranges of time in a form that Perfetto takes."""

from __future__ import annotations

from typing import Any


def window(what: str, begin: int, end: int, origin_ns: int) -> dict[str, Any]:
    """One range. ``begin`` and ``end`` are ns since the trace's first event, which happened at ``origin_ns``.

    ``start_s`` is what Perfetto's time ruler shows. ``url`` goes behind `https://ui.perfetto.dev/#!/viewer?`
    (visStart and visEnd of its deep links, ns); ``sql`` is for its query page.
    """
    first, last = origin_ns + begin, origin_ns + end
    return {
        "what": what,
        "start_us": round(begin / 1000, 3),
        "end_us": round(end / 1000, 3),
        "dur_us": round((end - begin) / 1000, 3),
        "start_s": f"{begin / 1e9:.6f}",
        "end_s": f"{end / 1e9:.6f}",
        "start_ns": first,
        "end_ns": last,
        "url": f"visStart={first}&visEnd={last}",
        "sql": f"select ts, dur, name from slice where ts >= {first} and ts < {last} order by ts",
    }
