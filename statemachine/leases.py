"""GPUs that a campaign leased: which they are, what they held before it, and what it owes about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from statemachine.state import JSON, Campaign

VERSION = 1  # of the rules for leases; a spec of an earlier release has none and is judged by the rules it was run by
SLACK_MIB = 500  # by which a GPU's memory may exceed its level and still count as given back


def is_current(c: Campaign) -> bool:
    """Whether the campaign was created under the present rules for leases."""
    return int(c.spec.get("leases", 0)) >= VERSION


def wanted(c: Campaign) -> list[int]:
    """The GPU indices that the spec asks for; none means the whole host, whatever is in it."""
    ids: list[int] = c.spec["hardware"].get("gpu_ids") or []
    return ids


def unnamed(c: Campaign) -> bool:
    """Whether a lease is of GPUs that nobody knows any more: it was taken in a world that is not the present one."""
    return is_current(c) and bool(c.lease) and bool(wanted(c)) and not c.gpus


def differing(c: Campaign, gpus: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the GPUs that a lease names, in words; empty when they are those asked for and used before."""
    if sorted(gpu["index"] for gpu in gpus) != sorted(wanted(c)):
        return f"GPUs {', '.join(map(str, wanted(c)))} of the spec, each by its uuid"
    strange = sorted({gpu["uuid"] for gpu in gpus} ^ set(c.gpus)) if c.gpus else []
    return f"the GPUs that were leased first: {', '.join(sorted(c.gpus))}" if strange else ""


def held(c: Campaign, gpus: Sequence[Mapping[str, Any]]) -> str:
    """Why a launch on these GPUs would not begin as the first one did; empty when all are back at their level."""
    if not same(c.gpus, [gpu["uuid"] for gpu in gpus]):
        return f"the leased GPUs: {', '.join(sorted(c.gpus))}"
    for gpu in gpus:
        level, found = c.gpus[gpu["uuid"]]["level_mib"], gpu.get("memory_mib")
        if level is not None and (found is None or found > level + SLACK_MIB):
            return f"GPU {gpu['index']} at its level of {level} MiB, not at {found} MiB"
    return ""


def unwatched(c: Campaign, launched: Sequence[JSON], evidence: Mapping[str, Any] | None) -> str:
    """What the evidence about a sample's GPUs lacks, in words; empty when it was watched and ours alone."""
    if not launched:
        return "a launch that found its GPUs idle"
    if not evidence:
        return "readings of the GPUs before, during and after"
    if evidence["readings"] < 2 or not same(c.gpus, [gpu["uuid"] for gpu in evidence["gpus"]]):
        return f"readings before and after of {', '.join(sorted(c.gpus))}"
    return ""


def same(known: Collection[str], found: Sequence[str]) -> bool:
    """Whether these are exactly the known GPUs, each once."""
    return sorted(known) == sorted(found)
