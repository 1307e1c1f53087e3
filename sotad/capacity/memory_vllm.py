"""vLLM's lines of one worker as quantities.

``gpu_memory_utilization`` is a share of the whole device: weights, activation peak, what PyTorch did not allocate and,
in newer versions, the expected graphs come off it, and the rest is the KV pool (vllm, worker/gpu_worker.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from sotad.capacity.quantity import Quantity, difference, first, read
from sotad.capacity.rules import Event, by_name


def quantities(events: Sequence[Event]) -> dict[str, Quantity]:
    """Everything the worker's lines say or let derive about memory, by name."""
    at = by_name(events)
    start = (at["summary"] or at["no_room"])[-1:]
    budget = at["budget"][-1:]
    before = read("before_weights", start, "free", why="no line tells the memory that was free at the start")
    weights = first(
        read("weights", at["load_end"][:1], "usage", why="no 'Model loading took' line"),
        read("weights", start, "weights"),
    )
    pool = first(
        read("kv_pool", at["kv_pool"][-1:], "kv", why="no 'Available KV cache memory' line"),
        read("kv_pool", start, "kv"),
        read("kv_pool", at["cpu_kv_pool"][-1:], "kv"),
    )
    activation = first(
        read("activation", start, "activation", why="no line tells the activation peak"),
        read("activation", at["activation"][-1:], "usage"),
    )
    non_torch = first(read("non_torch", start, "non_torch"), read("non_torch", at["non_torch"][-1:], "usage"))
    graphs = first(
        read("cuda_graph", at["graph_end"], "usage", why="no 'Graph capturing finished' line"),
        read("cuda_graph", start, "graph"),
    )
    requested = first(read("requested", start, "budget"), read("requested", budget, "budget"))
    expected = read("expected_graphs", at["graph_estimate"][-1:], "usage")
    return {
        "device_total": first(
            read("device_total", start, "total"),
            read("device_total", budget, "total"),
            read("device_total", at["cpu_kv_pool"][-1:], "total"),
        ),
        "before_weights": before,
        "weights": weights,
        "kv_pool": pool,
        "activation": activation,
        "non_torch": non_torch,
        "cuda_graph": graphs,
        "expected_graphs": expected,
        "requested": requested,
        "free": difference("free", before, weights, non_torch, graphs, pool),
        "unbudgeted": _unbudgeted(requested, [weights, activation, non_torch, pool], expected),
    }


def _unbudgeted(requested: Quantity, spent: list[Quantity], expected: Quantity) -> Quantity:
    """What of the budget no line accounts for: about 0, or the accounts disagree."""
    plain = difference("unbudgeted", requested, *spent)
    if not expected.known or not plain.known:
        return plain
    with_graphs = difference("unbudgeted", requested, *spent, expected)
    return min(plain, with_graphs, key=lambda each: abs(each.value or 0))
