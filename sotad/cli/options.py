"""Options that many subcommands share."""

from __future__ import annotations

import argparse
from typing import Any

from sotad.client import Client
from sotad.paths import StateDir, state_dir

DIR_HELP = "state directory (default: $SOTAD_DIR, else /var/lib/sotad for root, else ~/.local/state/sotad)"


def add_dir(parser: argparse.ArgumentParser) -> None:
    """``--dir``: allowed before and after the subcommand."""
    parser.add_argument("--dir", metavar="DIR", default=argparse.SUPPRESS, help=DIR_HELP)


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON to stdout")


def subcommand(commands: Any, name: str, what: str, examples: str = "", json: bool = True) -> argparse.ArgumentParser:
    """A subcommand with ``--dir`` and, unless it has no table to print, ``--json``."""
    epilog = f"examples:\n{examples}" if examples else None
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what, epilog=epilog)
    add_dir(parser)
    if json:
        add_json(parser)
    return parser


def places(args: argparse.Namespace) -> StateDir:
    """The state directory that the arguments mean."""
    return state_dir(getattr(args, "dir", None))


def client(args: argparse.Namespace) -> Client:
    """A client of that directory's daemon."""
    return Client(places(args).socket)
