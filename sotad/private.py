"""Where people keep what lets others in as them: keys, tokens, logins."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

LOGINS = (
    ".ssh",
    ".gnupg",
    ".netrc",
    ".git-credentials",
    ".config/git/credentials",
    ".config/gh",
    ".docker/config.json",
    ".kube",
    ".pypirc",
    ".codex",
    ".claude",
    ".claude.json",
)
STORES = (  # engines load weights with these
    ".aws",
    ".config/gcloud",
    ".huggingface/token",
    ".cache/huggingface/token",
    ".cache/huggingface/stored_tokens",
)


def private(home: Path, known: Sequence[str], shown: Sequence[Path] = ()) -> list[Path]:
    """The ``known`` places of a home, there or not, links followed; none that lies in a folder that is ``shown``."""
    places = [(home / name).resolve() for name in known]
    lent = [folder.resolve() for folder in shown]
    return [place for place in places if not any(place.is_relative_to(folder) for folder in lent)]


def installed_in(places: Sequence[Path], program: str) -> list[Path]:
    """The folder of a program that is installed in one of these places; none when it is elsewhere."""
    folder = Path(shutil.which(program) or program).resolve().parent
    return [folder] if any(folder != place and folder.is_relative_to(place) for place in places) else []
