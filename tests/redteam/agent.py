"""The red team's implementer: ``agent.py DESK REQUEST RESULT`` in its workspace.

``DESK/implementer`` holds what it plays, a line ``MODULE NAME`` for each time it is asked to change something, the
last for good. MODULE, beside this file, has ``PLAYS``: name to a function (asked, desk) that does it and returns the
answer: a JSON object, text to be written as it is, or None for no answer. When it is asked for an idea the line is
left where it is, and ``PROPOSALS`` of the module answers in the same way; by default with an honest proposal.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def line_of(path: Path, take: bool) -> tuple[str, str]:
    """Module and name of the first line; it is taken off when asked for, unless it is the last."""
    first, _, rest = path.read_text().strip().partition("\n")
    if rest and take:
        path.write_text(rest)
    module, _, name = first.partition(" ")
    return module, name


def honest_proposal(asked: dict[str, Any], desk: Path) -> dict[str, Any]:
    """Every row that is open, one objective, one criterion, and an idea where ideas are owed."""
    contract: dict[str, Any] = {
        "objective": "less work a token",
        "criteria": [asked["criteria"][0]["id"]],
        "success": "the row is cheaper",
    }
    if asked["recovery"]:
        contract["recovery"] = {"cause": "the rounds before did not meet the row", "flips": "a gain"}
    idea = {"origin": "profile row", "reference": "work.py", "licence": "", "applicability": "here"}
    rows = [row["row_id"] for row in asked["rows"]]
    return {"rows": rows, "hypothesis": "a token costs too much work", "contract": contract, "ideas": [idea]}


def main() -> int:
    desk, request, result = (Path(argument) for argument in sys.argv[1:])
    asked = json.loads(request.read_text())
    proposing = asked["action"] == "propose"
    module, name = line_of(desk / "implementer", take=not proposing)
    plays = importlib.import_module(module)
    play = plays.PROPOSALS.get(name, honest_proposal) if proposing else plays.PLAYS[name]
    answer = play(asked, desk)
    if answer is not None:
        result.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
