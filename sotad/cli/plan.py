"""``plan`` and ``amend``: look at a campaign's plan, and propose another one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sotad.cli.options import client, places, subcommand
from sotad.cli.output import clean, emit_json
from sotad.cli.sources import source
from sotad.errors import BadInput, IllegalNow, NotFound

JSON = dict[str, Any]
YAML_HEAD = "# Change what is between `criteria` and `notes`; goal, draft, baseline, decision and rounds stay.\n"
PLAN_EXAMPLES = """\
  sotactl plan demo                        read it
  sotactl plan demo --yaml > plan.yaml     take it out to change it
  sotactl plan demo --proposed plan:57     read what an amendment would put in its place"""
AMEND_EXAMPLES = """\
  sotactl plan demo --yaml > plan.yaml
  $EDITOR plan.yaml
  sotactl amend demo plan.yaml --reason "the second kernel is out of reach"
  sotactl approve demo plan:57             the subject that amend names"""
AMEND_TEXT = """\
propose another plan for a campaign

FILE holds the whole plan, as YAML or JSON; - is stdin. Criteria, boundary, tasks, milestones, hints, decisions and
notes may change. The goal, the draft, the baseline, the decision rule and the rounds may not: the measure of success
is not moved. The plan in force stays until a person approves the proposal."""


def add(commands: Any) -> None:
    """Add the group to the parser."""
    plan = subcommand(commands, "plan", "the plan that a campaign follows", PLAN_EXAMPLES)
    plan.add_argument("campaign", metavar="CAMPAIGN")
    plan.add_argument("--yaml", action="store_true", help="as YAML, to be changed and sent back with `sotactl amend`")
    plan.add_argument("--proposed", metavar="SUBJECT", help="the plan of an amendment that waits for approval")
    plan.set_defaults(run=_plan)
    amend = subcommand(commands, "amend", "propose another plan for a campaign", AMEND_EXAMPLES)
    amend.description = AMEND_TEXT
    amend.add_argument("campaign", metavar="CAMPAIGN")
    amend.add_argument("file", metavar="FILE", help="the whole new plan; - for stdin")
    amend.add_argument("--reason", required=True, help="why it has to change; goes into the ledger")
    amend.set_defaults(run=_amend)


def _plan(args: argparse.Namespace) -> int:
    if args.json and args.yaml:
        raise BadInput("--json and --yaml exclude each other", "give one of them")
    state = source(places(args)).campaign(args.campaign)
    plan = _proposed(state, args.proposed) if args.proposed else _in_force(state)
    if args.json:
        emit_json(plan)
    elif args.yaml:
        import yaml

        print(YAML_HEAD + yaml.safe_dump(plan, sort_keys=False, allow_unicode=True, width=110), end="")
    else:
        from sotad.plan.document import markdown

        print(clean(_heading(state, args.proposed, plan) + markdown(plan)), end="")
    return 0


def _in_force(state: JSON) -> JSON:
    """The plan with what people have decided in it."""
    from sotad.plan.compose import decided

    if not state["plan"]:
        raise IllegalNow(f"campaign {state['id']!r} has no plan yet: it is made after the baseline")
    return decided(state["plan"]["plan"], state["answers"])


def _proposed(state: JSON, subject: str) -> JSON:
    found = state["amendments"].get(subject.removeprefix("plan:"))
    if found is None:
        names = ", ".join(f"plan:{seq}" for seq in state["amendments"]) or "none"
        raise NotFound(f"no amendment {subject!r} waits; there is {names}", "name one that waits")
    plan: JSON = found["plan"]
    return plan


def _heading(state: JSON, subject: str | None, plan: JSON) -> str:
    """Which plan it is; of a proposal what it changes."""
    if not subject:
        return f"<!-- version {state['plan']['version']}, {state['plan']['digest'][:12]} -->\n"
    from statemachine.plan import changes

    why = state["amendments"][subject.removeprefix("plan:")]["reason"]
    lines = [f"proposed because: {why}", *changes(state["plan"]["plan"], plan)]
    return "".join(f"- {line}\n" for line in lines) + "\n"


def _amend(args: argparse.Namespace) -> int:
    from sotad.plan.amendment import amended

    daemon, plan = client(args), _read(args.file)
    target = f"/v1/campaigns/{quote(args.campaign, safe='')}"
    if now := daemon.get(target)["plan"]:
        amended(now["plan"], plan)  # its problems one by one; the daemon asks again
    answer = daemon.post(f"{target}/amend", {"plan": plan, "reason": args.reason})
    if args.json:
        emit_json(answer)
        return 0
    for line in answer["changes"]:
        print(clean(line))
    print(f"proposed; it is in force once somebody says: sotactl approve {answer['campaign']} {answer['subject']}")
    return 0


def _read(name: str) -> Any:
    """The plan in a file as JSON values.

    Raises:
        BadInput: it is no text, no YAML, or holds what JSON does not know.
    """
    import yaml

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        return json.loads(json.dumps(yaml.safe_load(text), allow_nan=False))
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: not UTF-8 text: {error.reason}", "give a plan as YAML or JSON") from None
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise BadInput(f"{name}: no YAML: {told}", "correct it there") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{name}: holds what a plan cannot: {error}", "put dates and the like in quotes") from None
