"""The top level of a command: arguments in, an exit status out, and never a traceback for bad input.

0 fine, 1 the answer is no, 2 bad usage or input, 3 the daemon cannot be reached, 4 a bug; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from sotad.cli.output import emit_json, say
from sotad.errors import BadConfig, Bug, of

INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports for a command that SIGPIPE or SIGINT ended."""


class Parser(argparse.ArgumentParser):
    """argparse that answers a mistake in one line, and shows help texts as they were written."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Run the chosen subcommand; return its exit status."""
    try:
        args = parser.parse_args(argv)
        status = _run(args, parser.prog)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return BROKEN_PIPE


def _run(args: argparse.Namespace, prog: str) -> int:
    try:
        status: int = args.run(args)
        return status
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:  # the top level of the process
        return _report(error, prog, getattr(args, "json", False))


def _report(error: Exception, prog: str, as_json: bool) -> int:
    fault = of(error)
    if isinstance(fault, Bug) and fault is not error:
        import traceback

        traceback.print_exception(error)
    if as_json:
        emit_json(fault.as_json())
    lines = fault.problems if isinstance(fault, BadConfig) else [str(fault)]
    advice = f"; {fault.next}" if fault.next else ""
    for line in lines:
        say(f"{prog}: {line}{advice}")
    return fault.exit_status
