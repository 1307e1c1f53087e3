"""``submit``, ``pause``, ``resume``, ``cancel``: what an operator asks of the daemon."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sotad.cli.options import client, subcommand
from sotad.cli.output import emit_json
from sotad.errors import BadInput


def add(commands: Any) -> None:
    """Add the group to the parser."""
    examples = "  sotactl submit campaign.yaml\n  sotactl submit campaign.yaml --json | jq -r .campaign"
    submit = subcommand(commands, "submit", "start a campaign", examples)
    submit.add_argument("config", type=Path, metavar="CONFIG", help="campaign YAML; see `sotad init`")
    submit.set_defaults(run=_submit)
    pause = _order(commands, "pause", "halt a campaign where it is; it lets go of the host")
    pause.add_argument("--reason", default="asked by the operator", help="goes into the ledger")
    pause.set_defaults(body=lambda args: {"reason": args.reason})
    resume = _order(commands, "resume", "let a paused or blocked campaign go on")
    resume.set_defaults(body=lambda args: {})
    cancel = _order(commands, "cancel", "end a campaign: it cleans up, reports and closes as cancelled")
    cancel.add_argument("--confirm", action="store_true", help="also when it is stopping already")
    cancel.set_defaults(body=lambda args: {"confirmed": args.confirm})


def _order(commands: Any, verb: str, what: str) -> argparse.ArgumentParser:
    parser = subcommand(commands, verb, what, f"  sotactl {verb} demo")
    parser.add_argument("campaign", metavar="CAMPAIGN")
    parser.set_defaults(run=_steer, verb=verb)
    return parser


def _submit(args: argparse.Namespace) -> int:
    try:
        text = args.config.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{args.config}: not UTF-8 text: {error.reason}", "give a campaign YAML") from None
    source = str(args.config.absolute())
    answer = client(args).post("/v1/campaigns", {"text": text, "source": source})
    if args.json:
        emit_json(answer)
    else:
        print(answer["campaign"])
    return 0


def _steer(args: argparse.Namespace) -> int:
    answer = client(args).post(f"/v1/campaigns/{quote(args.campaign, safe='')}/{args.verb}", args.body(args))
    if args.json:
        emit_json(answer)
    else:
        print(f"{args.verb}: {answer['campaign']}")
    return 0
