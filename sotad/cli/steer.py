"""``submit``, ``pause``, ``resume``, ``cancel``, ``approve``, ``answer``: what an operator says to the daemon."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sotad.api.forecast import in_full
from sotad.cli.options import client, subcommand
from sotad.cli.output import clean, emit_json, say
from sotad.errors import BadInput

APPROVE_TEXT = """\
say yes or no to what a campaign waits for

`sotactl status CAMPAIGN` lists the subjects: plan:SEQ is an amendment of the plan (read it with
`sotactl plan CAMPAIGN --proposed plan:SEQ`), attempt:ID a patch that gains more than is believed without a look,
round:N a round that its implementer reviewed itself, issue:ID a finding that nobody has seen mended. With the last
open subject the campaign goes on by itself. Your name and the reason go into the ledger."""
APPROVE_EXAMPLES = """\
  sotactl approve demo plan:57
  sotactl approve demo attempt:a3 --deny --reason "the cache was warm"
"""
ANSWER_TEXT = """\
answer a question that a campaign asks

`sotactl status CAMPAIGN` lists the questions with their subjects. With the last open subject the campaign goes on by
itself. Your name and the answer go into the ledger, and the agents are told."""
ANSWER_EXAMPLES = """\
  sotactl answer demo question:DEC-1 "keep the eager path"
  sotactl answer demo question:DEC-1 - < answer.txt"""


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
    approve = _word(commands, "approve", APPROVE_TEXT, APPROVE_EXAMPLES)
    approve.add_argument("--deny", action="store_true", help="say no")
    approve.add_argument("--reason", default="", help="goes into the ledger")
    approve.set_defaults(body=lambda args: {"approved": not args.deny, "reason": args.reason})
    answer = _word(commands, "answer", ANSWER_TEXT, ANSWER_EXAMPLES)
    answer.add_argument("text", metavar="TEXT", help="the answer; - for stdin")
    answer.set_defaults(body=lambda args: {"text": sys.stdin.read() if args.text == "-" else args.text})


def _order(commands: Any, verb: str, what: str) -> argparse.ArgumentParser:
    parser = subcommand(commands, verb, what, f"  sotactl {verb} demo")
    parser.add_argument("campaign", metavar="CAMPAIGN")
    parser.set_defaults(run=_steer, verb=verb)
    return parser


def _word(commands: Any, verb: str, text: str, examples: str) -> argparse.ArgumentParser:
    parser = subcommand(commands, verb, text.partition("\n")[0], examples)
    parser.description = text
    parser.add_argument("campaign", metavar="CAMPAIGN")
    parser.add_argument("subject", metavar="SUBJECT", help="as `sotactl status CAMPAIGN` lists it")
    parser.set_defaults(run=_say, verb=verb)
    return parser


def _submit(args: argparse.Namespace) -> int:
    try:
        text = args.config.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{args.config}: not UTF-8 text: {error.reason}", "give a campaign YAML") from None
    source = str(args.config.absolute())
    daemon = client(args)
    answer = daemon.post("/v1/campaigns", {"text": text, "source": source})
    if args.json:
        emit_json(answer)
        return 0
    print(answer["campaign"])
    begun = daemon.campaign(answer["campaign"])
    for line in in_full(begun["expected"]) if begun else ():
        say(line)
    return 0


def _steer(args: argparse.Namespace) -> int:
    answer = client(args).post(f"/v1/campaigns/{quote(args.campaign, safe='')}/{args.verb}", args.body(args))
    if args.json:
        emit_json(answer)
    else:
        print(f"{args.verb}: {answer['campaign']}")
    return 0


def _say(args: argparse.Namespace) -> int:
    """Send a word; tell what the campaign waits for after it."""
    said = {"subject": args.subject, **args.body(args)}
    answer = client(args).post(f"/v1/campaigns/{quote(args.campaign, safe='')}/{args.verb}", said)
    if args.json:
        emit_json(answer)
        return 0
    print(f"{args.verb}: {answer['campaign']} {answer['subject']}; the campaign is in {answer['phase']}")
    for subject, text in answer["waits"].items():
        print(clean(f"still open: {subject}: {text}"))
    return 0
