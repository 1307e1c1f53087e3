"""Gates on what the commits hold: no secrets, nothing huge, nothing taken over without its source."""

from __future__ import annotations

import re

from sotad.gates.facts import Added, Change, Facts, Gate, count, some
from sotad.shim import SHORTEST_SECRET, TOKEN_SHAPES

MOST_LINES = 2000
MOST_BYTES = 1 << 20
KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
TOKEN = re.compile(TOKEN_SHAPES)
HEADER = re.compile(
    r"SPDX-License-Identifier|SPDX-FileCopyrightText|\bCopyright\b\s*(?:\(c\)|©|[12]\d{3}|[A-Z])"
    r"|\bLicensed under\b|\bAll rights reserved\b",
    re.IGNORECASE,
)
BORROWED = re.compile(
    r"(?:#|//|\*|;|--|\"\"\")\s.*\b(?:copied|adapted|borrowed|ported|lifted) from\b",
    re.IGNORECASE,
)


def no_secrets(facts: Facts) -> Gate:
    """No line that a commit adds, nor a message, header or name of a file, holds a secret.

    That a later commit takes it away does not help: it is in the history.
    """
    found = [f"{where(line)}: {kind}" for line in facts.added if (kind := secret_in(line.text, facts))]
    detail = some(sorted(set(found))) or f"{count(len(facts.added), 'added line')}, no secret in them"
    return Gate("no_secrets", not found, detail, "take the secret out of every commit, and revoke it")


def secret_in(text: str, facts: Facts) -> str:
    """What kind of secret a line holds; empty without one. Never the secret itself."""
    for name, value in facts.secrets.items():
        if any(len(part) >= SHORTEST_SECRET and part in text for part in value.splitlines()):
            return f"the value of {name}"
    if KEY.search(text):
        return "a private key"
    return "a token" if TOKEN.search(text) else ""


def large_files(facts: Facts) -> Gate:
    """No commit adds a binary, more than 2000 lines to a file, or a file of more than 1 MiB."""
    found = [f"{change.path}: {why}" for change in facts.changes if (why := _too_large(change))]
    satisfy = f"keep every file's change below {MOST_LINES} lines and 1 MiB, as text, in every commit"
    return Gate(
        "large_files", not found, some(found) or f"{count(len(facts.changes), 'file')}, none too large", satisfy
    )


def _too_large(change: Change) -> str:
    if change.binary:
        return "binary"
    if change.lines > MOST_LINES:
        return f"{change.lines} added lines"
    return f"{change.size} bytes" if change.size > MOST_BYTES >= change.before else ""


def provenance(facts: Facts) -> Gate:
    """What was taken over has its source and licence; what looks taken over was declared."""
    declared = {str(entry.get("path") or "") for entry in facts.sources}
    vague = [str(e.get("path") or e.get("source") or "an entry") for e in facts.sources if not _complete(e)]
    marked = {line.path for line in facts.added if line.path and is_foreign(line, facts.known)}
    silent = sorted(path for path in marked if path not in declared and "" not in declared)
    wrong = [f"without source or licence: {some(sorted(vague))}"] if vague else []
    wrong += [f"looks taken over and is not declared: {some(silent)}"] if silent else []
    detail = "; ".join(wrong) or f"{count(len(facts.sources), 'source')} declared, no other mark of foreign code"
    satisfy = "declare path, source and licence of what was taken over"
    return Gate("provenance", not wrong, detail, satisfy)


def is_foreign(line: Added, known: frozenset[str]) -> bool:
    """Whether a line says that somebody else wrote this: a licence or holder the base does not have, or the words."""
    text = line.text.strip()
    return bool(BORROWED.search(text)) or (bool(HEADER.search(text)) and text not in known)


def _complete(entry: dict[str, object]) -> bool:
    return all(str(entry.get(key) or "").strip() for key in ("source", "licence"))


def where(line: Added) -> str:
    """Where a line stands; headers and names of files go with the message."""
    return line.path or "a commit's message"
