"""Whether the numbers of a row can be true together: what cannot is most often a wrong unit.

:func:`contradictions` are certain: impossible by definition, or off by the factor of about 1000 that lies between
seconds and milliseconds. :func:`doubts` are not, and only shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LATENCIES = ("ttft_ms", "tpot_ms", "e2e_ms")
ROUNDING = 1 + 1e-6
UNIT = 300.0  # an error of unit is a factor of 1000; what is measured strays from what is expected by less than this
LEAST_TTFT_IN_STEPS = 1 / 30  # the first token needs a forward pass too
SAME_PACE = 2.0
MIXED = (600.0, 1500.0)

Row = Mapping[str, Any]


def contradictions(row: Row) -> Iterator[str]:
    """What in the row cannot be true; nothing for a row that was not measured."""
    m, w = row["metrics"], row["workload"]
    yield from _order(m)
    yield from _tokens(m, w)
    yield from _first_token(m)
    flight, room = in_flight(m), _room(w)
    if flight is not None and room is not None:
        if flight > UNIT * room:
            yield f"{flight:.4g} requests in flight (throughput x E2E), {room} at most: is the E2E latency in ms?"
        elif w["request_rate"] is None and flight * UNIT < room:
            yield f"{flight:.2g} requests in flight (throughput x E2E) at saturation of {room}: is E2E in seconds?"


def _order(m: Row) -> Iterator[str]:
    for name in LATENCIES:
        if _above(m[f"p50_{name}"], m[f"p99_{name}"]):
            yield f"p50_{name} {m[f'p50_{name}']:g} is above p99_{name} {m[f'p99_{name}']:g}"
    for level in ("p50", "mean", "p99"):
        ttft, e2e = m[f"{level}_ttft_ms"], m[f"{level}_e2e_ms"]
        if _above(ttft, e2e):
            yield f"{level}_ttft_ms {ttft:g} is above {level}_e2e_ms {e2e:g}: one of them is in another unit"
    if _above(m["output_token_throughput"], m["total_token_throughput"]):
        yield "output_token_throughput is above total_token_throughput"


def _tokens(m: Row, w: Row) -> Iterator[str]:
    """Tokens per request, from the rates, against the lengths of the workload."""
    output = w["output_len_p50"] or w["output_len"]
    whole = output + (w["input_len_p50"] or w["input_len"] or 0) if output else None
    for name, expected in (("output_token_throughput", output), ("total_token_throughput", whole)):
        if m[name] and m["request_throughput"] and expected:
            found = m[name] / m["request_throughput"]
            if found > UNIT * expected or found * UNIT < expected:
                yield f"{name} / request_throughput is {found:.4g} tokens a request, the workload says {expected:g}"


def _first_token(m: Row) -> Iterator[str]:
    ttft, tpot = _level(m, "ttft_ms"), _level(m, "tpot_ms")
    if ttft is not None and tpot is not None and ttft < tpot * LEAST_TTFT_IN_STEPS:
        yield f"TTFT {ttft:g} ms is shorter than {LEAST_TTFT_IN_STEPS:.2g} of one TPOT {tpot:g} ms: is TTFT in seconds?"


def in_flight(m: Row) -> float | None:
    """Requests in flight on average: throughput times E2E latency (Little's law)."""
    e2e = m["mean_e2e_ms"] if m["mean_e2e_ms"] is not None else m["p50_e2e_ms"]
    rate = m["request_throughput"]
    return rate * e2e / 1000 if rate is not None and e2e is not None else None


def _room(w: Row) -> int | None:
    bounds = [bound for bound in (w["max_concurrency"], w["num_prompts"]) if bound]
    return min(bounds, default=None)


def doubts(row: Row) -> Iterator[str]:
    """What in the row is hard to believe, but possible."""
    m, w = row["metrics"], row["workload"]
    flight, room = in_flight(m), _room(w)
    if flight is not None and room is not None and flight > 1.5 * room:
        yield f"{flight:.3g} requests in flight (throughput x E2E) are more than the {room} that were allowed"
    ttft, tpot, e2e = (_level(m, name) for name in LATENCIES)
    if None not in (ttft, tpot, e2e) and m["request_throughput"] and m["output_token_throughput"]:
        tokens = m["output_token_throughput"] / m["request_throughput"]
        told = ttft + tpot * max(tokens - 1, 0)
        if told and e2e and not 0.1 < e2e / told < 10:
            yield f"TTFT + TPOT x (tokens - 1) is {told:.4g} ms, but E2E {e2e:.4g} ms: one may be in another unit"


def mixed_units(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Rows of one load whose latency is about a thousandth of another row's at about the same throughput."""
    for name in LATENCIES:
        known = [(level, row) for row in rows if (level := _level(row["metrics"], name)) and _pace(row)]
        known.sort(key=lambda each: each[0])
        levels = [level for level, _ in known]
        for level, low in known:
            suspects = known[bisect_left(levels, MIXED[0] * level) : bisect_left(levels, MIXED[1] * level)]
            high = next((each for each in suspects if 1 / SAME_PACE < _pace(each[1]) / _pace(low) < SAME_PACE), None)
            if high is not None:
                named = f"{high[1]['framework']}/{high[1]['candidate_id']}"
                yield low, f"{name} is 1/{high[0] / level:.0f} of that of {named}"


def _pace(row: Row) -> float:
    return row["metrics"]["request_throughput"] or 0.0


def _level(m: Row, name: str) -> float | None:
    value: float | None = m[f"p50_{name}"] if m[f"p50_{name}"] is not None else m[f"mean_{name}"]
    return value


def _above(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low > high * ROUNDING
