"""The calls of agents: how each ended and what it used. What a tool did not report is unknown, never 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ledger.events import Event
from sotad.report.document import Block, Table, Text
from sotad.report.facts import Facts, cite, said
from statemachine.state import JSON

TOKENS = ("input_tokens", "output_tokens")
UNKNOWN = "unknown"


def spent(calls: Sequence[Event]) -> JSON:
    """What calls used together: seconds, tokens and dollars, None where no call reported any.

    ``tokens_unknown`` and ``cost_unknown`` count the calls that did not report: the sums lack them.
    """
    used = [call.payload.get("usage") or {} for call in calls]
    return {
        "calls": len(calls),
        "wall_s": sum(float(call.payload["wall_s"]) for call in calls),
        **{key: _sum(used, key) for key in (*TOKENS, "cost_usd")},
        "tokens_unknown": sum(any(not _known(use.get(key)) for key in TOKENS) for use in used),
        "cost_unknown": sum(not _known(use.get("cost_usd")) for use in used),
    }


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sum(used: Sequence[JSON], key: str) -> float | None:
    reported = [use[key] for use in used if _known(use.get(key))]
    return sum(reported) if reported else None


def calls_for(f: Facts, attempt_id: str) -> list[Event]:
    """The calls made for an attempt: the one that proposed it, and those of every job that carries its name."""
    proposed = next(iter(f.of_attempt(attempt_id, "patch.proposed")), None)
    proposing = f.job_before(proposed.seq, "propose").get("job") if proposed else None
    return [
        call
        for call in f.all("agent.finished")
        if call.payload["job"] == proposing or attempt_id in call.payload["job"].split("/")
    ]


# --- blocks ---------------------------------------------------------------------------------------------


def agent_blocks(f: Facts) -> list[Block]:
    """Per role what its calls used together, then every call. Empty when no agent was called."""
    calls = f.all("agent.finished")
    if not calls:
        return []
    note = (
        "Tokens and money are what each agent's tool reported. A call that reported none is counted as unknown, "
        "and the sums lack it."
    )
    return [Text(note), _totals(calls), _calls(calls)]


def _totals(calls: Sequence[Event]) -> Table:
    roles = dict.fromkeys(call.payload["role"] for call in calls)
    by_role = {role: [call for call in calls if call.payload["role"] == role] for role in roles}
    rows = [_total(role, found) for role, found in by_role.items()]
    if len(roles) > 1:
        rows.append(_total("all", calls))
    headers = ("role", "calls", "seconds", "input tokens", "output tokens", "calls without", "money", "calls without")
    return Table(headers, rows)


def _total(role: str, calls: Sequence[Event]) -> tuple[str, ...]:
    used = spent(calls)
    return (
        *(role, str(used["calls"]), f"{used['wall_s']:.1f}"),
        *(amount(used[key]) for key in TOKENS),
        *(str(used["tokens_unknown"]), money(used["cost_usd"]), str(used["cost_unknown"])),
    )


def _calls(calls: Sequence[Event]) -> Table:
    rows = [tuple(_call(call)) for call in calls]
    headers = ("role", "program", "job", "outcome", "seconds", "input tokens", "output tokens", "money")
    return Table((*headers, "session", "transcript", "event"), rows)


def _call(call: Event) -> Iterator[str]:
    p = call.payload
    use = p.get("usage") or {}
    session = p["session"] or "none"
    yield from (p["role"], f"{p['driver']} {p['version']}".strip(), f"{p['job']}, attempt {p['attempt']}")
    yield from (said(p["outcome"]), f"{p['wall_s']:.1f}", *(amount(use.get(key)) for key in TOKENS))
    yield from (money(use.get("cost_usd")), f"{session}, resumed" if p["resumed"] else session)
    yield from (p["transcript"]["sha256"], cite(call))


def amount(value: Any) -> str:
    """A count, or that it is unknown."""
    return f"{value:g}" if isinstance(value, float) else str(value) if _known(value) else UNKNOWN


def money(value: Any) -> str:
    """US dollars, or that they are unknown."""
    return f"{value:.4f} USD" if _known(value) else UNKNOWN


def spent_text(used: JSON) -> str:
    """What some calls used, on one line."""
    tokens = ", ".join(f"{amount(used[key])} {key.replace('_', ' ')}" for key in TOKENS)
    unknown = [
        f"{used[key]} of {used['calls']} calls said nothing of {what}"
        for key, what in (("tokens_unknown", "tokens"), ("cost_unknown", "money"))
        if used[key]
    ]
    calls = f"{used['calls']} agent call{'' if used['calls'] == 1 else 's'}"
    known = f"{calls}, {used['wall_s']:.1f} s, {tokens}, {money(used['cost_usd'])}"
    return "; ".join([known, *unknown])
