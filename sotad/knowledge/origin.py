"""How old a corpus is: its last commit where it lies in a git repository, else the newest backfill that it dates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sotad import git
from sotad.knowledge.corpus import Corpus
from sotad.knowledge.query import JSON, watched


async def describe(corpus: Corpus, checkout: Path | None, commit: str) -> JSON:
    """Folder, digest, commit and date of a corpus, and why it is stale; ``stale`` is empty when it is not.

    ``commit`` of ``checkout`` is what it has to keep up with. Dates are UTC days.
    """
    found: JSON = {"folder": str(corpus.folder), "digest": corpus.digest, "documents": len(corpus.documents)}
    found |= await _committed(corpus.folder)
    if "commit" not in found:
        found["as_of"] = max((each.date for document in corpus.documents for each in document.backfills), default="")
    found["stale"] = _stale(found["as_of"], await _day(checkout, commit) if checkout else "", commit)
    return {**found, "watch": watched(corpus.documents)}


async def _committed(folder: Path) -> JSON:
    """The last commit that touched the folder, its day, and whether files differ from it; nothing without one."""
    try:
        commit, _, seconds = (await git.git(folder, "log", "-1", "--format=%H %ct", "--", ".")).strip().partition(" ")
        if not commit:
            return {}
        changed = bool((await git.git(folder, "status", "--porcelain", "--", ".")).strip())
    except git.GitError:
        return {}
    return {"commit": commit, "as_of": _utc_day(seconds), "changed": changed}


async def _day(checkout: Path, commit: str) -> str:
    try:
        return _utc_day((await git.git(checkout, "show", "--no-patch", "--format=%ct", commit)).strip())
    except git.GitError:
        return ""


def _utc_day(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).date().isoformat()


def _stale(as_of: str, target: str, commit: str) -> str:
    if not as_of:
        return "its age is unknown: it is no git repository and dates no backfill"
    if not target:
        return "" if not commit else f"the date of the target's commit {commit[:12]} could not be read"
    return f"as of {as_of}, the target's commit {commit[:12]} is of {target}" if as_of < target else ""
