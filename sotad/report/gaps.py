"""The comparison: fairness, the A/A check, the gap of every round, and what each patch gained.

``g`` is 100 (ln leader - ln target) of the deciding metric, so g > 0 means the target is behind; a patch's
gain is -g of patched against unpatched. Both are read as percent.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from ledger.events import Event
from sotad.report.document import Document, Items, Section, Table, Text
from sotad.report.facts import Facts, Measured, cite, cite_range, number, said
from statemachine.state import JSON

_LAUNCH = re.compile(r"b(?P<block>\d+)/(?P<label>.+)")
INTERVAL_HEADERS = ("estimate %", "interval %", "blocks", "call")


class Side(NamedTuple):
    """What one side of a contest measured on a scenario: value per block, and the rows behind them."""

    values: dict[int, list[float]]
    seqs: list[int]

    @property
    def level(self) -> float:
        """Geometric mean over blocks of the runs' geometric means."""
        return math.exp(fmean(fmean(map(math.log, runs)) for runs in self.values.values()))


def interval(decision: JSON, sign: int = 1) -> tuple[float | None, float | None, float | None]:
    """(estimate, low, high) of a decision in percent; ``sign`` -1 turns a gap into a gain."""
    g, lo, hi = (decision.get(key) for key in ("g_pct", "lo_pct", "hi_pct"))
    return (g, lo, hi) if sign > 0 else (_negative(g), _negative(hi), _negative(lo))


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def interval_cells(decision: JSON, sign: int = 1) -> list[str]:
    """Cells for ``INTERVAL_HEADERS``."""
    estimate, low, high = interval(decision, sign)
    return [number(estimate), f"[{number(low)}, {number(high)}]", _blocks(decision), str(decision["verdict"])]


def _blocks(decision: JSON) -> str:
    """How many blocks count, and of how many when some were set aside."""
    counted, measured = decision.get("n"), decision.get("blocks")
    return f"{counted} of {measured}" if measured not in (None, counted) else said(counted)


def contests(f: Facts, name: str) -> dict[tuple[str, str], Side]:
    """Per (scenario, label) what the launches of a contest such as ``gap/r0`` measured, without void rows."""
    found: dict[tuple[str, str], list[tuple[int, Measured]]] = defaultdict(list)
    for row in f.rows:
        of_contest = row.launch.startswith(f"{name}/") and row.counts and row.row["status"] == "ok"
        match = _LAUNCH.fullmatch(row.launch.removeprefix(f"{name}/")) if of_contest else None
        if match:
            found[row.scenario, match["label"]].append((int(match["block"]), row))
    return {key: _side(f, rows) for key, rows in found.items()}


def _side(f: Facts, rows: Iterable[tuple[int, Measured]]) -> Side:
    values: dict[int, list[float]] = defaultdict(list)
    seqs = []
    for block, found in rows:
        value = found.row["metrics"].get(f.metric)
        if value:
            values[block].append(value)
            seqs.append(found.seq)
    return Side(dict(values), seqs)


def pair(f: Facts, name: str, scenario: str) -> tuple[Side, Side] | None:
    """(target, leader) of a gap contest on a scenario; None unless both have measured something."""
    ours = theirs = None
    for (found, label), side in contests(f, name).items():
        if found == scenario and side.values:
            if label.startswith(f"{f.target}."):
                ours = side
            else:
                theirs = side
    return (ours, theirs) if ours and theirs else None


def block_gaps(sides: tuple[Side, Side]) -> list[float]:
    """g of every block that both sides have, in percent."""
    ours, theirs = (side.values for side in sides)
    return [
        100 * (fmean(map(math.log, theirs[block])) - fmean(map(math.log, ours[block])))
        for block in sorted(ours.keys() & theirs.keys())
    ]


# --- blocks of the report ---------------------------------------------------------------------------------


def gap_table(f: Facts) -> Table:
    """Every gap decision, one line per round and scenario."""
    margin = f"{f.spec['decision']['tau_pct']:g}" if f.spec else "not recorded"
    rows = [
        (
            str(event.payload["round"]),
            scenario,
            event.payload["leader"],
            *interval_cells(decision),
            margin,
            event.payload["verdict"],
            cite(event),
        )
        for event in f.all("gap.decided")
        for scenario, decision in event.payload["decisions"].items()
    ]
    headers = ("round", "scenario", "leader", *INTERVAL_HEADERS, "margin %", "round's verdict", "event")
    return Table(headers, rows)


def level_table(f: Facts) -> Table:
    """Throughput of target and leader in the same blocks, per round: before the first patch, and after."""
    rows = []
    for event in f.all("gap.decided"):
        for scenario in event.payload["decisions"]:
            sides = pair(f, f"gap/r{event.payload['round']}", scenario)
            if sides:
                ours, theirs = (f"{side.level:.3f} {cite_range(side.seqs)}" for side in sides)
                rows.append((str(event.payload["round"]), scenario, ours, theirs, cite(event)))
    return Table(("round", "scenario", f"target {f.metric}", f"leader {f.metric}", "event"), rows)


def improvement_table(f: Facts) -> Table:
    """What every measured patch changed against the commit it was based on."""
    rows = [
        (event.payload["attempt_id"], _fate(event), scenario, *interval_cells(decision, -1), cite(event))
        for event in f.all("patch.accepted", "patch.reverted")
        for scenario, decision in event.payload.get("decisions", {}).items()
    ]
    headers = ("attempt", "result", "scenario", *(f"gain: {name}" for name in INTERVAL_HEADERS), "event")
    return Table(headers, rows, empty="no patch was measured against its base")


def _fate(event: Event) -> str:
    return event.type.removeprefix("patch.")


def reasons(f: Facts) -> Items:
    """Why each round's call was made, as recorded with it."""
    return Items(
        [
            f"round {event.payload['round']}: {reason} {cite(event)}"
            for event in f.all("gap.decided")
            for reason in event.payload["reasons"]
        ]
    )


def fairness_document(f: Facts) -> Document:
    """``benchmark/fairness/diagnostics.md``."""
    sections = [
        Section(f"Conditions, round {e.payload['round']} {cite(e)}", [_conditions(e)])
        for e in f.all("fairness.checked")
    ]
    violated = [
        (str(e.payload["round"]), e.payload["item"], e.payload["action"], cite(e)) for e in f.all("fairness.violated")
    ]
    checks = [
        (scenario, *interval_cells(decision), "passed" if e.payload["passed"] else "failed", cite(e))
        for e in f.all("aa.checked")
        for scenario, decision in e.payload["decisions"].items()
    ]
    return Document(
        f"Fairness of {f.c.id}",
        [
            *(sections or [Section("Conditions", [Text("not recorded")])]),
            Section(
                "Violations",
                [Table(("round", "differs", "action", "event"), violated, empty="none recorded")],
            ),
            Section(
                "The target's command against itself (A/A)",
                [Table(("scenario", *INTERVAL_HEADERS, "check", "event"), checks)],
            ),
        ],
    )


_MATCHES = {"noted": "no: each framework's own"}


def _conditions(event: Event) -> Table:
    rows = [
        (
            str(item.get("condition")),
            ", ".join(f"{k}: {v}" for k, v in sorted(item.get("values", {}).items())),
            _MATCHES.get(item.get("verdict")) or ("yes" if item.get("match") else "no"),
        )
        for item in event.payload["items"]
    ]
    return Table(("condition", "values", "match"), rows)
