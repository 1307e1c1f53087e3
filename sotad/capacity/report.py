"""A log, and the files beside it, as one report: the content of ``analyze capacity --json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sotad.capacity import breakdown, kv, tuning
from sotad.capacity.breakdown import Breakdown
from sotad.capacity.concurrency import Length, reported, rows
from sotad.capacity.errors import CapacityError
from sotad.capacity.kv import Layout
from sotad.capacity.lines import Log
from sotad.capacity.observed import observed
from sotad.capacity.oom import explain
from sotad.capacity.quantity import read
from sotad.capacity.ranks import Rank, of
from sotad.capacity.rules import Event
from sotad.capacity.session import Session, parse_log
from sotad.capacity.smi import Gpu, read_smi
from sotad.capacity.tokens import Count, Pool, context_length, page_size, pools
from sotad.capacity.units import GIB, gib
from sotad.frameworks.logs import classify

LOOKED_FOR = (
    "SGLang and TokenSpeed: 'Load weight end', 'KV Cache is allocated', 'Memory pool end', 'max_total_num_tokens='; "
    "vLLM: 'Model loading took', 'Available KV cache memory', 'KV cache size: N tokens', '# GPU blocks'; "
    "TensorRT-LLM: '[MemUsageChange] Allocated N GiB for max tokens', 'Peak memory during memory usage profiling'"
)
PRINTED = 0.005 * GIB  # by which a size printed with two decimals may be off
READ_AGAIN = 200_000  # lines of a failed start that are searched for its reason
FORMAT = 1  # of the JSON; a field that changes its meaning raises it


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants to know; numbers of sessions count from 1."""

    lengths: Sequence[Length]
    config: Path | None = None
    nvidia_smi: Path | None = None
    rank: str | None = None
    session: int | None = None


@dataclass(slots=True)
class _Found:
    session: Session
    number: int
    sessions: list[Session]
    ranks: list[Rank]
    memory: list[Breakdown]  # one for each rank
    gpus: list[Gpu]
    warnings: list[str] = field(default_factory=list)


def analyse(path: Path, asked: Asked) -> dict[str, Any]:
    """The report.

    Raises:
        CapacityError: a file cannot be used, no line about memory was recognised, or there is no such rank or session.
    """
    log = Log(path)
    sessions = parse_log(log)
    number = _chosen(path, sessions, asked.session)
    session = sessions[number - 1]
    gpus = read_smi(asked.nvidia_smi) if asked.nvidia_smi else []
    ranks = breakdown.ranks_of(session) or [Rank()]
    memory = [breakdown.decompose(session, rank, breakdown.gpu_of(rank, ranks, gpus)) for rank in ranks]
    found = _Found(session, number, sessions, ranks, memory, gpus)
    if not session.complete:
        found.warnings += _ended(path, session)
    if log.cut:
        found.warnings.append("the compressed file ends too early: what comes after is missing")
    return _report(path, asked, found, ranks.index(_target(ranks, asked.rank)))


def _ended(path: Path, session: Session) -> list[str]:
    """Why a server that did not get to its capacity ended, if its lines tell."""
    lines = (text for number, text in Log(path) if session.first <= number <= session.last)
    failure = classify("\n".join(islice(lines, READ_AGAIN)))
    return [f"the server failed ({failure.kind}): {failure.line}"] if failure.line else []


def _chosen(path: Path, sessions: Sequence[Session], wanted: int | None) -> int:
    """The last session that got to its token capacity, else the last that says anything about memory."""
    useful = [number for number, session in enumerate(sessions, 1) if session.framework or session.out_of_memory]
    if wanted is not None:
        if not 1 <= wanted <= len(sessions):
            raise CapacityError(f"--session {wanted}: {path} holds {len(sessions)}; give a number from 1 on")
        if wanted not in useful:
            raise CapacityError(f"{path}: session {wanted} has no line about memory; there is: {useful or 'none'}")
        return wanted
    if not any(sessions[number - 1].framework for number in useful):
        raise CapacityError(
            f"{path}: no line about memory that is known here. Looked for {LOOKED_FOR}. "
            "Give the whole output of the server from its start, at log level info"
        )
    complete = [number for number in useful if sessions[number - 1].complete]
    return (complete or [number for number in useful if sessions[number - 1].framework])[-1]


def _target(ranks: Sequence[Rank], wanted: str | None) -> Rank:
    if wanted is None:
        return ranks[0]
    place = Rank(tp=int(wanted)) if wanted.isdecimal() else of(wanted.replace(",", " ").upper())
    asked = [(name, value) for name in ("dp", "pp", "tp", "ep") if (value := getattr(place, name)) is not None]
    fitting = [rank for rank in ranks if asked and all((getattr(rank, name) or 0) == value for name, value in asked)]
    if not fitting:
        raise CapacityError(
            f"--rank {wanted}: the log has {', '.join(map(str, ranks))}; give one of them, or a TP rank"
        )
    return fitting[0]


def _report(path: Path, asked: Asked, found: _Found, at: int) -> dict[str, Any]:
    session, memory = found.session, found.memory[at]
    have = pools(session)
    mine = next((pool for pool in have if pool.dp == memory.rank.pool), have[0])
    layout = _layout(asked.config, session, kv_dtype(session))
    page, context = page_size(session), context_length(session)
    window = layout.window if layout else None
    table = rows(asked.lengths, have, page.value, context.value, window)
    each, each_from = _bytes_per_token(session, memory, mine.tokens, layout)
    fraction = _fraction(session)
    facts = tuning.Facts(session, memory, mine.tokens.value, each, kv_dtype(session), table, layout, fraction)
    seen = observed(session, mine.requests.value)
    own = reported(session, have)
    _warn(found, memory, mine, own)
    texts = {event.line: event.text.strip()[:300] for event in session.events}
    return {
        "format": FORMAT,
        "log": str(path),
        "framework": session.framework,
        "framework_version": session.version,
        "model": session.setting("model"),
        "session": _session_json(found),
        "units": "GiB and GB both mean 2**30 bytes: the engines divide by that whichever they print",
        **{name: session.whole(name) for name in ("tp_size", "pp_size", "dp_size", "ep_size")},
        "memory_fraction": fraction,
        "settings": {name: {"value": each.value, "line": each.line} for name, each in session.settings.items()},
        "rank": str(memory.rank),
        "ranks": [_rank_json(each) for each in found.memory],
        "kv_cache_tokens": mine.tokens.value,
        "kv_cache_tokens_from": mine.tokens.as_json(),
        "kv_cache_tokens_all_pools": _all(have),
        "kv_cache_dtype": kv_dtype(session),
        "max_running_requests": mine.requests.value,
        "context_length": context.value,
        "page_size": page.value,
        "page_size_from": page.as_json(),
        "kv_bytes_per_token": None if each is None else round(each, 2),
        "kv_bytes_per_token_from": each_from,
        "memory_breakdown": breakdown.as_json(memory, texts),
        "cuda_graph_captures": _captures(session, memory.rank),
        "pools": [_pool_json(pool) for pool in have],
        "model_config": layout.as_json() if layout else None,
        "kv_check": _kv_check(layout, memory, mine, each),
        "concurrency": table,
        "reported_concurrency": own,
        "observed": seen,
        "evidence": "start-up and load" if seen else "start-up only",
        "tuning": tuning.advise(facts),
        "oom": _oom(session, memory),
        "nvidia_smi": [
            {"index": gpu.index, "used_gib": gib(gpu.used), "free_gib": gib(gpu.free), "total_gib": gib(gpu.total)}
            for gpu in found.gpus
        ],
        "warnings": found.warnings,
    }


def kv_dtype(session: Session) -> str | None:
    """The pool's element type: what was allocated, else the argument, where ``auto`` means the model's own."""
    for event in session.of("kv_pool", "kv_dtype"):
        if isinstance(stated := event.values.get("dtype"), str):
            return stated.removeprefix("torch.")
    named, own = session.setting("kv_dtype"), session.setting("dtype")
    chosen = own if named == "auto" else named
    return chosen if isinstance(chosen, str) and chosen != "auto" else None


def _layout(config: Path | None, session: Session, dtype: str | None) -> Layout | None:
    if config is None:
        return None
    model = kv.read_config(config)
    tp = session.whole("tp_size") or 1
    if session.setting("dp_attention") is True:
        tp = max(1, tp // (session.whole("dp_size") or 1))
    try:
        return kv.layout(model, tp, session.whole("pp_size") or 1, dtype)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CapacityError(
            f"{config}: a value is not what it should be ({error}); give the model's own config.json"
        ) from None


def _fraction(session: Session) -> float | None:
    """The share of memory that the server was given: its argument, else what its memory lines repeat."""
    stated = [session.setting("memory_fraction")]
    stated += [event.values.get("fraction") for event in session.of("summary", "budget", "profiling", "peak")]
    return next((float(value) for value in stated if isinstance(value, int | float)), None)


def _captures(session: Session, rank: Rank) -> list[dict[str, Any]]:
    """Each capture of CUDA graphs with its own size."""
    ends = [event for event in breakdown.events_of(session, rank) if event.name == "graph_end"]
    return [
        {"what": event.text.split(" end")[0], "gib": gib(event.whole("usage")), "line": event.line} for event in ends
    ]


def _bytes_per_token(
    session: Session, memory: Breakdown, tokens: Count, layout: Layout | None
) -> tuple[float | None, dict[str, Any]]:
    """Of the log where it says so, else pool over tokens, else the formula over the config."""
    for event in session.of("sizing", "peak"):
        if isinstance(stated := event.values.get("bytes_per_token"), float):
            return stated, {"source": "read", "lines": [event.line]}
    pool = memory["kv_pool"]
    if pool.value and tokens.value:
        rounding = 100 * (pool.formula.count(" + ") + 1) * PRINTED / pool.value
        formula = f"{gib(pool.value)} GiB / {tokens.value} tokens, {rounding:.2g} % either way by rounding in the log"
        return pool.value / tokens.value, {
            "source": "derived",
            "lines": [*pool.lines, *tokens.lines],
            "formula": formula,
        }
    if layout and layout.bytes_per_token and not layout.sliding_layers:
        return layout.bytes_per_token, {"source": "derived", "lines": [], "formula": layout.formula}
    return None, {"source": "unknown", "lines": []}


def _kv_check(layout: Layout | None, memory: Breakdown, pool: Pool, each: float | None) -> dict[str, Any] | None:
    """The config's bytes for a token beside the log's, and the tokens that the pool would hold by the config."""
    if layout is None or not layout.bytes_per_token or layout.sliding_layers:
        return None
    size, have = memory["kv_pool"].value, pool.tokens.value
    off = None if not each else round(100 * (layout.bytes_per_token - each) / each, 2)
    return {
        "bytes_per_token_by_config": layout.bytes_per_token,
        "bytes_per_token_by_log": None if each is None else round(each, 2),
        "difference_pct": off,
        "tokens_by_config": None if size is None else int(size // layout.bytes_per_token),
        "tokens_by_log": have,
        "formula": layout.formula,
    }


def _oom(session: Session, memory: Breakdown) -> dict[str, Any] | None:
    events = breakdown.events_of(session, memory.rank)
    profiling = [event for event in events if event.name == "profiling"][:1]
    loads = [event for event in events if event.name == "load_end"][:1]
    available, whole = read("available", profiling, "available"), read("total", profiling, "total")
    if not available.known:
        available, whole = read("available", loads, "avail"), memory["before_weights"]
    return explain(session, available, whole)


def _all(have: Sequence[Pool]) -> int | None:
    values = [pool.tokens.value for pool in have]
    return None if any(value is None for value in values) else sum(value or 0 for value in values)


def _pool_json(pool: Pool) -> dict[str, Any]:
    return {
        "dp_rank": pool.dp,
        "tokens": pool.tokens.as_json(),
        "window_tokens": pool.window.as_json(),
        "state_slots": pool.slots.as_json(),
        "max_running_requests": pool.requests.as_json(),
    }


def _rank_json(memory: Breakdown) -> dict[str, Any]:
    names = ("before_weights", "after_pool", "weights", "kv_pool", "state_pool", "cuda_graph", "free", "smi_used")
    rank = memory.rank
    places = {"dp": rank.dp, "pp": rank.pp, "tp": rank.tp, "ep": rank.ep}
    return {"rank": str(rank), **places, **{f"{name}_gib": gib(memory[name].value) for name in names}}


def _session_json(found: _Found) -> dict[str, Any]:
    session = found.session
    return {
        "number": found.number,
        "of": len(found.sessions),
        "complete": session.complete,
        "lines": [session.first, session.last],
    }


def _warn(found: _Found, memory: Breakdown, pool: Pool, own: Sequence[Mapping[str, Any]]) -> None:
    say, session = found.warnings.append, found.session
    if pool.tokens.value is None:
        last = _last_milestone(session.events)
        say(f"no line says how many tokens fit; the last that tells about memory is {last}: the log may be cut")
    elif not session.complete:
        cited = ", ".join(map(str, pool.tokens.lines))
        say(f"the start did not get to its end: the tokens are what line {cited} planned or allocated")
    for number, other in enumerate(found.sessions, 1):
        if number > found.number and other.out_of_memory:
            say(f"session {number} ran out of memory (line {other.out_of_memory[0][0]}): see --session {number}")
        elif number > found.number:
            say(f"session {number} (from line {other.first}) is not complete: shown is session {found.number}")
    for conflict in memory.conflicts:
        say(f"accounts disagree: {conflict['what']} ({conflict['gib']} GiB, {conflict['name']})")
    if pool.tokens.value is not None and pool.requests.value is None:
        say("the log does not say how many requests may run at once: fewer may fit than the tokens allow")
    for row in own:
        if row["agrees"] is False:
            off = row["difference_pct"]
            say(f"tokens / length is {row['computed']}, the server reports {row['reported']}: {off} % off")
    _warn_ranks(found)


def _last_milestone(events: Sequence[Event]) -> str:
    told = [event for event in events if event.values]
    return f"line {told[-1].line} ({told[-1].text.strip()[:80]})" if told else "missing"


def _warn_ranks(found: _Found) -> None:
    say, session = found.warnings.append, found.session
    sizes = [session.whole(name) or 1 for name in ("tp_size", "pp_size")]
    data = 1 if session.setting("dp_attention") is True else session.whole("dp_size") or 1
    expected = sizes[0] * sizes[1] * data
    if len(found.ranks) < expected:
        say(f"{len(found.ranks)} of {expected} ranks tell about their memory")
    for name, limit, what in (
        ("before_weights", 0.5 * GIB, "another process on one of the GPUs?"),
        ("after_pool", 1.0 * GIB, "the pool is as small as the fullest rank allows"),
    ):
        values = [value for memory in found.memory if (value := memory[name].value) is not None]
        if values and max(values) - min(values) > limit:
            say(f"{name} differs by {gib(max(values) - min(values))} GiB between the ranks: {what}")
    weights = [value for memory in found.memory if (value := memory["weights"].value) is not None]
    if weights and max(weights) - min(weights) > 0.02 * max(weights) > 0:
        say(f"weights differ by {gib(max(weights) - min(weights))} GiB between the ranks: uneven stages or experts")
    if found.gpus and len(found.gpus) < len(found.ranks):
        say(f"nvidia-smi's file has {len(found.gpus)} GPUs for {len(found.ranks)} ranks: not used")
    elif found.gpus:
        say("nvidia-smi's GPUs are taken in the order of the ranks; the total of its table holds what the driver keeps")
