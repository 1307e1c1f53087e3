"""A whole loop from the fields of its files: rounds, verdicts, how it ended, and what does not fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from sotad.humanize.layout import FINALIZE, STATE_FILES, TERMINAL_FILES, place, round_file
from sotad.humanize.reading import JSON


def overview(files: Mapping[str, JSON]) -> JSON:
    """``files`` maps each file's name to its fields, as they are now.

    Returns ``status`` (active, finalize, methodology, a terminal, or unknown), ``terminal`` (or None), ``rounds``
    (one object each) and ``problems`` (file and what, those of single files among them).
    """
    states = [name for name in STATE_FILES if name in files]
    active = [name for name in states if name not in TERMINAL_FILES]
    held = (active or states)[:1]
    rounds = sorted({where.round for name in files if (where := place(name)) and where.round is not None})
    found = [{"file": name, "problem": text} for name, fields in files.items() for text in fields["problems"]]
    return {
        "status": STATE_FILES[held[0]] if held else "unknown",
        "terminal": TERMINAL_FILES[states[0]] if states and not active else None,
        "current_round": files[held[0]].get("current_round") if held else None,
        "rounds": [_round(files, number) for number in rounds],
        "problems": found + [{"file": name, "problem": text} for name, text in _contradictions(files, states, rounds)],
    }


def _round(files: Mapping[str, JSON], number: int) -> JSON:
    result = files.get(round_file(number, "review-result"), {})
    kinds = ("prompt", "contract", "summary", "review-prompt", "review-result")
    return {
        "round": number,
        "files": [kind for kind in kinds if round_file(number, kind) in files],
        "verdict": result.get("verdict", ""),
        "control": result.get("control", ""),
        "findings": dict(sorted(Counter(entry["severity"] for entry in result.get("findings", ())).items())),
        "problems": sum(len(fields["problems"]) for fields in files.values() if fields.get("round") == number),
    }


def _contradictions(files: Mapping[str, JSON], states: list[str], rounds: list[int]) -> Iterator[tuple[str, str]]:
    """What no single file shows."""
    if len(states) > 1:
        yield states[1], f"stands beside {states[0]}: a loop has one state record"
    if "complete-state.md" in files and "finalize-summary.md" not in files:
        yield "complete-state.md", "says complete, and no finalize-summary.md is there"
    current = files[states[0]].get("current_round") if states else None
    for number in rounds:
        result = round_file(number, "review-result")
        if result in files and round_file(number, "review-prompt") not in files:
            yield result, "a result of a review that nobody asked for"
        if result in files and isinstance(current, int) and number > current and FINALIZE not in states:
            yield result, f"is ahead of round {current}, which the state record names"
