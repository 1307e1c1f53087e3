"""Runs a container runtime's client and ends its container, on the host: Python's standard library only.

    contained.py SETTINGS CLIENT...

SETTINGS is JSON. ``folders`` are made where they are missing, as podman mounts no others. ``secrets`` are names of
variables, whose values go to the client's standard input as lines, and into no argument, file or container setting.
``grace_s`` is how long what runs may take to end after SIGTERM; ``ask`` is the command that asks it to (empty: the
client passes SIGTERM on), ``end`` the one that ends it at once. ``end`` is run in every case, so that a client that
died leaves no container. Where they end with a signal's name both get the run's token as last argument. The exit
status is the client's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOKEN_VARIABLE = "SOTAD_RUN"  # as in shim.py: this program runs where nothing else of ours is
COMMAND_S = 60.0
POLL_S = 0.05


def main(argv: list[str]) -> int:
    """Run the client to its end."""
    settings: dict[str, Any] = json.loads(argv[0])
    values = {name: os.environ.pop(name) for name in settings["secrets"]}
    broken = [name for name, value in values.items() if "\n" in value]
    if broken:
        print(f"secret {', '.join(broken)} has more than one line; a container cannot take it", file=sys.stderr)
        return 125
    for folder in settings["folders"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
    asked: list[float] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.append(time.monotonic()))
    try:
        return _supervise(settings, argv[1:], values, asked)
    finally:
        _command(settings["end"])


def _supervise(settings: dict[str, Any], client: list[str], values: dict[str, str], asked: list[float]) -> int:
    # in a session of its own: a signal reaches it through us, once
    process = subprocess.Popen(client, stdin=subprocess.PIPE if values else subprocess.DEVNULL, start_new_session=True)
    if process.stdin is not None:
        _hand_over(process.stdin, values)
    told = False
    while process.poll() is None:
        if asked and not told:
            told = True
            if settings["ask"]:
                _command(settings["ask"])
            else:
                process.send_signal(signal.SIGTERM)
        if asked and time.monotonic() - asked[0] > settings["grace_s"]:
            _command(settings["end"])
            process.kill()
        time.sleep(POLL_S)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _hand_over(pipe: Any, values: dict[str, str]) -> None:
    """Write the secrets as lines, then a dot; a client that is gone already takes none."""
    try:
        pipe.write("".join(f"{name}={value}\n" for name, value in values.items()).encode() + b".\n")
        pipe.close()
    except BrokenPipeError:
        pass


def _command(argv: list[str]) -> None:
    """Run a command of the runtime; that there is nothing to end is no failure."""
    token = [f"{TOKEN_VARIABLE}={os.environ.get(TOKEN_VARIABLE, '')}"] if argv[-1] in ("TERM", "KILL") else []
    try:
        subprocess.run([*argv, *token], stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"contained: {argv[0]}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
