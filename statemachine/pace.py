"""How long things took in this campaign, by its own events: sums that a forecast is made of. Seconds.

Kept in ``Campaign.pace`` as ``{name: [number, sum]}``: ``startup/FRAMEWORK/CACHES`` (CACHES is cold, partly, warm or
unknown: start-ups from different ones are never put together), ``run/FRAMEWORK/SCENARIO`` with what was repeated,
``rest/FRAMEWORK`` for what a launch takes beside them. What happened while its host did not answer is in none.
"""

from __future__ import annotations

from statemachine.state import Campaign, Launch


def add(c: Campaign, name: str, seconds: float) -> None:
    """Count one more."""
    number, total = c.pace.get(name, [0, 0.0])
    c.pace[name] = [number + 1, round(total + seconds, 3)]


def mean(c: Campaign, name: str) -> float | None:
    """The mean of what was counted under a name."""
    number, total = c.pace.get(name, [0, 0.0])
    return total / number if number else None


def ready(c: Campaign, launch: Launch, startup_s: float) -> None:
    """Its server answered."""
    launch.busy_s += startup_s
    if launch.began_ns:
        add(c, f"startup/{launch.framework}/{launch.caches.get('state', 'unknown')}", startup_s)


def unwatched(c: Campaign) -> None:
    """Its host does not answer: how long what is under way there takes will not be known."""
    for launch in c.launches.values():
        launch.began_ns = launch.run_ns = 0


def measured(c: Campaign, launch: Launch, scenario: str, time_ns: int) -> None:
    """A run ended with a row."""
    if launch.run_ns:
        seconds = (time_ns - launch.run_ns) / 1e9
        launch.busy_s, launch.run_ns = launch.busy_s + seconds, 0
        add(c, f"run/{launch.framework}/{scenario}" if launch.purpose != "rate" else "rate", seconds)


def stopped(c: Campaign, launch: Launch, time_ns: int) -> None:
    """Its server was stopped."""
    if launch.began_ns:
        add(c, f"rest/{launch.framework}", max(0.0, (time_ns - launch.began_ns) / 1e9 - launch.busy_s))


def gpu_seconds(c: Campaign) -> float:
    """GPU seconds for which the campaign held GPUs, up to its last event."""
    held = (c.updated_ns - c.lease_ns) / 1e9 * len(c.lease["gpu_ids"]) if c.lease and c.lease_ns else 0.0
    return c.gpu_s + max(0.0, held)
