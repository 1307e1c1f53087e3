"""Gates on what surrounds the commit: the harness, the repository's other refs, processes, the boundary itself."""

from __future__ import annotations

from sotad.gates.facts import Facts, Gate, some


def harness_untouched(facts: Facts) -> Gate:
    """Checkouts, the code that measures, and the files of the workload are as they were checked."""
    detail = f"changed: {some(facts.moved)}" if facts.moved else "checkouts, harness and workload as checked"
    satisfy = "leave checkouts, harness and datasets alone; work in the workspace"
    return Gate("harness_untouched", not facts.moved, detail, satisfy)


def refs_untouched(facts: Facts) -> Gate:
    """No branch, tag or remote has moved while the implementer worked: nothing reviewed was amended or pushed."""
    detail = some(facts.refs) or "every other branch, tag and remote as before"
    return Gate("refs_untouched", not facts.refs, detail, "commit on the attempt's branch only, and push nothing")


def nothing_left_running(facts: Facts) -> Gate:
    """Every process of the implementer has ended."""
    detail = f"still running: {some(facts.alive)}" if facts.alive else "no process is left"
    return Gate("nothing_left_running", not facts.alive, detail, "end every process before answering")


def inside_worktree(facts: Facts) -> Gate:
    """The kernel kept its writes inside; where it cannot, that is said, and the other gates have to do."""
    detail = facts.confinement or f"not enforced: {facts.unconfined or 'why is not known'}"
    return Gate("inside_worktree", True, detail, "switch the sandbox on, on a kernel with Landlock")
