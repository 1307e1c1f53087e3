"""A stand-in for the command line of a coding agent: ``agent_standin.py FOLDER FLAGS...``.

It has no model. ``FOLDER/help`` and ``FOLDER/version`` are what it says of itself; ``FOLDER/steps`` is what it does, a
JSON list of steps. What it was given goes into ``FOLDER/given.json``.
"""

import json
import os
import sys
import time
from pathlib import Path


def said(value: object) -> None:
    print(value if isinstance(value, str) else json.dumps(value), flush=True)


def write(file: str, text: str) -> None:
    Path(file).write_text(text)


def attempt(file: str) -> None:
    """Write where it may not be allowed."""
    try:
        write(file, "x")
    except OSError:
        pass


def after(flag: str) -> str:
    """The value of a flag of the command line."""
    return sys.argv[sys.argv.index(flag) + 1]


def wait(file: str) -> None:
    while not Path(file).exists():
        time.sleep(0.02)


STEPS = {
    "wait": wait,
    "print": said,
    "complain": lambda text: print(text, file=sys.stderr, flush=True),
    "sleep": time.sleep,
    "write": lambda pair: write(*pair),
    "try": attempt,
    "answer": lambda text: write(after("--output-last-message"), text),
    "result": lambda text: write(sys.argv[-1], text),
    "exit": sys.exit,
}


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2:3] == ["--version"]:
        print((folder / "version").read_text())
    elif sys.argv[-1] == "--help":
        print((folder / "help").read_text())
    else:
        given = {"argv": sys.argv[2:], "env": dict(os.environ), "cwd": str(Path.cwd()), "prompt": sys.stdin.read()}
        (folder / "given.json").write_text(json.dumps(given))
        for step, value in json.loads((folder / "steps").read_text()):
            STEPS[step](value)


if __name__ == "__main__":
    main()
