"""``ledger verify|replay|export|show``: work on files, no daemon needed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import places, subcommand
from sotad.cli.output import emit_json, say, table, utc
from sotad.errors import BadInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.events import Event

JSON = dict[str, Any]
PATH_HELP = "state directory, ledger.db, or an export (default: the state directory)"


def add(commands: Any) -> None:
    """Add the group to the parser."""
    what = "verify, replay, export or show a ledger file; no daemon is needed"
    group = commands.add_parser(
        "ledger",
        help=what,
        description=what,
        epilog="examples:\n  sotactl ledger verify demo-state --key auditor/ledger.pub\n"
        "  sotactl ledger replay demo-state --until 2026-11-21T12:00:00Z\n"
        "  sotactl ledger export demo-state --out demo.jsonl",
    )
    actions = group.add_subparsers(metavar="ACTION", required=True)
    what = "prove that nothing was altered, cut off or decided against the rules"
    verify = _action(actions, "verify", _verify, what)
    verify.add_argument("--key", metavar="PUB", type=Path, help="the auditor's own copy of ledger.pub")
    verify.add_argument("--checkpoints", metavar="FILE", type=Path, help="a copy of checkpoints.jsonl")
    verify.add_argument("--artifacts", metavar="DIR", type=Path, help="where the artifacts are")
    replay = _action(actions, "replay", _replay, "print the state as it was, as canonical JSON", json=False)
    replay.add_argument("--until", metavar="SEQ|TIME", help="last event, or ISO 8601 time (UTC without a zone)")
    replay.add_argument("--campaign", metavar="CAMPAIGN", help="only the state of this one")
    export = _action(actions, "export", _export, "write every event and checkpoint as JSON Lines", json=False)
    export.add_argument("--out", metavar="FILE", type=Path, help="a new file (default: stdout)")
    show = _action(actions, "show", _show, "what is in it: campaigns and event types")
    show.add_argument(
        "--schema", action="store_true", help="the tables of a ledger.db instead: rows, columns, triggers"
    )


def _action(
    actions: Any, name: str, run: Callable[[argparse.Namespace], int], what: str, json: bool = True
) -> argparse.ArgumentParser:
    parser = subcommand(actions, name, what, json=json)
    parser.add_argument("path", metavar="PATH", type=Path, nargs="?", help=PATH_HELP)
    parser.set_defaults(run=run)
    return parser


def _file(args: argparse.Namespace) -> Path:
    """The file that PATH means."""
    path: Path = args.path or places(args).root
    found = path / "ledger.db" if path.is_dir() else path
    if not found.exists():
        raise NotFound(f"{found}: no such ledger", "name a state directory, a ledger.db or an export")
    return found


# --- verify -----------------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    from ledger.keys import PublicKey
    from ledger.verify import verify
    from sotad.daemon.start import machine_digest
    from statemachine.judge import Judge

    path = _file(args)
    key = args.key or _key_beside(path)
    for named in (args.checkpoints, args.artifacts):
        if named is not None and not named.exists():
            raise NotFound(f"{named}: no such file or directory", "check the path")
    found = verify(
        path,
        judge=Judge(),
        public_key=PublicKey.load(key) if key else None,
        artifacts=args.artifacts,
        checkpoints=args.checkpoints,
    )
    report = {**found.as_json(), "checked_under": machine_digest()}
    emit_json(report) if args.json else _print_report(path, report)
    return 0 if report["ok"] else 1


def _key_beside(path: Path) -> Path | None:
    key = path.parent / "keys" / "ledger.pub"
    return key if key.exists() else None


def _print_report(path: Path, report: JSON) -> None:
    anchored = report["anchored_to"]
    said = "no signature covers it" if anchored is None else f"signed up to event {anchored}"
    print(f"{path}: {'sound' if report['ok'] else 'NOT SOUND'}, {report['events']} events, {said}")
    for note in _notes(report):
        print(f"note: {note}")
    if report["problems"]:
        print(
            table(
                ((p["seq"], p["kind"], p["detail"]) for p in report["problems"]),
                ("EVENT", "PROBLEM", "DETAIL"),
            )
        )


def _notes(report: JSON) -> list[str]:
    notes: list[str] = list(report["notes"])
    other = [w for w in report["written_under"] if w["machine_digest"] != report["checked_under"]]
    if other:
        starts = ", ".join(str(w["from"]) for w in other)
        releases = ", ".join(sorted({w["version"] for w in other}))
        notes.append(f"the daemons of release {releases} that started at event {starts} had other rules than this")
    return notes


# --- replay -----------------------------------------------------------------------------------------------


def _replay(args: argparse.Namespace) -> int:
    from sotad.api.past import world_at
    from statemachine.state import World, to_json

    world = world_at(_file(args), _until(args.until))
    if args.campaign is not None:
        if args.campaign not in world.campaigns:
            raise NotFound(f"there is no campaign {args.campaign!r} up to there", "see `sotactl ledger show`")
        only = {args.campaign: world.campaigns[args.campaign]}
        world = World(world.seq, world.epoch, {}, {}, only)
    print(to_json(world))
    return 0


def _until(text: str | None) -> Callable[[Event], bool]:
    """Which events to take, up to the first one that is not."""
    if text is None:
        return lambda event: True
    if text.isascii() and text.isdigit():
        last = int(text)
        return lambda event: event.seq <= last
    time_ns = _nanoseconds(text)
    return lambda event: event.time_ns <= time_ns


def _nanoseconds(text: str) -> int:
    """An ISO 8601 time since 1970; without a zone it is UTC, so that it means the same on every machine."""
    from datetime import UTC, datetime, timedelta

    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--until {text!r}: neither a seq nor a time", "such as 57 or 2026-11-21T12:00:00Z") from None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


# --- export, show -------------------------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> int:
    from ledger.export import export

    path = _file(args)
    if args.out is None:
        export(path, sys.stdout.buffer)
        return 0
    with args.out.open("xb") as target:
        count = export(path, target)
    say(f"{count} events written to {args.out}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from collections import Counter

    from sotad.api.past import events_in

    path = _file(args)
    if args.schema:
        return _show_schema(path, args.json)
    types: Counter[str] = Counter()
    campaigns: dict[str, JSON] = {}
    head = ""
    for event in events_in(path):
        types[event.type] += 1
        found = campaigns.setdefault(event.campaign, {"events": 0, "first_ns": event.time_ns, "terminal": None})
        found["events"], found["last_ns"], head = event.campaign_seq, event.time_ns, event.hash
        found["terminal"] = event.payload["terminal"] if event.type == "campaign.closed" else found["terminal"]
    shown = {
        "path": str(path),
        "events": types.total(),
        "head": head,
        "campaigns": campaigns,
        "types": dict(types),
    }
    emit_json(shown) if args.json else _print_contents(shown)
    return 0


def _show_schema(path: Path, as_json: bool) -> int:
    """The database as SQLite sees it; an export has none."""
    from sqlite_utils import Database

    from ledger.schema import connect_reader

    database = Database(connect_reader(path))
    tables = {found.name: found.count for found in database.tables}
    if as_json:
        emit_json({"path": str(path), "tables": tables, "schema": database.schema})
    else:
        print(table(sorted(tables.items()), ("TABLE", "ROWS")), database.schema, sep="\n\n")
    return 0


def _print_contents(shown: JSON) -> None:
    print(f"{shown['path']}: {shown['events']} events, head {shown['head'][:16] or 'none'}\n")
    rows = [
        (
            name or "(daemon)",
            found["events"],
            utc(found["first_ns"]),
            utc(found["last_ns"]),
            found["terminal"],
        )
        for name, found in shown["campaigns"].items()
    ]
    print(table(rows, ("CAMPAIGN", "EVENTS", "FIRST", "LAST", "CLOSED AS")), end="\n\n")
    print(table(sorted(shown["types"].items()), ("TYPE", "EVENTS")))
