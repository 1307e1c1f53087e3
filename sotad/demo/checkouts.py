"""The two git checkouts of the demo: the engine as it is, and a fork of it with a defect committed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sotad import refengine
from sotad.demo.defects import DEFECTS

IDENTITY = ("-c", "user.name=sotad demo", "-c", "user.email=demo@sotad.invalid", "-c", "commit.gpgsign=false")


def make_upstream(folder: Path) -> None:
    """A repository that holds a copy of the reference engine, committed on ``main``."""
    source = Path(refengine.__file__).parent
    shutil.copytree(source, folder / "refengine", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _commit(folder, "Import the reference engine")


def make_fork(upstream: Path, folder: Path, defect: str) -> None:
    """A clone of ``upstream`` with the defect's change committed on top.

    Raises:
        subprocess.CalledProcessError: the defect's diff does not apply.
    """
    _git(folder.parent, "clone", "--quiet", str(upstream), str(folder))
    chosen = DEFECTS[defect]
    subprocess.run(["git", "-C", str(folder), "apply", str(chosen.diff)], check=True, env=_environment())
    _commit(folder, "Rework the engine for our deployment")


def _commit(folder: Path, subject: str) -> None:
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "-m", subject)


def _git(folder: Path, *argv: str) -> None:
    subprocess.run(["git", *IDENTITY, "-C", str(folder), *argv], check=True, env=_environment(), timeout=60)


def _environment() -> dict[str, str]:
    """Nobody's git configuration but the machine's own."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
