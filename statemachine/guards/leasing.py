"""Guards of leases: the GPUs are those of the spec and stay the same, and nothing is measured on them unwatched."""

from __future__ import annotations

from statemachine import leases
from statemachine.guards.asking import Ask, guard, unless


@guard
def lease_of_spec(a: Ask) -> str | None:
    """Under the present rules a lease is of the very GPUs that the spec names, each known by its uuid."""
    gpus = a.p.get("gpus")
    if not leases.is_current(a.c):
        return None
    if sorted(a.p["gpu_ids"]) != sorted(leases.wanted(a.c)):
        return f"gpu_ids {leases.wanted(a.c)}, as the spec says"
    return leases.differing(a.c, gpus or []) or None


@guard
def waits_for_something(a: Ask) -> str | None:
    """Without a lease for the host; with one, for its GPUs."""
    return unless(not a.c.lease or bool(a.c.lease["gpu_ids"]), "lease.released, or leased GPUs")


@guard
def gpus_given_back(a: Ask) -> str | None:
    """A launch that says what its GPUs hold begins at their level."""
    gpus = a.p.get("gpus")
    return None if gpus is None else leases.held(a.c, gpus) or None


@guard
def gpus_watched(a: Ask) -> str | None:
    """Under the present rules a sample on GPUs counts with its readings only."""
    if not leases.is_current(a.c) or not leases.wanted(a.c):
        return None
    launch = a.c.launches[a.p["launch"]]
    return leases.unwatched(a.c, launch.gpus, a.p.get("gpus")) or None
