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


def token_range(text: str) -> tuple[int, int]:
    """``FIRST,LAST``: the token ids that random prompts are drawn from; the second is the one behind the last.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    try:
        first, last = (int(token) for token in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: two numbers, as in 300,30000") from None
    return first, last


def add_tokens(parser: Any) -> None:
    """``--tokens``; ``parser`` may be a group of one."""
    what = "token ids of random prompts: give the model's vocabulary where it is smaller (default: 300,30000)"
    parser.add_argument("--tokens", default=(300, 30000), type=token_range, metavar="FIRST,LAST", help=what)


def places(args: argparse.Namespace) -> StateDir:
    """The state directory that the arguments mean."""
    return state_dir(getattr(args, "dir", None))


def client(args: argparse.Namespace) -> Client:
    """A client of that directory's daemon."""
    return Client(places(args).socket)
