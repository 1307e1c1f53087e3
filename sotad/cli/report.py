"""``report``: what a campaign came to, from its ledger and artifacts alone."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sotad.cli.options import places, subcommand
from sotad.cli.output import emit_json, say
from sotad.errors import BadInput, IntegrityFault, NotFound
from sotad.paths import StateDir

if TYPE_CHECKING:
    from ledger.artifacts import Artifacts
    from statemachine.state import Campaign

JSON = dict[str, Any]
TEXT = "final_report.md"


def add(commands: Any) -> None:
    """Add the group to the parser."""
    examples = (
        "  sotactl report demo\n  sotactl report demo --out ./demo-report\n"
        "  sotactl report demo --json | jq -r .verdict"
    )
    parser = subcommand(commands, "report", "a campaign's report; status 1 while it has none", examples)
    parser.add_argument("campaign", metavar="CAMPAIGN")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write every file of the report there")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from ledger.artifacts import Artifacts

    here = places(args)
    c = _campaign(here, args.campaign)
    store = Artifacts(here.artifacts)
    written = [_write(store, file, args.out) for file in c.report] if args.out else []
    if args.json:
        emit_json(_outcome(c, here, written))
    elif c.report:
        _print(store, c, args.out)
    if not c.report:
        say(f"{c.id} is in phase {c.phase}: the report is written when it stops")
    return 0 if c.report else 1


def _campaign(here: StateDir, name: str) -> Campaign:
    from sotad.api.past import world_at

    if not here.ledger.exists():
        raise NotFound(f"{here.ledger}: no such ledger", "name its state directory with --dir")
    campaigns = world_at(here.ledger).campaigns
    if name not in campaigns:
        known = ", ".join(campaigns) or "none"
        raise NotFound(f"there is no campaign {name!r} in {here.ledger}", f"there is: {known}")
    return campaigns[name]


def _outcome(c: Campaign, here: StateDir, written: list[Path]) -> JSON:
    from sotad.report.outcome import summary

    places_ = {"ledger": str(here.ledger), "report": c.report, "written": [str(path) for path in written]}
    return {**summary(c), "phase": c.phase, **places_}


def _print(store: Artifacts, c: Campaign, out: Path | None) -> None:
    if out is not None:
        print(out)
        return
    named = (file for file in c.report if PurePosixPath(file.get("path", "")).name == TEXT)
    chosen = next(named, c.report[0])
    print(store.read(chosen["sha256"]).decode("utf-8", "replace"), end="")


def _write(store: Artifacts, file: JSON, out: Path) -> Path:
    """Put one file under ``out``, at the path that its event names."""
    name = PurePosixPath(file.get("path") or file["sha256"])
    if name.is_absolute() or ".." in name.parts:
        raise IntegrityFault(f"the report names a file outside of itself: {name}")
    target = out.joinpath(*name.parts[1:] if name.parts[0] == "reports" else name.parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(file["sha256"]))
    except OSError as error:
        raise BadInput(f"{target}: {error.strerror}", "name a folder that can be written") from None
    return target
