"""``status``: where everything stands."""

from __future__ import annotations

import argparse
from typing import Any

from sotad.api.forecast import left, one_line
from sotad.cli.options import places, subcommand
from sotad.cli.output import emit_json, table, utc
from sotad.cli.sources import Source, source

JSON = dict[str, Any]
HEADER = ("CAMPAIGN", "PHASE", "ROUND", "GAP", "DOING", "PATCHES", "LEFT", "VERDICT", "LAST EVENT")


def add(commands: Any) -> None:
    """Add the group to the parser."""
    examples = "  sotactl status\n  sotactl status demo\n  sotactl status --json | jq .campaigns[0].phase"
    parser = subcommand(commands, "status", "where every campaign stands, or one in full", examples)
    parser.add_argument("campaign", metavar="CAMPAIGN", nargs="?")
    parser.set_defaults(run=_status)


def _status(args: argparse.Namespace) -> int:
    found = source(places(args))
    if args.campaign is not None:
        return _one(found, args)
    status = found.status()
    status["daemon"]["running"] = found.running
    if args.json:
        emit_json(status)
    else:
        print(_all(status))
    return 0


def _one(found: Source, args: argparse.Namespace) -> int:
    state = found.campaign(args.campaign)
    if args.json:
        emit_json(state)
        return 0
    summary = next(c for c in found.status()["campaigns"] if c["campaign"] == args.campaign)
    print(_facts(summary, state))
    return 0


def _all(status: JSON) -> str:
    daemon, campaigns = status["daemon"], status["campaigns"]
    lines = [_daemon(daemon)]
    if campaigns:
        lines += ["", table([_line(c) for c in campaigns], HEADER)]
        lines += [f"{c['campaign']}: {c['reason']}; {c['next']}" for c in campaigns if c["next"]]
        lines += [f"{c['campaign']} waits for {name}: {text}" for c in campaigns for name, text in c["waits"].items()]
    else:
        lines.append("no campaigns; start one with `sotactl submit CONFIG`")
    return "\n".join(lines)


def _daemon(daemon: JSON) -> str:
    where = f"{daemon.get('seq', 0)} events in {daemon.get('state_dir')}"
    if not daemon["running"]:
        return f"sotad is not running; {where}"
    ready = "ready" if daemon.get("ready") else "not ready"
    return f"sotad {daemon['version']} {ready}, pid {daemon['pid']}, epoch {daemon['epoch']}; {where}"


def _line(c: JSON) -> tuple[Any, ...]:
    return (
        c["campaign"],
        c["phase"],
        c["round"],
        _gap(c["gap"]),
        ", ".join(c["doing"]),
        f"{c['accepted']} of {c['attempts']}",
        left(c["expected"]),
        c["verdict"],
        utc(c["updated_ns"]),
    )


def _gap(gap: JSON | None) -> str:
    if gap is None:
        return ""
    return f"{gap['verdict']} {gap['g_pct']:+.2f}%" if "g_pct" in gap else str(gap["verdict"])


def _facts(c: JSON, state: JSON) -> str:
    """One campaign, a fact a line, then its winners and its patches."""
    rows = [(name, c[name]) for name in ("campaign", "phase", "round", "verdict", "reason", "next")]
    rows += [("done", one_line(c["expected"]))]
    rows += [("gap", _gap(c["gap"])), ("doing", ", ".join(c["doing"])), ("champion", c["champion"])]
    rows += [("created", utc(c["created_ns"])), ("last event", f"{c['seq']} at {utc(c['updated_ns'])}")]
    parts = [table([row for row in rows if row[1] not in ("", None)], ("", ""))]
    if c["waits"]:
        parts.append(
            table([(*item, _verb(item[0])) for item in c["waits"].items()], ("WAITS FOR", "ABOUT", "SAY IT WITH"))
        )
    if state["winners"]:
        won = [(name, winner["candidate"], winner["reason"]) for name, winner in state["winners"].items()]
        parts.append(table(won, ("WINNER OF", "CANDIDATE", "WHY")))
    if state["attempts"]:
        parts.append(table([_attempt(found) for found in state["attempts"].values()], ATTEMPT))
    return "\n\n".join(part.strip("\n") for part in parts)


def _verb(subject: str) -> str:
    return "sotactl answer" if subject.startswith("question:") else "sotactl approve"


ATTEMPT = ("PATCH", "ROUND", "STATUS", "GAIN", "REFUSED BY", "HYPOTHESIS")


def _attempt(found: JSON) -> tuple[Any, ...]:
    gain = found["gain_pct"]
    shown = None if gain is None else f"{gain:+.2f}%"
    head = (found["attempt_id"], found["round"], found["status"], shown)
    return (*head, found["refused_by"], found["hypothesis"])
