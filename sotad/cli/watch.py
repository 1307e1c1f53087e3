"""``watch``: follow campaigns, one line per event, until they are closed."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from sotad.api.forecast import one_line as one_forecast
from sotad.api.summary import said_with, spending
from sotad.cli.options import client, subcommand
from sotad.cli.output import clean, say
from sotad.client import Client
from sotad.errors import NotFound, Unreachable

JSON = dict[str, Any]
SUCCESS = ("success_ahead", "success_tied")
PATIENCE_S = 60.0
"""Seconds for which a daemon may be away, as in a restart, before following it ends."""
WIDTH = 110
MILESTONES = ("candidate.stopped", "candidate.failed", "search.exhausted", "gap.decided", "campaign.resumed")
"""Events after which what is left is told anew."""


def add(commands: Any) -> None:
    """Add the group to the parser."""
    what = "follow a campaign until it is closed; status 1 when it closed without success"
    examples = "  sotactl watch demo && echo ahead\n  sotactl watch --json demo | jq -c .type"
    parser = subcommand(commands, "watch", what, examples)
    parser.add_argument("campaign", metavar="CAMPAIGN", nargs="?", help="default: every one that is open")
    parser.set_defaults(run=_watch)


def _watch(args: argparse.Namespace) -> int:
    """Starts at the present: the past of an open campaign is `sotactl events`."""
    found = client(args)
    status = found.get("/v1/status")
    verdicts = _chosen(status["campaigns"], args.campaign)
    for c in status["campaigns"]:
        if c["campaign"] in verdicts:
            _introduce(c)
    if None in verdicts.values():
        _follow(found, status["daemon"]["seq"], verdicts, args)
    for campaign, verdict in verdicts.items():
        say(f"{campaign}: closed, {verdict}")
    return 0 if all(verdict in SUCCESS for verdict in verdicts.values()) else 1


def _introduce(c: JSON) -> None:
    """Where it stands before its first event comes, and what it waits for."""
    said = [f"{c['campaign']}: {c['phase']}, round {c['round']}"]
    said += [f"plan version {c['plan']}"] if c["plan"] else []
    said += [f"{c['open_issues']} open issues"] if c["open_issues"] else []
    said += [f"agents used: {spent}"] if (spent := spending(c["spent"])) else []
    say(", ".join(said))
    say(f"{c['campaign']}: {one_forecast(c['expected'])}")
    for subject, text in c["waits"].items():
        say(_waits(c["campaign"], subject, text))


def _waits(campaign: str, subject: str, text: str) -> str:
    return f"{campaign} waits for a person: {text}\n  {said_with(campaign, subject)}"


def asked(event: JSON) -> str:
    """What a person is asked by an event, and the command that says it; empty when it asks nothing."""
    payload, type_ = event["payload"], event["type"]
    if type_ == "human.question":
        return _waits(event["campaign"], payload["subject"], payload["text"])
    if type_ == "plan.amendment_proposed":
        return _waits(event["campaign"], f"plan:{event['seq']}", f"amend the plan: {payload['reason']}")
    if type_ == "patch.quarantined":
        text = f"{payload['attempt_id']} gains {payload['gain_pct']:.1f}%, more than {payload['ceiling_pct']:g}%"
        return _waits(event["campaign"], f"attempt:{payload['attempt_id']}", text)
    return ""


def _forecast(found: Client, campaign: str) -> None:
    """What is left now, beside the events: on stderr."""
    with contextlib.suppress(Unreachable):
        now = found.campaign(campaign)
        if now and now["expected"]["parts"]:
            say(f"{campaign}: {one_forecast(now['expected'])}")


def _chosen(campaigns: list[JSON], name: str | None) -> dict[str, str | None]:
    """Verdicts so far of the campaigns to follow."""
    if name is None:
        wanted = [c for c in campaigns if c["phase"] != "closed"]
    else:
        wanted = [c for c in campaigns if c["campaign"] == name]
    if not wanted:
        raise NotFound("no campaign is open" if name is None else f"there is no campaign {name!r}")
    return {c["campaign"]: c["verdict"] for c in wanted}


def _follow(found: Client, after: int, verdicts: dict[str, str | None], args: argparse.Namespace) -> None:
    for event in follow(found, after, args.campaign):
        if event["campaign"] not in verdicts:
            continue
        print(json.dumps(event) if args.json else one_line(event), flush=True)
        if question := asked(event):
            say(question)
        if event["type"] in MILESTONES:
            _forecast(found, event["campaign"])
        if event["type"] == "campaign.closed":
            verdicts[event["campaign"]] = event["payload"]["terminal"]
            if None not in verdicts.values():
                return


def follow(found: Client, after: int, campaign: str | None) -> Iterator[JSON]:
    """Every event after a seq, once, in order, across restarts of the daemon.

    Raises:
        Unreachable: it is not there, or later stayed away for a minute.
    """
    found.get("/v1/status")
    only = {"campaign": campaign} if campaign is not None else {}
    away_since: float | None = None
    while True:
        try:
            for event in found.stream(f"/v1/events?{urlencode({'after': after} | only)}"):
                after, away_since = event["seq"], None
                yield event
        except Unreachable:
            if away_since is not None and time.monotonic() - away_since > PATIENCE_S:
                raise
        if away_since is None:
            away_since = time.monotonic()
            say("the daemon ended the stream; waiting for it")
        time.sleep(0.5)


def one_line(event: JSON) -> str:
    """An event in one line of a terminal."""
    when = time.strftime("%H:%M:%S", time.gmtime(event["time_ns"] // 1_000_000_000))
    said = "  ".join(f"{key}={_short(value)}" for key, value in event["payload"].items())
    line = f"{event['seq']:>6} {when} {event['campaign'] or '-'} {event['type']:<20} {said}"
    return clean(line if len(line) <= WIDTH else line[: WIDTH - 3] + "...").replace("\n", " ")


def _short(value: Any) -> str:
    """Scalars as they are; of a larger value only its size."""
    if isinstance(value, dict):
        return f"{{{len(value)}}}"
    if isinstance(value, list):
        return f"[{len(value)}]"
    return str(value)
