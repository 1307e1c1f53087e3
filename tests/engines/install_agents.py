"""Install the real command line of a coding agent: `python tests/engines/install_agents.py codex|claude [FOLDER]`.

Needs Node 18 or later and npm; installs two packages (400 MB for codex, 240 MB for claude) and nothing outside FOLDER.
A finished folder carries a stamp of the version, so a second call returns at once. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = {"codex": "@openai/codex", "claude": "@anthropic-ai/claude-code"}
VERSIONS = {"codex": "0.169.0", "claude": "2.1.197"}
STAMP = "agent.stamp"
PATIENCE_S = 300


class InstallError(Exception):
    """The tool is not to be had here; the text says why."""


def install(tool: str, folder: Path) -> Path:
    """Make `folder` hold a working `tool`; return its program.

    Raises:
        InstallError: npm is missing or failed, or what it installed does not run.
    """
    version, program, stamp = VERSIONS[tool], folder / "node_modules" / ".bin" / tool, folder / STAMP
    if stamp.exists() and stamp.read_text() == version:
        return program
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("no npm on PATH: install Node 18 or later")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    run([npm, "install", *quiet, "--prefix", str(folder), f"{PACKAGES[tool]}@{version}"], dict(os.environ))
    found = run([str(program), "--version"], {"PATH": os.environ["PATH"], "HOME": str(folder / "home")})
    if version not in found:
        raise InstallError(f"{program} calls itself {found.strip()[-80:]!r}; expected {version}")
    stamp.write_text(version)
    return program


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run to the end and return what it printed.

    Raises:
        InstallError: it failed, or took too long.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"`{' '.join(command)}` did not end within {PATIENCE_S} s") from None
    if done.returncode:
        raise InstallError(f"`{' '.join(command)}` exited with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def home() -> Path:
    """Where the tools live unless told otherwise, a folder each: $SOTAD_AGENTS, else ~/.cache/sotad."""
    return Path(os.environ.get("SOTAD_AGENTS") or Path.home() / ".cache" / "sotad").absolute()


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the command line of a coding agent into a folder of its own.")
    parser.add_argument("tool", choices=sorted(PACKAGES))
    parser.add_argument("folder", type=Path, nargs="?", help="default: a folder of the tool's name in $SOTAD_AGENTS")
    given = parser.parse_args()
    try:
        print(install(given.tool, (given.folder or home() / given.tool).absolute()))
    except InstallError as error:
        print(f"install_agents.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
