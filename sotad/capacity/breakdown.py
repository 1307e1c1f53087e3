"""Where one GPU's memory went, and where the accounts of it disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sotad.capacity import memory_sglang, memory_trtllm, memory_vllm
from sotad.capacity.quantity import Quantity, difference, first, lines_of, total, unknown
from sotad.capacity.ranks import Rank
from sotad.capacity.rules import Event
from sotad.capacity.session import Session
from sotad.capacity.smi import Gpu
from sotad.capacity.units import GIB, gib

QUANTITIES = {
    "sglang": memory_sglang.quantities,
    "tokenspeed": memory_sglang.quantities,
    "vllm": memory_vllm.quantities,
    "tensorrt-llm": memory_trtllm.quantities,
}
# What fills the device, in the order in which it is shown.
PARTS = (
    "framework_overhead",
    "weights",
    "kv_pool",
    "state_pool",
    "draft_weights",
    "draft_kv_pool",
    "cuda_graph",
    "non_torch",
)
_PLACED = ("load_begin", "load_end", "kv_pool", "pool_end", "profiling", "sizing", "final", "summary", "cpu_kv_pool")
_RESIDUALS = ("unattributed_pool", "unattributed_graph", "unattributed")
_SPREAD = 0.02  # of the larger, by which two ways to the size of the weights may differ
_ROUNDED = round(0.05 * GIB)  # sizes in logs have two decimals; several are added


@dataclass(slots=True)
class Breakdown:
    """One rank's memory. ``parts`` holds every quantity, known or not; ``conflicts`` the accounts that disagree."""

    rank: Rank
    parts: dict[str, Quantity]
    conflicts: list[dict[str, Any]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Quantity:
        return self.parts.get(name) or unknown(name, "this framework's log has no such figure")

    def share(self, name: str, of: str) -> float | None:
        """Percent of another quantity."""
        part, whole = self[name].value, self[of].value
        return None if part is None or not whole else round(100 * part / whole, 1)


def ranks_of(session: Session) -> list[Rank]:
    """The ranks that say something about their memory, each GPU once, with the fullest name that the log has for it."""
    found: dict[tuple[int, int, int, int], Rank] = {}
    for event in session.of(*_PLACED):
        known = found.get(event.rank.key)
        if known is None or len(str(event.rank)) > len(str(known)):
            found[event.rank.key] = event.rank
    return [found[key] for key in sorted(found)]


def events_of(session: Session, rank: Rank) -> list[Event]:
    """A rank's events, in order."""
    return [event for event in session.of(*{event.name for event in session.events}) if event.rank.key == rank.key]


def decompose(session: Session, rank: Rank, gpu: Gpu | None = None) -> Breakdown:
    """The memory of one rank; nvidia-smi's figures of its GPU make the device's total and use known."""
    parts = dict(QUANTITIES[session.framework or "sglang"](events_of(session, rank)))
    parts["smi_used"] = _smi("smi_used", gpu, gpu.used if gpu else None)
    parts["device_total"] = first(
        parts.get("device_total") or unknown("device_total", "the log does not say; give --nvidia-smi"),
        _smi("device_total", gpu, gpu.total if gpu else None),
    )
    found = Breakdown(rank, parts)
    parts["framework_overhead"] = difference("framework_overhead", parts["device_total"], found["before_weights"])
    _residuals(found)
    spent = [found[name] for name in PARTS]
    impossible = [part for part in spent if (part.value or 0) < 0]
    parts["known_sum"] = unknown("known_sum", "a part is negative") if impossible else total("known_sum", spent)
    parts["other"] = difference("other", parts["smi_used"], parts["known_sum"])
    whole = parts["known_sum"]
    if not (found["weights"].known and found["kv_pool"].known):
        whole = unknown("total_used", "needs weights and kv_pool, or nvidia-smi's figures")
    parts["total_used"] = first(parts["smi_used"], whole).named("total_used")
    found.conflicts = _conflicts(found)
    return found


def _smi(name: str, gpu: Gpu | None, value: int | None) -> Quantity:
    if value is None or gpu is None:
        return unknown(name, "no nvidia-smi figures")
    return Quantity(name, value, "read", (), f"nvidia-smi's file, line {gpu.line}")


def _residuals(found: Breakdown) -> None:
    """What lies between two readings of free memory and is in no line: allocator, alignment, other processes."""
    parts = found.parts
    graphs = [found["cuda_graph"]] if found["cuda_graph"].known else []
    state = [found["state_pool"]] if found["state_pool"].known else []
    spent = [found["weights"], found["kv_pool"], *state]
    if draft := [found[name] for name in ("draft_weights", "draft_kv_pool") if found[name].known]:
        # A draft model is loaded after the target's graphs, so only the whole can be accounted for.
        parts["unattributed"] = difference(
            "unattributed", found["before_weights"], found["free"], *spent, *draft, *graphs
        )
        return
    if found["weights"].formula != found["weights_by_pool"].formula or not found["weights_by_pool"].known:
        parts["unattributed_pool"] = difference(
            "unattributed_pool", found["before_weights"], found["after_pool"], *spent
        )
    if found["after_pool"].known:
        parts["unattributed_graph"] = difference("unattributed_graph", found["after_pool"], *graphs, found["free"])


def _conflicts(found: Breakdown) -> list[dict[str, Any]]:
    """Accounts that disagree, each with its sign."""
    rows = []
    for name, what in (
        ("other", "nvidia-smi has less in use than the log accounts for"),
        ("unattributed_pool", "weights and pool are larger together than what they took from the free memory"),
        ("unattributed", "the parts are larger together than what they took from the free memory"),
        ("unattributed_graph", "more memory is free after the graphs than before them less their size"),
        ("unbudgeted", "the parts are larger than the memory that was asked for"),
        ("weights", "loading the weights left more memory free than before"),
        ("free", "less than nothing is left"),
        ("kv_pool", "nothing is left for the KV pool"),
    ):
        quantity = found[name]
        if quantity.value is not None and quantity.value < -(0 if name in ("weights", "kv_pool") else _ROUNDED):
            rows.append(_conflict(name, what, quantity.value, quantity.lines))
    return rows + _weight_spread([found[name] for name in found.parts if name.startswith("weights_")])


def _weight_spread(ways: Sequence[Quantity]) -> list[dict[str, Any]]:
    known = sorted((way for way in ways if way.known), key=lambda way: way.value or 0)
    if len(known) < 2:
        return []
    low, high = known[0], known[-1]
    spread = (high.value or 0) - (low.value or 0)
    if spread <= max(_ROUNDED, _SPREAD * (high.value or 0)):
        return []
    what = f"{low.name} is {gib(low.value)} GiB, {high.name} is {gib(high.value)} GiB"
    return [_conflict("weights_spread", what, spread, lines_of((*low.lines, *high.lines)))]


def _conflict(name: str, what: str, value: int, lines: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "what": what, "gib": gib(value), "bytes": value, "lines": list(lines)}


def gpu_of(rank: Rank, ranks: Sequence[Rank], gpus: Sequence[Gpu]) -> Gpu | None:
    """The GPU of a rank: they are numbered alike when there are at least as many GPUs as ranks."""
    if len(gpus) < len(ranks) or not gpus:
        return None
    return gpus[[other.key for other in ranks].index(rank.key)]


def as_json(found: Breakdown, texts: Mapping[int, str]) -> dict[str, Any]:
    """The flat figures in GiB, null where unknown, and below `provenance` where each comes from."""
    flat = {f"{name}_gib": gib(found[name].value) for name in PARTS}
    flat["model_weights_gib"] = flat.pop("weights_gib")
    more = ("activation", "device_total", "before_weights", "after_pool", "free", "other", "known_sum", "total_used")
    flat |= {f"{name}_gib": gib(found[name].value) for name in (*more, *_RESIDUALS)}
    flat |= {"weight_pct": found.share("weights", "total_used"), "kv_pool_pct": found.share("kv_pool", "total_used")}
    flat |= {f"{name}_pct_of_device": found.share(name, "device_total") for name in ("weights", "kv_pool")}
    cited = {line for part in found.parts.values() for line in part.lines}
    return {
        "rank": str(found.rank),
        **flat,
        "provenance": {name: part.as_json() for name, part in found.parts.items()},
        "lines": {str(line): texts[line] for line in sorted(cited) if line in texts},
        "conflicts": found.conflicts,
    }
