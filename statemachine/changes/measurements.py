"""What launches and their rows change."""

from __future__ import annotations

from ledger.events import Event
from statemachine import caches, pace
from statemachine.changes.register import on
from statemachine.state import JSON, Campaign, Launch


@on("candidate.launched")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.launches[p["launch"]] = Launch(
        p["launch"],
        p["purpose"],
        p["framework"],
        p["candidate"],
        p["commit"],
        p["attempt"],
        "launched",
        e.seq,
        p["command"],
        gpus=p.get("gpus") or [],
        caches=p.get("caches") or {},
        began_ns=e.time_ns,
    )
    caches.note_launch(c, p)


@on("candidate.ready")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        launch = c.launches[p["launch"]]
        launch.status = "ready"
        pace.ready(c, launch, p["startup_s"])
        if launch.caches:
            caches.note_ready(c, launch.caches["folder"], launch.candidate)


def _serves(c: Campaign, p: JSON) -> bool:
    """Whether a launch is still open: what is said of it after its end stays on record and changes nothing."""
    return c.launches[p["launch"]].status in ("launched", "ready")


@on("candidate.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        launch = c.launches[p["launch"]]
        launch.status, launch.reason, launch.rows = p["status"], p["reason"], []


@on("candidate.lost")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        launch = c.launches[p["launch"]]
        launch.status, launch.reason, launch.rows = "lost", p["reason"], []


@on("candidate.stopped")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        c.launches[p["launch"]].status = "stopped"
        pace.stopped(c, c.launches[p["launch"]], e.time_ns)


@on("candidate.skipped")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.skipped[f"{p['framework']}/{p['candidate']}"] = p["reason"]


@on("candidate.curtailed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if _serves(c, p):
        c.launches[p["launch"]].curtailed[p["scenario"]] = p["reason"]


@on("benchmark.started")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.launches[p["launch"]].run_ns = e.time_ns


@on("benchmark.finished")
def _(c: Campaign, e: Event, p: JSON) -> None:
    if not _serves(c, p):
        return
    launch = c.launches[p["launch"]]
    pace.measured(c, launch, p["scenario"], e.time_ns)
    row = p["row"]
    kept = {"status": row["status"], "metrics": row["metrics"], "hardware": row.get("hardware")}
    kept |= {"scenario": p["scenario"], "run": p["run"], "seed": p["seed"], "seq": e.seq}
    if row.get("conditions"):
        kept["conditions"] = row["conditions"]
    if c.spec.get("fairness", 1) >= 2:
        kept |= {part: row.get(part) for part in ("cache", "spec_decode", "phase_metrics")}
    if launch.purpose == "rate":
        kept["rate"] = row["workload"]["request_rate"]
    launch.rows.append(kept | {"candidate": launch.candidate, "framework": launch.framework})


@on("sla.failed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.launches[p["launch"]].sla[p["scenario"]] = p["key"]


@on("sla.passed")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.launches[p["launch"]].sla[p["scenario"]] = "passed"


@on("search.exhausted")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.exhausted.append(p["framework"])


@on("winner.selected")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.winners[f"{p['framework']}/{p['scenario']}"] = {"candidate": p.get("candidate"), "reason": p["reason"]}


@on("goodput.found")
def _(c: Campaign, e: Event, p: JSON) -> None:
    found = {key: p.get(key) for key in ("rate", "bound", "reason")}
    c.winners[f"{p['framework']}/{p['scenario']}"]["goodput"] = found


@on("baseline.frozen")
def _(c: Campaign, e: Event, p: JSON) -> None:
    c.baseline_digest = p["digest"]
