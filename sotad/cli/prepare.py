"""``init`` and ``validate``: configuration, before there is a daemon."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sotad.cli.options import places, subcommand
from sotad.cli.output import emit_json, say
from sotad.errors import BadConfig, BadInput

EXAMPLE = "example-campaign.yaml"


def add(commands: Any) -> None:
    """Add the group to the parser."""
    what = "make a state directory with commented settings and an example campaign"
    examples = "  sotad init\n  sotad init ./state && sotad start --dir ./state"
    init = subcommand(commands, "init", what, examples)
    init.add_argument("where", metavar="DIR", nargs="?", help="default: the state directory")
    init.set_defaults(run=_init)
    what = "check campaign files; one line per mistake"
    validate = subcommand(commands, "validate", what, "  sotad validate campaigns/*.yaml")
    validate.add_argument("configs", metavar="CONFIG", nargs="+", type=Path)
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
    problems = {str(path): _problems(path) for path in args.configs}
    if args.json:
        emit_json({"ok": not any(problems.values()), "problems": problems})
    for path, found in problems.items():
        for line in found:
            say(line)
        if not found and not args.json:
            print(f"{path}: fine")
    return 2 if any(problems.values()) else 0


def _problems(path: Path) -> list[str]:
    from sotad.config import load_campaign

    try:
        load_campaign(path)
    except BadConfig as error:
        return error.problems
    return []
