"""``init`` and ``validate``: configuration, before there is a daemon."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.api.forecast import in_full, together
from sotad.cli.options import places, subcommand
from sotad.cli.output import emit_json, say
from sotad.errors import BadInput

if TYPE_CHECKING:
    from sotad.config.validation import Report

EXAMPLE = "example-campaign.yaml"


def add(commands: Any) -> None:
    """Add the group to the parser."""
    what = "make a state directory with commented settings and an example campaign"
    examples = "  sotad init\n  sotad init ./state && sotad start --dir ./state"
    init = subcommand(commands, "init", what, examples)
    init.add_argument("where", metavar="DIR", nargs="?", help="default: the state directory")
    init.set_defaults(run=_init)
    what = "check campaign files; one line per mistake"
    examples = "  sotad validate campaigns/\n  sotad validate --help-dir help/ --print-commands campaign.yaml"
    validate = subcommand(commands, "validate", what, examples)
    validate.add_argument("configs", metavar="CONFIG", nargs="+", type=Path, help="a file, or a folder of *.yaml")
    saved = "folder of the servers' saved help texts (*.txt): flag names and choices are checked against them"
    validate.add_argument("--help-dir", metavar="DIR", type=Path, help=saved)
    validate.add_argument("--print-commands", action="store_true", help="print every candidate's launch command")
    validate.set_defaults(run=_validate)


def _init(args: argparse.Namespace) -> int:
    if args.where is not None:
        args.dir = args.where
    from sotad.shipped import shipped

    root = places(args).root
    wanted = {root / "sotad.yaml": shipped("sotad.yaml"), root / EXAMPLE: Path(__file__).with_name(EXAMPLE)}
    for path in wanted:
        if path.exists():
            raise BadInput(f"{path} is there already", "edit it, or choose another DIR")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, template in wanted.items():
        path.write_bytes(template.read_bytes())
    if args.json:
        emit_json({"written": [str(path) for path in wanted]})
    else:
        print("\n".join(str(path) for path in wanted))
    return 0


def _validate(args: argparse.Namespace) -> int:
    """All files are checked, and all their mistakes told, before the status says no."""
    from sotad.config.validation import validate

    reports = {str(path): validate(path, args.help_dir) for path in _files(args.configs)}
    if args.json:
        emit_json(_as_json(reports, args.print_commands))
    for path, report in reports.items():
        for line in report.errors:
            say(line)
        for line in report.warnings:
            say(f"warning: {line}")
        if not args.json:
            _print(path, report, args.print_commands, alone=len(reports) == 1)
    return 2 if any(report.errors for report in reports.values()) else 0


def _files(given: Sequence[Path]) -> list[Path]:
    """The named files, and every YAML file below the named folders."""
    files: list[Path] = []
    for path in given:
        found = sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
        if not found:
            raise BadInput(f"{path}: no *.yaml or *.yml below this folder", "name a campaign file")
        files += found
    return list(dict.fromkeys(files))


def _as_json(reports: Mapping[str, Report], with_commands: bool) -> dict[str, Any]:
    shown = {
        "ok": not any(report.errors for report in reports.values()),
        "problems": {path: report.errors for path, report in reports.items()},
        "warnings": {path: report.warnings for path, report in reports.items()},
        "expected": {path: report.expected for path, report in reports.items() if report.expected},
    }
    if with_commands:
        shown["commands"] = {path: [found._asdict() for found in report.commands] for path, report in reports.items()}
    return shown


def _print(path: str, report: Report, with_commands: bool, *, alone: bool) -> None:
    count = len(report.warnings)
    if not report.errors:
        print(f"{path}: fine" + (f", {count} warning{'s' * (count > 1)}" if count else ""))
        print("\n".join(in_full(report.expected) if alone else [together(report.expected)]))
    if with_commands:
        for found in report.commands:
            left_out = f"  # left out: {', '.join(found.dropped)}" if found.dropped else ""
            print(f"{found.framework} {found.candidate}: {shlex.join(found.argv)}{left_out}")
