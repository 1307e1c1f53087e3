"""Scripted implementers, named as what they are: fixed recipes instead of a language model.

``scripted`` chooses among known repairs by the profile's evidence; ``cheater`` makes the target "faster" by
answering wrongly, so that the gates have something to refuse; ``none`` declines everything. The current
folder is the target's worktree.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sotad.agents.reviewer import verdict
from sotad.demo.defects import CHEAT, FIXES, Edit, choose_fix

JSON = dict[str, Any]


def answer(driver: str, request: JSON) -> JSON:
    """What the implementer says to a request; implementing commits in the current folder."""
    if driver == "none":
        return {"decline": "no implementer is configured"}
    if request["action"] == "propose":
        return _propose(driver, request)
    if request["action"] == "finalize":
        return {"summary": "nothing can be said more simply", "files": []}
    if request["action"] == "self_review":
        return verdict(request)
    fix = CHEAT if driver == "cheater" else next(f for f in FIXES if f.subject == request["hypothesis"])
    return _commit(fix, request)


def _propose(driver: str, request: JSON) -> JSON:
    tried = {attempt["hypothesis"] for attempt in request["tried"]}
    source = {str(path): path.read_text() for path in sorted(Path("refengine").rglob("*.py"))}
    fix = CHEAT if driver == "cheater" else choose_fix(request["rows"], source)
    if fix is None or fix.subject in tried:
        return {"decline": "no recipe fits these rows and this source" if fix is None else "the recipe was tried"}
    contract = {
        "objective": fix.subject,
        "criteria": [criterion["id"] for criterion in request["criteria"]][:1],
        "success": "the rows named cost less, and every answer stays the same",
        "recovery": {"cause": "the patches before this one did not meet the rows' cause", "flips": "a measured gain"},
    }
    ideas = [
        {"origin": "profile row", "reference": row["row_id"], "licence": "", "applicability": fix.subject}
        for row in request["rows"][:3]
    ]
    cited = [row["row_id"] for row in request["rows"]][:3]
    return {"rows": cited, "hypothesis": fix.subject, "contract": contract, "ideas": ideas}


def _commit(fix: Edit, request: JSON) -> JSON:
    path = Path(fix.file)
    text = path.read_text()
    if text.count(fix.old) == 1:
        path.write_text(text.replace(fix.old, fix.new))
        rows = ", ".join(row["row_id"] for row in request["rows"])
        body = f"Evidence: {rows}\nAttempt: {request['attempt_id']}"
        subprocess.run(["git", "commit", "--quiet", "--all", "-m", fix.subject, "-m", body], check=True, timeout=60)
    return {"summary": fix.subject, "files": [fix.file]}


def main(argv: list[str]) -> int:
    """``DRIVER REQUEST RESULT``; exit 0 with RESULT written."""
    driver, request, result = argv
    said = answer(driver, json.loads(Path(request).read_text()))
    Path(result).write_text(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
