"""SGLang's lines of one rank as quantities.

``mem_fraction_static`` bounds weights plus pools as a share of what was free BEFORE the weights were loaded:
``rest_memory = available_gpu_memory - total_gpu_memory * (1 - mem_fraction_static)``, where ``total`` is that earlier
free memory and ``available`` the free memory after the weights (sglang, model_executor: profiling of the pool).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sotad.capacity.quantity import Quantity, difference, first, read, unknown
from sotad.capacity.rules import Event, by_name

_POOL = ("k", "v", "kv", "total")
_STATE = ("conv", "ssm", "draft_ssm", "draft_conv")


def quantities(events: Sequence[Event]) -> dict[str, Quantity]:
    """Everything the rank's lines say or let derive about memory, by name."""
    at = by_name(events)
    target, draft = pools(events)
    last = [event for event in events if event.name in ("final", "graph_end") and "avail" in event.values][-1:]
    found = {
        "before_weights": first(
            read("before_weights", at["load_begin"][:1], "avail", why="no 'Load weight begin' line"),
            read("before_weights", at["profiling"][:1], "total"),
        ),
        "draft_weights": read("draft_weights", at["load_end"][1:], "usage", why="no second model in the log"),
        "kv_pool": first(
            read("kv_pool", target, *_POOL, why="no line tells the size of the KV pool"),
            read("kv_pool", at["profiling"][:1], "rest"),
            read("kv_pool", at["sizing"][:1], "budget"),
        ),
        "draft_kv_pool": read("draft_kv_pool", draft, *_POOL, why="no second pool in the log"),
        "state_pool": read("state_pool", at["state_pool"], *_STATE, why="no pool of linear-attention state in the log"),
        "cuda_graph": _graphs(at),
        "communicators": read("communicators", at["distributed"][:1], "usage", why="no line of the process groups"),
        "after_pool": read("after_pool", at["pool_end"][-1:], "avail", why="no 'Memory pool end' line"),
        "free": read("free", last, "avail", why="no line tells the memory that is left in the end"),
        "activation": unknown("activation", "SGLang does not print its activation peak"),
    }
    return found | _weights(at, found)


def pools(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Pools of the target and of the draft model; a sliding-window line sums up the two before it and replaces them."""
    kept: list[Event] = []
    for event in events:
        if event.name == "window_pool":
            parts = 2 if [other.name for other in kept[-2:]] == ["kv_pool", "kv_pool"] else 0
            kept = [*kept[: len(kept) - parts], event]
        elif event.name == "kv_pool":
            kept.append(event)
    at = by_name(events)
    has_draft = len(at["load_begin"]) > 1 or len(at["load_end"]) > 1
    return (kept[:1], kept[1:]) if has_draft else (kept, [])


def _weights(at: Mapping[str, list[Event]], found: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """The best source first; the others stay beside it, because a spread between them is a finding."""
    load, profiling = at["load_end"][:1], at["profiling"][:1]
    stated = read("weights_stated", load, "usage", why="no 'Load weight end' line with 'mem usage'")
    profiled = difference(
        "weights_by_profiling",
        read("total_gpu_memory", profiling, "total"),
        read("available_gpu_memory", profiling, "available"),
    )
    loaded = difference("weights_by_load", found["before_weights"], read("after_weights", load, "avail"))
    by_pool = unknown("weights_by_pool", "a draft model was loaded in between")
    if not (found["draft_weights"].known or found["draft_kv_pool"].known):
        state = [found["state_pool"]] if found["state_pool"].known else []
        free = (found["before_weights"], found["after_pool"])
        by_pool = difference("weights_by_pool", *free, found["kv_pool"], *state)
    return {
        "weights": first(stated, profiled, loaded, by_pool).named("weights"),
        "weights_stated": stated,
        "weights_by_profiling": profiled,
        "weights_by_load": loaded,
        "weights_by_pool": by_pool,
    }


def _graphs(at: Mapping[str, list[Event]]) -> Quantity:
    """Sum of the captures; where none prints its size, the free memory around them tells."""
    ends = at["graph_end"]
    if ends and not any("usage" in event.values for event in ends):
        after = [*ends, *at["final"]][-1:]
        before = read("before_graphs", at["graph_begin"][:1] or at["pool_end"][-1:], "avail")
        return difference("cuda_graph", before, read("after_graphs", after, "avail"))
    return read("cuda_graph", ends, "usage", why="no line that ends a graph capture")
