"""A scripted reviewer, named as what it is: fixed rules over the evidence, in the verdict's schema.

It says of an open issue that it is resolved when the fix was accepted, and of a criterion only what the attempt shows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
MAX_CHANGED_LINES = 200


def verdict(request: JSON) -> JSON:
    """ADVANCED only for an accepted patch with evidence; findings for what a reader must object to."""
    attempt = request["attempt"]
    said: JSON = {"control": "CONTINUE", "findings": [], "resolved": [], "criteria": _criteria(request)}
    if attempt["status"] != "accepted":
        summary = f"attempt {attempt['attempt_id']} was refused by {attempt['refused_by']}: {attempt['reason']}"
        return {**said, "mainline": "STALLED", "summary": summary}
    said |= {"findings": _findings(request), "resolved": [issue["id"] for issue in request["open_issues"]]}
    summary = f"{attempt['subject']}: gain {attempt['gain_pct']:.1f}% on the worst scenario, outputs unchanged"
    return {**said, "mainline": "ADVANCED", "summary": summary}


def _criteria(request: JSON) -> list[JSON]:
    """Where each criterion stands, asked for in a review of the whole loop."""
    if request["kind"] != "alignment":
        return []
    evidence = f"attempt {request['attempt']['attempt_id']} is {request['attempt']['status']}; the loop goes on"
    return [{"id": each["id"], "status": "PARTIAL", "evidence": evidence} for each in request["plan"]["criteria"]]


def _findings(request: JSON) -> list[JSON]:
    found = []
    changed = [line for line in request["diff"].splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    if len(changed) > MAX_CHANGED_LINES:
        text = f"{len(changed)} changed lines are not one minimal patch"
        found.append({"severity": "P1", "lane": "mainline", "text": text})
    if not request["attempt"]["citations"] and request["attempt"]["kind"] != "finalize":
        found.append({"severity": "P1", "lane": "mainline", "text": "the patch cites no row"})
    return found


def main(argv: list[str]) -> int:
    """``DRIVER REQUEST RESULT``; exit 0 with RESULT written."""
    _, request, result = argv
    Path(result).write_text(json.dumps(verdict(json.loads(Path(request).read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
