"""The mechanical gates on a commit: each a small pure function over facts that the daemon established.

A gate says whether it passed, what it saw, and what would satisfy it. Nothing here runs, reads or asks.
"""

from __future__ import annotations

from sotad.gates.commit import campaign_branch, clean_tree, commit_exists, files_as_claimed, path_boundary
from sotad.gates.content import large_files, no_secrets, provenance
from sotad.gates.facts import Added, Change, Facts, Gate
from sotad.gates.surroundings import harness_untouched, inside_worktree, nothing_left_running, refs_untouched
from sotad.gates.tested import Outcome, own_tests, passed_in

GATES = (
    commit_exists,
    clean_tree,
    campaign_branch,
    path_boundary,
    harness_untouched,
    refs_untouched,
    files_as_claimed,
    no_secrets,
    large_files,
    provenance,
    nothing_left_running,
    inside_worktree,
)

__all__ = [
    "GATES",
    "Added",
    "Change",
    "Facts",
    "Gate",
    "Outcome",
    "commit_exists",
    "evaluate",
    "own_tests",
    "passed_in",
]


def evaluate(facts: Facts) -> list[Gate]:
    """Every gate, in the order in which they are reported."""
    return [gate(facts) for gate in GATES]
