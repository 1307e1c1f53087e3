"""The tests' reviewer: ``reviewer.py FOLDER REQUEST RESULT``.

``FOLDER/reviewer`` holds what it does, a line for each time it is asked, the last for good.
"""

import json
import sys
from pathlib import Path

from implementer import next_line  # beside this script

ADVANCED = {"mainline": "ADVANCED", "control": "CONTINUE", "findings": [], "summary": "the patch does what it says"}


def answer(mode: str, asked: dict) -> str:
    """What goes into the result file."""
    attempt = asked["attempt"]
    if asked["kind"] == "alignment":
        ids = [criterion["id"] for criterion in asked["plan"]["criteria"]]
        ADVANCED["criteria"] = [{"id": name, "status": "PARTIAL", "evidence": "behind"} for name in ids]
    ADVANCED["resolved"] = [issue["id"] for issue in asked["open_issues"]]
    if mode == "prose":
        return "Looks good to me! ADVANCED."
    if mode == "two verdicts":
        return json.dumps(ADVANCED) + "\n" + json.dumps({**ADVANCED, "mainline": "REGRESSED"})
    if mode == "no findings key":
        return json.dumps({key: value for key, value in ADVANCED.items() if key != "findings"})
    if mode == "unstorable":
        return json.dumps({**ADVANCED, "summary": "\ud800"})
    if mode == "deep":
        return "[" * 100_000
    if attempt["status"] != "accepted":
        return json.dumps({**ADVANCED, "mainline": "STALLED", "summary": "the attempt was refused"})
    return json.dumps(ADVANCED)


def main() -> int:
    folder, request, result = (Path(argument) for argument in sys.argv[1:])
    mode = next_line(folder / "reviewer")
    if mode == "crash":
        print("no connection to the reviewer", file=sys.stderr)
        return 5
    if mode != "nothing":
        result.write_text(answer(mode, json.loads(request.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
