"""Open pull requests through the command line `gh`: what to run, and what its output says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from sotad.knowledge.pulls import JSON, PullsError, pull

LIMIT = 100
FIELDS = "number,title,url,updatedAt,body,files"
QUIET = {"GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1"}
PASSED = ("NO_PROXY", "no_proxy", "GH_HOST", "GH_CONFIG_DIR")  # variables that it gets when they are set
PROXIES = ("HTTPS_PROXY", "https_proxy")  # may hold a password
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def command(repo: str, term: str, token_from: str = "") -> tuple[str, ...]:
    """The argv of one search. The token stays in its variable: a shell hands it to `gh` under the name it reads.

    Raises:
        PullsError: ``token_from`` is no name of a variable.
    """
    which = ("--repo", repo, "--state", "open", "--search", f'"{term}"', "--limit", str(LIMIT))
    ask = ("gh", "pr", "list", *which, "--json", FIELDS)
    if not token_from:
        return ask
    if not _VARIABLE.fullmatch(token_from):
        raise PullsError("knowledge.token_from is no name of an environment variable")
    return ("sh", "-c", f'GH_TOKEN="${token_from}" exec "$@"', "sh", *ask)


def parse(repo: str, term: str, terms: Sequence[str], output: bytes) -> list[JSON]:
    """The pull requests that `gh pr list --json` printed.

    Raises:
        PullsError: it printed something else.
    """
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        raise PullsError("gh printed no JSON") from None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise PullsError("gh printed no list of pull requests")
    return [pull(repo, entry, term, terms) for entry in value]
