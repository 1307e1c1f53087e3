"""An agent that plays a script: ``player.py FOLDER ROLE REQUEST RESULT``, with the standard library alone.

``FOLDER/ROLE.json`` holds, for each action that it may be asked (``propose``, ``implement``, ``finalize``, ``review``,
``self_review``), a list of steps: one a call, the last for good. A step is an object, every key of it optional:

    print     lines for standard output
    edits     [[path, old, new], ...] in the working folder; they are committed. New files have an empty ``old``
    amend     true: into the commit that lies there, instead of a new one
    write     {path: text}: files outside, written where the sandbox lets it; what it refuses is passed over
    answer    replaces keys of the answer that an honest agent would give
    say       the result file's text, word for word; null for no file at all
    exit      end with this status;   hang    end never

Each request is added to ``FOLDER/asked.jsonl``.
"""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def next_step(script: Path, action: str) -> dict:
    """The first step of the action; it is taken off unless it is the last."""
    plan = json.loads(script.read_text())
    steps = plan.get(action) or [{}]
    plan[action] = steps[1:] or steps
    script.write_text(json.dumps(plan))
    return steps[0]


def proposal(asked: dict) -> dict:
    contract = {"objective": "less work a token", "criteria": ["AC-1"], "success": "the row is cheaper"}
    if asked["recovery"]:
        contract["recovery"] = {"cause": "the rounds before did not meet the row", "flips": "a gain"}
    rows = [row["row_id"] for row in asked["rows"]][:1]
    return {"rows": rows, "hypothesis": "a token costs too much work", "contract": contract}


def verdict(asked: dict) -> dict:
    said = {"mainline": "ADVANCED", "control": "CONTINUE", "findings": [], "summary": "it does what it says"}
    if asked["attempt"]["status"] != "accepted":
        said["mainline"] = "STALLED"
    said["resolved"] = [issue["id"] for issue in asked["open_issues"]]
    if asked["kind"] == "alignment":
        ids = [criterion["id"] for criterion in asked["plan"]["criteria"]]
        said["criteria"] = [{"id": name, "status": "PARTIAL", "evidence": "on its way"} for name in ids]
    return said


def edit(edits: list, amend: bool) -> None:
    for path, old, new in edits:
        source = Path(path)
        text = source.read_text() if old else ""
        assert old in text, f"{path} has no {old!r}"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text.replace(old, new) if old else new)
    subprocess.run(["git", "add", "--all"], check=True, timeout=30)
    how = ["--amend"] if amend else []
    subprocess.run(["git", "commit", *how, "--quiet", "--message", "Change the engine"], check=True, timeout=30)


def honest(asked: dict, step: dict) -> dict:
    """What an agent without tricks answers."""
    if asked["action"] == "propose":
        return proposal(asked)
    if asked["action"] in ("implement", "finalize"):
        return {"summary": "as proposed", "files": sorted({path for path, _, _ in step.get("edits", [])})}
    return verdict(asked)


def main() -> int:
    folder, role, request, result = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    asked = json.loads(request.read_text())
    with (folder / "asked.jsonl").open("a") as log:
        log.write(json.dumps(asked) + "\n")
    step = next_step(folder / f"{role}.json", asked["action"])
    for line in step.get("print", []):
        print(line, flush=True)
    for path, text in step.get("write", {}).items():
        with suppress(OSError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text)
    if step.get("edits"):
        edit(step["edits"], bool(step.get("amend")))
    while step.get("hang"):
        time.sleep(1)
    said = step.get("say", json.dumps({**honest(asked, step), **step.get("answer", {})}))
    if said is not None:
        result.write_text(said)
    return int(step.get("exit", 0))


if __name__ == "__main__":
    sys.exit(main())
