"""Open pull requests: what a search found, from whichever source, and what could not be asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sotad.knowledge.words import mentions

JSON = dict[str, Any]
MOST_FOUND = 100
MOST_FILES = 30
TEXT_CHARS = 200
HIGHEST = 10**9
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class PullsError(Exception):
    """A source could not be asked; the text says which, and why. It holds no secret."""


class Asked(NamedTuple):
    """One search: the pull requests of a repository that have a term, or why there is no answer."""

    repo: str
    term: str
    found: list[JSON]
    reason: str = ""
    partial: str = ""


def searches(repositories: Sequence[str], terms: Sequence[str]) -> list[tuple[str, str]]:
    """Every (repository, term) to be asked for.

    Raises:
        PullsError: there is nothing to ask, or a repository is not written OWNER/NAME.
    """
    odd = [name for name in repositories if not REPOSITORY.fullmatch(name)]
    if odd:
        raise PullsError(f"knowledge.repositories: {', '.join(map(repr, odd))}: write OWNER/NAME")
    if not repositories or not terms:
        what = (
            "knowledge.repositories names none" if not repositories else "the model's name gives no word to search for"
        )
        raise PullsError(f"no pull requests can be searched: {what}")
    return [(repo, term) for repo in dict.fromkeys(repositories) for term in dict.fromkeys(terms)]


def pull(repo: str, entry: Mapping[str, Any], term: str, terms: Iterable[str]) -> JSON:
    """One pull request in our words, from an entry of the REST search or of `gh pr list`.

    Raises:
        PullsError: it is no pull request.
    """
    number, title = entry.get("number"), entry.get("title")
    if type(number) is not int or not 0 < number < HIGHEST or not isinstance(title, str):
        raise PullsError(f"{repo}: an entry without a number and a title")
    text = f"{title}\n{entry.get('body') or ''}"
    matching = [each for each in terms if each == term or mentions(text, each)]
    found: JSON = {"repo": repo, "number": number, "title": plain(title), "relevant": matching}
    found["url"] = plain(entry.get("html_url") or entry.get("url") or "")
    found["updated"] = plain(entry.get("updated_at") or entry.get("updatedAt") or "")
    listed = entry.get("files")
    return {**found, "files": paths(listed)} if isinstance(listed, list) else found


def paths(entries: Iterable[Any]) -> list[str]:
    """Paths of changed files, as REST (``filename``) and `gh` (``path``) list them."""
    named = (entry.get("filename") or entry.get("path") for entry in entries if isinstance(entry, dict))
    return [plain(name) for name in named if name][:MOST_FILES]


def plain(value: Any, chars: int = TEXT_CHARS) -> str:
    """What a service sent, as one line of valid text."""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())[:chars]


def joined(asked: Sequence[Asked]) -> list[JSON]:
    """Every pull request once, with all terms that found it; the most recently updated first."""
    found: dict[tuple[str, int], JSON] = {}
    for entry in (entry for each in asked for entry in each.found):
        key = entry["repo"], entry["number"]
        known = found.setdefault(key, entry)
        terms = list(dict.fromkeys([*known["relevant"], *entry["relevant"]]))
        found[key] = {**entry, **known, "relevant": terms}
    return sorted(found.values(), key=lambda entry: (entry["updated"], entry["repo"], entry["number"]), reverse=True)


def scanned(asked: Sequence[Asked], found: Sequence[JSON] | None = None, remarks: Sequence[str] = ()) -> JSON:
    """The payload of `openpr.scanned`: unavailable when no search was answered, whatever failed said in any case."""
    known = joined(asked) if found is None else list(found)
    failed = [f"{each.repo} {each.term!r}: {each.reason}" for each in asked if each.reason]
    partial = [f"{each.repo} {each.term!r}: {each.partial}" for each in asked if each.partial]
    if len(failed) == len(asked):
        reason = "; ".join(dict.fromkeys(failed)) or "nothing was asked"
        return {"available": False, "found": [], "reason": f"no search was answered: {reason}"}
    said = [f"{len(failed)} of {len(asked)} searches failed: {'; '.join(failed)}"] if failed else []
    if len(known) > MOST_FOUND:
        said.append(f"{len(known)} were found, the {MOST_FOUND} updated last are kept")
    return {"available": True, "found": known[:MOST_FOUND], "reason": "; ".join([*said, *partial, *remarks])}
