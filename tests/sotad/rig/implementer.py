"""The tests' implementer: ``implementer.py FOLDER REQUEST RESULT`` in the target's worktree.

``FOLDER/implementer`` holds what it does, a line for each time it is asked, the last for good: ``patch`` (lower the
constant and commit) or one of the ways to fail.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path


def next_line(path: Path) -> str:
    """The first line; it is taken off unless it is the last."""
    first, _, rest = path.read_text().strip().partition("\n")
    if rest:
        path.write_text(rest)
    return first


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


def lower_the_constant(commit: bool) -> None:
    source = Path("refengine/work.py")
    source.write_text(re.sub(r"^TOKEN_WORK = \d+", "TOKEN_WORK = 100", source.read_text(), flags=re.MULTILINE))
    if commit:
        subprocess.run(["git", "commit", "-qam", "Do less work per token"], check=True, timeout=30)


def implement(mode: str, folder: Path) -> None:
    if mode == "wait":
        wait_for(folder / "go")
    if mode == "outside":
        Path("README.md").write_text("changed\n")
        subprocess.run(["git", "add", "--all"], check=True, timeout=30)
    if mode == "wrong tokens":
        source = Path("refengine/work.py")
        source.write_text(source.read_text().replace("300 + int", "301 + int"))
    if mode == "cannot start":
        source = Path("refengine/__main__.py")
        source.write_text(source.read_text().replace("    flags = parser.parse_args()\n", "    sys.exit(7)\n"))
    lower_the_constant(commit=mode != "uncommitted")


def main() -> int:
    folder, request, result = (Path(argument) for argument in sys.argv[1:])
    mode, asked = next_line(folder / "implementer"), json.loads(request.read_text())
    if mode == "crash":
        print("the model is not available", file=sys.stderr)
        return 3
    if mode == "silent":
        wait_for(folder / "never")
    if mode == "ask":
        answer = {"question": "may the tokens stay the same?"}
    elif mode == "decline":
        answer = {"decline": "nothing comes to mind"}
    elif asked["action"] == "propose":
        hypothesis = "\ud800 is no text" if mode == "unstorable" else "a token costs too much work"
        contract = {"objective": "less work a token", "criteria": ["AC-1"], "success": "the row is cheaper"}
        if asked["recovery"]:
            contract["recovery"] = {"cause": "the rounds before did not meet the row", "flips": "a gain"}
        idea = {"origin": "profile row", "reference": "work.py", "licence": "", "applicability": "here"}
        answer = {"rows": [row["row_id"] for row in asked["rows"]], "hypothesis": hypothesis}
        answer |= {"contract": contract, "ideas": [idea]}
    elif asked["action"] == "finalize" and mode != "simplify":
        answer = {"summary": "nothing to simplify", "files": []}
    else:
        implement(mode, folder)
        if mode == "commit and crash":
            return 4
        files = ["refengine/work.py", *(["README.md"] if mode == "outside" else [])]
        if mode == "cannot start":
            files.append("refengine/__main__.py")
        answer = {"summary": "the constant is lower", "files": files}
    result.write_text("done" if mode == "no object" else json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
