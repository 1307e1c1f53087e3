"""``sotactl``: look at campaigns and steer them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sotad.cli import (
    analyze,
    bench,
    doctor,
    history,
    humanize,
    knowledge,
    ledgers,
    plan,
    report,
    simulate,
    status,
    steer,
    watch,
)
from sotad.cli.entry import Parser
from sotad.cli.entry import main as enter
from sotad.cli.options import add_dir

EPILOG = """\
examples:
  sotactl submit campaign.yaml         start a campaign
  sotactl status                       every campaign in one line
  sotactl watch demo                   follow one until it is closed
  sotactl approve demo plan:57         say yes to what a campaign waits for
  sotactl why 57                       why event 57 was decided so
  sotactl bench run http://HOST:PORT   measure any OpenAI-compatible endpoint
  sotactl bench compare rows.jsonl     who is ahead, under which conditions
  sotactl analyze trace A --against B  which kernels explain the difference of two servers
  sotactl simulate config.json         what the GPU allows for this model
  sotactl ledger verify DIR            prove that nothing was altered and no gate was skipped

exit status: 0 fine, 1 the answer is no, 2 bad usage or input, 3 no daemon, 4 a bug
"""


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="sotactl", description="Look at campaigns and steer them.", epilog=EPILOG)
    add_dir(top)
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for group in (
        steer,
        plan,
        status,
        watch,
        history,
        ledgers,
        report,
        bench,
        analyze,
        simulate,
        knowledge,
        humanize,
        doctor,
    ):
        group.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sotactl``; return the exit status."""
    return enter(parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
