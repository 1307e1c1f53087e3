"""Gates on the commit itself: is it there, is it all, is it where it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from sotad.gates.facts import Facts, Gate, count, some


def commit_exists(facts: Facts) -> Gate:
    """There is a commit, whole and sound, and it builds on the champion."""
    made = facts.commit != facts.base and facts.builds_on and not facts.trouble
    if facts.trouble:
        detail = f"the commit cannot be taken over: {facts.trouble}"
    elif facts.commit == facts.base:
        detail = "no commit on top of the champion"
    elif not facts.builds_on:
        detail = f"{facts.commit[:12]} does not build on the champion {facts.base[:12]}: history was rewritten"
    else:
        detail = f"{facts.commit[:12]} on {facts.base[:12]}"
    return Gate("commit_exists", made, detail, "commit the change on top of the champion")


def clean_tree(facts: Facts) -> Gate:
    """Nothing is left uncommitted."""
    detail = f"uncommitted changes: {some(facts.dirty)}" if facts.dirty else "clean"
    return Gate("clean_tree", not facts.dirty, detail, "commit or remove every change")


def campaign_branch(facts: Facts) -> Gate:
    """The workspace is still on the attempt's branch."""
    right = facts.on == facts.branch
    return Gate("campaign_branch", right, f"on {facts.on or 'no branch'}", f"commit on {facts.branch}")


def path_boundary(facts: Facts) -> Gate:
    """Every file that any commit changes is inside the plan's boundary and the framework's paths, and is no test.

    A link is outside: what it leads to is in no commit.
    """
    touched = [change.path for change in facts.changes]
    outside = {path for path in touched if not all(_matches(path, patterns) for patterns in facts.allowed)}
    outside |= {path for path in touched if _matches(path, facts.forbidden)}
    wrong = sorted(outside) + [f"{path}, a link" for path in facts.links]
    if wrong:
        detail = f"not allowed: {some(wrong)}"
    else:
        detail = f"{count(len(touched), 'file')}, all allowed" if facts.files else "no file changed"
    patterns = " and within ".join(dict.fromkeys(some(patterns) for patterns in facts.allowed))
    return Gate("path_boundary", bool(facts.files) and not wrong, detail, f"change only {patterns}, and no tests")


def files_as_claimed(facts: Facts) -> Gate:
    """The summary names exactly the files that the commit changes."""
    changed, claimed = set(facts.files), set(facts.claimed)
    unsaid, untrue = sorted(changed - claimed), sorted(claimed - changed)
    wrong = [f"changed but not named: {some(unsaid)}"] if unsaid else []
    wrong += [f"named but not changed: {some(untrue)}"] if untrue else []
    detail = "; ".join(wrong) or f"{count(len(changed), 'file')}, as the summary says"
    return Gate("files_as_claimed", not wrong, detail, "name in files every file that the commit changes, and no other")


def tests_named(command: Sequence[str]) -> list[str]:
    """Files that a test command names, as paths or as modules."""
    words = [word.partition("::")[0] for word in command if not word.startswith("-")]
    return [word if word.endswith(".py") else f"{word.replace('.', '/')}.py" for word in words if "." in word]


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
