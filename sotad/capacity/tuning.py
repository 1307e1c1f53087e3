"""What could be changed, each note with its flag, its arithmetic and its risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sotad.capacity.breakdown import Breakdown
from sotad.capacity.kv import Layout, dtype_bytes
from sotad.capacity.session import Session
from sotad.capacity.units import GIB, gib

HIGHEST = 0.95  # share of the memory beyond which nothing is recommended
WORTH = round(0.5 * GIB)  # gain below which a change is not worth a restart
FRACTION = {
    "sglang": ("--mem-fraction-static", "before_weights"),
    "tokenspeed": ("--gpu-memory-utilization", "before_weights"),
    "vllm": ("--gpu-memory-utilization", "device_total"),
}
REQUESTS = {
    "sglang": "--max-running-requests",
    "tokenspeed": "--max-num-seqs",
    "vllm": "--max-num-seqs",
    "tensorrt-llm": "--max_batch_size",
}
KV_DTYPE = {"sglang": "fp8_e4m3", "tokenspeed": "fp8", "vllm": "fp8", "tensorrt-llm": "fp8"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the notes are drawn from."""

    session: Session
    memory: Breakdown
    tokens: int | None
    bytes_per_token: float | None
    kv_dtype: str | None
    rows: list[dict[str, Any]]
    layout: Layout | None
    fraction: float | None  # of the memory that the server may take

    @property
    def framework(self) -> str:
        """Whose flags to name."""
        return self.session.framework or "sglang"


def reserve(memory: Breakdown) -> int:
    """Bytes to leave free: the activation peak if the log has it, at least 2 GiB and 2 % of the device."""
    whole = memory["device_total"].value or memory["before_weights"].value or 0
    return max(memory["activation"].value or 0, 2 * GIB, round(0.02 * whole))


def advise(facts: Facts) -> list[dict[str, Any]]:
    """The notes; none is no claim that nothing can be better."""
    notes = [
        _capped(facts),
        _fraction(facts),
        _tight(facts),
        _offered(facts),
        _kv_dtype(facts),
        _requests(facts),
        _replicated(facts),
    ]
    return [note for note in notes if note]


def _on_cpu(facts: Facts) -> bool:
    return facts.session.setting("device") == "cpu" or any(
        event.name == "cpu_kv_pool" for event in facts.session.events
    )


def _capped(facts: Facts) -> dict[str, Any] | None:
    cap = facts.session.whole("max_total_tokens")
    if cap is None or facts.tokens is None or facts.tokens > cap:
        return None
    return _note("the pool is held down by a flag, not by memory", "--max-total-tokens", cap, None, facts, risk="none")


def _fraction(facts: Facts) -> dict[str, Any] | None:
    """More pool from memory that stays free, less the reserve."""
    if facts.framework not in FRACTION or _on_cpu(facts) or facts.session.whole("max_total_tokens"):
        return None
    flag, base = FRACTION[facts.framework]
    now, whole, free = facts.fraction, facts.memory[base].value, facts.memory["free"].value
    if now is None or not whole or free is None:
        return None
    gain = min(free - reserve(facts.memory), round((HIGHEST - now) * whole))
    if gain < WORTH:
        return None
    new = round(int(1000 * (now + gain / whole)) / 1000, 3)
    formula = f"{gib(free)} GiB free - reserve {gib(reserve(facts.memory))} GiB, at most {HIGHEST} of the memory"
    risk = (
        "the activation peak is not in the log: try the longest prefill" if not facts.memory["activation"].known else ""
    )
    return _note(f"{gib(gain)} GiB more can go to the KV pool", flag, now, new, facts, gain, formula, risk)


def _tight(facts: Facts) -> dict[str, Any] | None:
    free = facts.memory["free"].value
    if free is None or free >= reserve(facts.memory) or _on_cpu(facts) or facts.framework not in FRACTION:
        return None
    formula = f"{gib(free)} GiB free < reserve {gib(reserve(facts.memory))} GiB"
    flag = FRACTION[facts.framework][0]
    return _note(
        "little is left for activations: a long prefill may fail",
        flag,
        facts.fraction,
        None,
        facts,
        None,
        formula,
        "OOM",
    )


def _offered(facts: Facts) -> dict[str, Any] | None:
    """vLLM prints the largest pool that it believes in; there is no reserve in it."""
    told = [event for event in facts.session.of("summary") if event.whole("kv_full")]
    pool = facts.memory["kv_pool"].value
    if not told or pool is None:
        return None
    most = told[-1].whole("kv_full") or 0
    note = _note(
        f"vLLM says that a pool of {gib(most)} GiB would use the GPU fully",
        "--kv-cache-memory",
        pool,
        most,
        facts,
        most - pool,
        f"line {told[-1].line}",
        "no reserve is left",
    )
    return note | {"source": "read"}


def _kv_dtype(facts: Facts) -> dict[str, Any] | None:
    """Half the bytes for a token; only where the element type is known to have 16 bits."""
    if dtype_bytes(facts.kv_dtype) != 2 or facts.tokens is None or _capped(facts):
        return None
    note = _note(
        "an 8-bit KV cache holds twice the tokens",
        "--kv-cache-dtype",
        facts.kv_dtype,
        KV_DTYPE[facts.framework],
        facts,
        formula=f"{facts.tokens} tokens * 2",
        risk="accuracy: check it on your own tasks",
    )
    return note | {"expected_tokens": facts.tokens * 2}


def _requests(facts: Facts) -> dict[str, Any] | None:
    held = [row for row in facts.rows if row["binding"] == "requests"]
    if not held:
        return None
    row = held[0]
    what = (
        f"at {row['request_tokens']} tokens a request the request limit binds, the pool would hold {row['token_limit']}"
    )
    return _note(what, REQUESTS[facts.framework], row["request_limit"], row["token_limit"], facts, risk="latency rises")


def _replicated(facts: Facts) -> dict[str, Any] | None:
    if facts.layout is None or facts.layout.replication <= 1:
        return None
    what = f"each KV head is held by {facts.layout.replication:g} GPUs: fewer KV heads than ranks"
    flags = (
        "--enable-dp-attention"
        if facts.framework == "sglang"
        else "--data-parallel-size with a lower tensor parallelism"
    )
    return _note(what, flags, None, None, facts, formula=facts.layout.formula, risk="measure: it changes latency too")


def _note(
    what: str,
    flag: str,
    now: Any,
    new: Any,
    facts: Facts,
    gain: int | None = None,
    formula: str = "",
    risk: str = "",
) -> dict[str, Any]:
    expected = None
    pool, each = facts.memory["kv_pool"].value, facts.bytes_per_token
    if gain is not None and pool is not None and each:
        expected = int((pool + gain) / each)
    return {
        "note": what,
        "flag": flag,
        "from": now,
        "to": new,
        "gain_gib": gib(gain),
        "expected_tokens": expected,
        "formula": formula,
        "risk": risk,
        "source": "derived",
    }
