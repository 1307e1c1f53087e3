"""``events`` and ``why``: what happened, and for which reasons."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from sotad.cli.options import client, places, subcommand
from sotad.cli.output import clean, emit_json
from sotad.cli.sources import source
from sotad.cli.watch import follow, one_line
from sotad.errors import BadInput

JSON = dict[str, Any]


def add(commands: Any) -> None:
    """Add the group to the parser."""
    _add_events(commands)
    what = "the reasons of one event: rule, guards, numbers, and what would have changed it"
    why = subcommand(commands, "why", what, "  sotactl events --type gap.decided\n  sotactl why 57")
    why.add_argument("seq", metavar="SEQ", type=int, help="the event's number")
    why.set_defaults(run=_why)


def _add_events(commands: Any) -> None:
    examples = (
        "  sotactl events --campaign demo --type gap.decided\n  sotactl events --after 100\n"
        "  sotactl events --follow --json | jq -c .payload"
    )
    what = "the ledger's events, one line each; with --json one JSON object per line"
    events = subcommand(commands, "events", what, examples)
    events.add_argument("--follow", action="store_true", help="go on with what happens next, until Ctrl-C")
    events.add_argument("--after", metavar="SEQ", type=int, default=0, help="only events after this one")
    events.add_argument("--campaign", metavar="CAMPAIGN", help="only of this campaign")
    events.add_argument("--type", metavar="TYPE", help="only this type; gap.* for all that begin so")
    events.set_defaults(run=_events)


def _events(args: argparse.Namespace) -> int:
    if args.after < 0:
        raise BadInput(f"--after {args.after}: below 0", "give the seq of an event")
    for event in _chosen(args):
        if args.type is None or _matches(event["type"], args.type):
            print(json.dumps(event, ensure_ascii=False) if args.json else one_line(event), flush=args.follow)
    return 0


def _chosen(args: argparse.Namespace) -> Iterator[JSON]:
    if args.follow:
        return follow(client(args), args.after, args.campaign)
    return source(places(args)).events(args.after, args.campaign)


def _matches(type_: str, wanted: str) -> bool:
    return type_.startswith(wanted[:-1]) if wanted.endswith("*") else type_ == wanted


def _why(args: argparse.Namespace) -> int:
    if args.seq < 1:
        raise BadInput(f"{args.seq}: events are numbered from 1", "see `sotactl events`")
    found = source(places(args)).why(args.seq)
    if args.json:
        emit_json(found)
    else:
        print("\n".join(clean(line) for line in found["text"].splitlines()))
    return 0
