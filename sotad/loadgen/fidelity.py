"""How well the load generator itself kept up, and whether a run measured it instead of the server. Pure.

A run is invalid when one of these held (`docs/loadgen.md` says why these numbers):

- a process was busy for more than 90% of the time, spinning before a send not counted;
- the event loop came to a timer late by more than 1 ms and 10% of the median TTFT, in the median;
- stalls of the event loop above 20 ms took more than 25% of the time (another program had the processor);
- with paced arrivals, 1% of the requests were sent late by more than 10 ms and 5% of the median E2E;
- this machine had no descriptors, ports or memory left for a connection.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sotad.benchmark.metrics import percentile

BUSY_SHARE = 0.9
JUDGED_S = 0.5  # a shorter run is too short for a share to mean anything
LAG_MS, LAG_OF_TTFT = 1.0, 0.1
STALL_MS, STALLED_SHARE = 20.0, 0.25
LATE_MS, LATE_OF_E2E = 10.0, 0.05
TIMER_MS = 1.0  # epoll's own resolution, part of every lag


def fidelity(records: Sequence[Mapping[str, Any]], efforts: Sequence[Mapping[str, Any]], paced: bool) -> dict[str, Any]:
    """The report's `client`: lateness of sends in ms, shares of one core per process, and `valid` with a reason."""
    late = [(each["sent_ns"] - each["planned_ns"]) / 1e6 for each in records if each["sent_ns"] is not None]
    opening = [
        (each["written_ns"] - each["sent_ns"]) / 1e6
        for each in records
        if each["written_ns"] is not None and each["sent_ns"] is not None
    ]
    processes = [_process(effort) for effort in efforts]
    found = {
        "late_ms_p50": percentile(late, 50),
        "late_ms_p99": percentile(late, 99),
        "late_ms_max": max(late, default=None),
        "write_ms_p99": percentile(opening, 99),
        "cpu_share": sum(each["cpu_share"] for each in processes) if processes else None,
        "busy_share": _most(processes, "busy_share"),
        "lag_ms_p50": _most(processes, "lag_ms_p50"),
        "lag_ms_p99": _most(processes, "lag_ms_p99"),
        "lag_ms_max": _most(processes, "lag_ms_max"),
        "stalled_share": _most(processes, "stalled_share"),
        **{name: sum(each[name] for each in efforts) for name in ("opened", "retried", "exhausted")},
        "processes": processes,
    }
    reason = _why_invalid(found, records, efforts, paced)
    return {**found, "valid": reason is None, "reason": reason}


def _process(effort: Mapping[str, Any]) -> dict[str, Any]:
    wall, spin, idle, lags = effort["wall_ns"], effort["spin_ns"], effort["idle_ns"], effort["lags_ms"]
    return {
        "cpu_share": effort["cpu_ns"] / wall,
        "busy_share": None if idle is None else max(0.0, (wall - idle - spin) / wall),
        "spin_share": spin / wall,
        "lag_ms_p50": percentile(lags, 50),
        "lag_ms_p99": percentile(lags, 99),
        "lag_ms_max": max(lags, default=None),
        "stalled_share": sum(lag for lag in lags if lag > STALL_MS) * 1e6 / wall,
    }


def _most(processes: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return max((each[name] for each in processes if each[name] is not None), default=None)


def _why_invalid(
    found: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    efforts: Sequence[Mapping[str, Any]],
    paced: bool,
) -> str | None:
    if found["exhausted"]:
        return f"this machine refused {found['exhausted']} connections (descriptors, ports or memory)"
    wall_s = max((effort["wall_ns"] for effort in efforts), default=0) / 1e9
    if wall_s < JUDGED_S:
        return None
    good = [each for each in records if each["error"] is None]
    ttft = percentile([(each["first_token_ns"] - each["sent_ns"]) / 1e6 for each in good], 50)
    e2e = percentile([(each["last_token_ns"] - each["sent_ns"]) / 1e6 for each in good], 50)
    if (found["busy_share"] or 0) > BUSY_SHARE:
        return f"the load generator was busy for {found['busy_share']:.0%} of the time; give it more processes"
    lag = (found["lag_ms_p50"] or 0) - TIMER_MS
    if lag > max(LAG_MS, LAG_OF_TTFT * (ttft or 0)):
        return f"the load generator came {lag:.1f} ms late to its events in the median; give it more processes"
    if (found["stalled_share"] or 0) > STALLED_SHARE:
        return (
            f"the load generator was kept from running for {found['stalled_share']:.0%} of the time; free a core for it"
        )
    late = found["late_ms_p99"] or 0
    if paced and late > max(LATE_MS, LATE_OF_E2E * (e2e or 0)):
        return f"the load generator sent 1% of the requests more than {late:.1f} ms late; give it more processes"
    return None
