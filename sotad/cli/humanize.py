"""``humanize import|follow``: take a loop that the Humanize plugin runs into the ledger, as something reported."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import client, subcommand
from sotad.cli.output import clean, emit_json, say, table

if TYPE_CHECKING:
    from sotad.humanize.taking import Taker

JSON = dict[str, Any]
STATUS = "status 1: a file was left out, or what the files say does not fit together"


def add(commands: Any) -> None:
    """Add the group to the parser."""
    what = "take a loop of the Humanize plugin into the ledger, as reported"
    group = commands.add_parser("humanize", help=what, description=what)
    actions = group.add_subparsers(metavar="ACTION", required=True)
    loop = ".humanize/rlcr/2026-11-22_08-00-00"
    for name, run, what, example in (
        ("import", _import, f"take in a loop as it is now; {STATUS}", f"  sotactl humanize import {loop}"),
        ("follow", _follow, f"take in each change until the loop ends; {STATUS}", f"  sotactl humanize follow {loop}"),
    ):
        parser = subcommand(actions, name, what, example)
        parser.add_argument("folder", metavar="DIR", type=Path, help="a loop's folder: .humanize/rlcr/<time>")
        parser.set_defaults(run=run)


def _import(args: argparse.Namespace) -> int:
    taken: list[JSON] = []
    taker = _taker(args, taken.append)
    taker.take_all()
    found = taker.overview()
    if args.json:
        emit_json({**found, "reported": taken})
    else:
        _show(found)
    return _status(found)


def _follow(args: argparse.Namespace) -> int:
    from sotad.humanize.hints import hinted
    from sotad.humanize.taking import follow

    taker = _taker(args, lambda told: print(_line(told, args.json), flush=True))
    try:
        with hinted(taker.folder) as wait:
            follow(taker, wait, say)
    finally:
        found = taker.overview()
        if args.json:
            print(json.dumps({"overview": found}, ensure_ascii=False), flush=True)
        else:
            _show(found)
    return _status(found)


def _taker(args: argparse.Namespace, told: Any) -> Taker:
    from sotad.humanize.taking import Taker, loop_folder

    door = client(args)
    folder = loop_folder(args.folder)
    door.get("/v1/status")  # nobody there: say so before anything is read
    return Taker(door, folder, told, say)


def _status(found: JSON) -> int:
    return 1 if found["troubles"] or found["problems"] else 0


def _line(told: JSON, as_json: bool) -> str:
    if as_json:
        return json.dumps(told, ensure_ascii=False)
    fields = told["fields"]
    said = [fields.get("verdict", ""), fields.get("control", ""), *fields["problems"]]
    return clean(f"{told['seq'] or '-':>6} {told['file']:<28} {'  '.join(part for part in said if part)}").rstrip()


def _show(found: JSON) -> None:
    rows = [
        (
            entry["round"],
            entry["verdict"],
            entry["control"],
            " ".join(f"{severity}:{count}" for severity, count in entry["findings"].items()),
            " ".join(entry["files"]),
            entry["problems"] or "",
        )
        for entry in found["rounds"]
    ]
    if rows:
        print(table(rows, ("round", "verdict", "control", "findings", "files", "problems")))
    print(clean(f"{found['loop']}: {found['terminal'] or found['status']}, {found['events']} files reported"))
    for entry in found["problems"]:
        say(f"{entry['file']}: {entry['problem']}")
