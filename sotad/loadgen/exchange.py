"""One request as the wire showed it, and why it may not count."""

from dataclasses import dataclass, field

Arrivals = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Failure:
    """Why a request did not count. `kind` is one of a closed set:

    connect, http_status, timeout, stalled, closed_early, garbage, server_error, no_usage, short_output,
    cancelled.
    """

    kind: str
    detail: str


CANCELLED = Failure("cancelled", "the load generator was told to stop")


@dataclass(slots=True, eq=False)
class Exchange:
    """Request `index`; times are `time.perf_counter_ns`, 0 for never.

    `due_ns` is the schedule's moment; `planned_ns` is later when every slot was taken then. What lies between
    `planned_ns` and `sent_ns` is this program's own delay; between `sent_ns` and `written_ns` a connection was
    opened if none was free. `arrivals` has the raw bytes of the reply with the times at which they came.
    """

    index: int = 0
    due_ns: int = 0
    planned_ns: int = 0
    sent_ns: int = 0
    written_ns: int = 0
    ended_ns: int = 0
    arrivals: Arrivals = field(default_factory=list)
    failure: Failure | None = None
