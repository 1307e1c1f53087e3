"""``sotad``: run the daemon, and prepare what it needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from sotad.cli import prepare, running
from sotad.cli.entry import Parser
from sotad.cli.entry import main as enter
from sotad.cli.options import add_dir, subcommand
from sotad.cli.output import emit_json

EPILOG = """\
examples:
  sotad demo --dir demo-state          a whole campaign on this machine, in minutes
  sotad init && sotad start --detach   a daemon of your own
  sotad validate campaign.yaml         find mistakes before they cost GPU hours
  sotad stop

exit status: 0 fine, 1 the answer is no, 2 bad usage or input, 3 no daemon, 4 a bug
"""


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="sotad", description="Run the daemon that runs serving-performance campaigns.", epilog=EPILOG)
    add_dir(top)
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    running.add(commands)
    prepare.add(commands)
    _add_demo(commands)
    version = subcommand(commands, "version", "print the version")
    version.set_defaults(run=_version)
    return top


def _add_demo(commands: Any) -> None:
    what = "a real campaign on this machine: reference engine, benchmarks, patch, review, report"
    examples = "  sotad demo                     state in demo-state/TIME\n  sotad demo --implementer cheater --json"
    demo = subcommand(commands, "demo", what, examples)
    demo.add_argument(
        "--defect",
        metavar="NAME",
        help="which defect the target engine starts with: full-logits (compute, the default), "
        "token-budget (scheduling) or kv-copy (memory traffic)",
    )
    implementers = ("scripted", "none", "cheater")
    demo.add_argument("--implementer", choices=implementers, default="scripted", help="who writes the patches")
    demo.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    from sotad.demo.run import main as run_demo

    args.dir = getattr(args, "dir", None)
    status: int = run_demo(args)
    return status


def _version(args: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("sotad")
    except PackageNotFoundError:
        found = "unknown (not installed)"
    python = ".".join(map(str, sys.version_info[:3]))
    emit_json({"version": found, "python": python}) if args.json else print(f"sotad {found}, Python {python}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sotad``; return the exit status."""
    return enter(parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
