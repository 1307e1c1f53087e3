"""The optimization ledger: what was accepted and is measurably better, nothing else."""

from __future__ import annotations

from statistics import fmean

from ledger.events import Event
from sotad.report.document import Document, Section, Table, Text
from sotad.report.facts import Facts, cite, number
from sotad.report.gaps import interval
from statemachine.state import JSON

NOTE = "Gains are 100 times the natural log of the throughput ratio, so that they add up over patches."


def optimization_entries(f: Facts) -> list[JSON]:
    """The accepted patches that gained on a scenario, in order; gains and gaps in percent, as 100 ln(ratio)."""
    entries: list[JSON] = []
    for event in f.all("patch.accepted"):
        if any(found.get("verdict") == "accept" for found in event.payload["decisions"].values()):
            total = entries[-1]["cumulative_gain_pct"] if entries else 0.0
            entries.append(_entry(f, event, len(entries) + 1, total))
    return entries


def _entry(f: Facts, event: Event, place: int, total: float) -> JSON:
    p = event.payload
    gain = geometric_gain(p["decisions"])
    after = f.after(event.seq, "gap.decided")
    gaps = {name: found.get("g_pct") for name, found in after.payload["decisions"].items()} if after else None
    return {
        "optimization_id": f"opt-{place}",
        "attempt_id": p["attempt_id"],
        "commit": p["commit"],
        "gain": {name: _range(found) for name, found in p["decisions"].items()},
        "geomean_gain_pct": gain,
        "cumulative_gain_pct": total + gain,
        "residual_gap_pct": gaps,
        "residual_event": after.seq if after else None,
        "pr_ref": None,
        "event": event.seq,
    }


def geometric_gain(decisions: JSON) -> float:
    """The gain over the scenarios' geometric mean, as 100 ln(ratio)."""
    return fmean(-found["g_pct"] for found in decisions.values())


def _range(decision: JSON) -> JSON:
    gain, low, high = interval(decision, -1)
    return {"gain_pct": gain, "lo_pct": low, "hi_pct": high, "verdict": decision.get("verdict")}


def optimization_document(f: Facts) -> Document:
    """``optimization-ledger.md``."""
    rows = [
        (
            *(entry["optimization_id"], entry["attempt_id"], entry["commit"]),
            "; ".join(f"{name} {_range_text(found)}" for name, found in entry["gain"].items()),
            *(number(entry["geomean_gain_pct"]), number(entry["cumulative_gain_pct"]), _residual(entry)),
            cite(entry["event"]),
        )
        for entry in optimization_entries(f)
    ]
    headers = ("optimization", "attempt", "commit", "gain % [interval]", "mean gain %", "sum of gains %")
    table = Table((*headers, "residual gap %", "event"), rows, empty="none")
    return Document(f"Optimizations of {f.c.id}", [Section("", [Text(NOTE), table])])


def _range_text(found: JSON) -> str:
    return f"{number(found['gain_pct'])} [{number(found['lo_pct'])}, {number(found['hi_pct'])}]"


def _residual(entry: JSON) -> str:
    if entry["residual_gap_pct"] is None:
        return "not recorded"
    gaps = "; ".join(f"{name} {number(g)}" for name, g in entry["residual_gap_pct"].items())
    return f"{gaps} {cite(entry['residual_event'])}"
