"""TensorRT-LLM's lines of one rank as quantities; the pool of the profiling run is replaced by the final one."""

from __future__ import annotations

from collections.abc import Sequence

from sotad.capacity.quantity import Quantity, difference, first, read
from sotad.capacity.rules import Event, by_name


def quantities(events: Sequence[Event]) -> dict[str, Quantity]:
    """Everything the rank's lines say or let derive about memory, by name."""
    at = by_name(events)
    peak = at["peak"][-1:]
    weights = read("weights", at["load_end"][-1:], "usage", why="no 'after loading model weights' line")
    pool = first(
        read("kv_pool", at["kv_pool"][-1:], "kv", why="no 'Allocated ... for max tokens' line"),
        read("kv_pool", peak, "rest"),
    )
    highest = read("peak", peak, "peak")
    lasting = difference("peak_without_its_pool", highest, read("profiling_pool", peak, "temporary"))
    device = read("device_total", peak, "total")
    return {
        "device_total": device,
        "weights": weights,
        "kv_pool": pool,
        "activation": read("activation", at["activation"][-1:], "usage", why="no memory profiling in the log"),
        "non_torch": read("non_torch", at["non_torch"][-1:], "usage", why="no memory profiling in the log"),
        "peak": highest,
        "free": difference("free", device, first(lasting, highest), pool),
    }
