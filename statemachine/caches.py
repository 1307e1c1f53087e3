"""Compiled code that a launch may start from: which launches share a folder, and whether it was cold or warm.

A folder belongs to one framework at one commit on one kind of hardware. ``cold``: no launch used it before. ``warm``:
this very candidate came up with it. ``partly``: other candidates used it, or a launch that did not come up.
"""

from __future__ import annotations

from statemachine.state import JSON, Campaign

SHARED = frozenset({"search", "rate", "aa", "gap"})
"""Purposes whose launches share a folder when ``caches.reuse`` is fair. Where an agent's commit is judged, each
launch of either side compiles anew: one lucky or unlucky choice of a kernel must not count in every block."""


def reuse(c: Campaign) -> str:
    """What the spec says: fair, all, off, or engine when the engines keep their caches where they like."""
    return str((c.spec.get("caches") or {}).get("reuse", "engine"))


def shares(c: Campaign, purpose: str) -> bool:
    """Whether a launch for that purpose uses the folder of its commit, and not one of its own."""
    return reuse(c) == "all" or (reuse(c) == "fair" and purpose in SHARED)


def state_of(c: Campaign, folder: str, candidate: str) -> str:
    """Whether a launch of a candidate finds the folder cold, partly warm or warm."""
    known = c.caches.get(folder)
    if known is None:
        return "cold"
    return "warm" if candidate in known["candidates"] else "partly"


def mistake(c: Campaign, launched: JSON) -> str:
    """What is wrong with the caches that ``candidate.launched`` tells; empty when nothing is."""
    told: JSON = launched.get("caches") or {}
    if not told:
        return ""
    owner = c.caches.get(told["folder"])
    if owner and (owner["framework"], owner["commit"]) != (launched["framework"], launched["commit"]):
        return (
            f"a cache folder of its own: {told['folder']} holds code of {owner['framework']} at {owner['commit'][:12]}"
        )
    if owner and not shares(c, launched["purpose"]):
        return f"a fresh cache folder, as a launch for {launched['purpose']} needs"
    state = state_of(c, told["folder"], launched["candidate"])
    return "" if told["state"] == state else f"caches that are {state}, as the launches before it left them"


def note_launch(c: Campaign, launched: JSON) -> None:
    """Remember whose code the folder holds."""
    if told := launched.get("caches"):
        owner = {"framework": launched["framework"], "commit": launched["commit"], "candidates": []}
        c.caches.setdefault(told["folder"], owner)


def note_ready(c: Campaign, folder: str, candidate: str) -> None:
    """Remember that a candidate came up with the folder."""
    if candidate not in c.caches[folder]["candidates"]:
        c.caches[folder]["candidates"].append(candidate)
