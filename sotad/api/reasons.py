"""The reasons of each kind of decision in words: the numbers it saw, and what would have changed it.

One small function per event type, of the event and its campaign as it was before. Each answers with two
lists of sentences. A type without one is explained by its payload.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from ledger.events import Event
from sotad.api.phrases import Words, decision_rule, number, payload_lines, samples
from sotad.api.reasons_loop import LOOP
from statemachine import evidence, goodput
from statemachine.ranking import passes, ranking_key
from statemachine.state import JSON, Campaign

Explain = Callable[[JSON, Campaign], Words]
EXPLAIN: dict[str, Explain] = {**LOOP}


def reasons_of(event: Event, c: Campaign) -> Words:
    """Reasons, and what would have changed it."""
    explain = EXPLAIN.get(event.type)
    return explain(event.payload, c) if explain else (list(payload_lines(event.payload)), [])


def _on(*types: str) -> Callable[[Explain], Explain]:
    def register(function: Explain) -> Explain:
        EXPLAIN.update(dict.fromkeys(types, function))
        return function

    return register


# --- comparisons ------------------------------------------------------------------------------------------


@_on("gap.decided")
def _gap(p: JSON, c: Campaign) -> Words:
    reasons = [f"verdict: {p['verdict']} against {p['leader']} in round {p['round']}", decision_rule(c)]
    reasons = list(dict.fromkeys([*reasons, *samples(p["decisions"]), *p["reasons"]]))
    return reasons, [
        f"{name}: {_flip(found, c)}" for name, found in p["decisions"].items() if _flip(found, c)
    ] + _sla_flip(p)


@_on("aa.checked")
def _aa(p: JSON, c: Campaign) -> Words:
    said = "agrees with itself" if p["passed"] else "differs from itself: no comparison here can be trusted"
    changed = "one scenario called behind, ahead or untrusted" if p["passed"] else "no such scenario"
    return [f"the target's command {said}", decision_rule(c), *samples(p["decisions"])], [changed]


@_on("patch.accepted", "patch.reverted")
def _patch(p: JSON, c: Campaign) -> Words:
    if p.get("gate") and p["gate"] != "improvement":
        return list(payload_lines(p)), [f"gate {p['gate']} passed"]
    reasons = [f"attempt {p['attempt_id']}: challenger against champion, measured again", decision_rule(c)]
    reasons += samples(p["decisions"]) + ([p["reason"]] if "reason" in p else [])
    accepted = "gate" not in p
    changed = "accepted on no scenario, or a regression" if accepted else "accepted on one, regressed on none"
    return reasons, [changed]


def _flip(found: JSON, c: Campaign) -> str:
    """The nearest other call for one scenario."""
    tau = c.spec.get("decision", {}).get("tau_pct", "tau")
    g, lo, hi = (number(found.get(key)) for key in ("g_pct", "lo_pct", "hi_pct"))
    return {
        "behind": f"not behind with a lower bound <= 0 (it is {lo}) or an estimate <= {tau} (it is {g})",
        "par_or_better": f"undecided with an upper bound > {tau} (it is {hi}), ahead with one < 0",
        "ahead": f"par_or_better with an upper bound >= 0 (it is {hi})",
        "undecided": f"behind with a lower bound > 0 (it is {lo}) and an estimate > {tau} (it is {g}), "
        f"par_or_better with an upper bound <= {tau} (it is {hi})",
        "untrusted": "a call with undisturbed samples: less noise, no outliers, a passed A/A check",
    }.get(str(found.get("verdict")), "")


def _sla_flip(p: JSON) -> list[str]:
    return ["the target passing the SLA that the leader passes"] if p["verdict"] == "sla_gap" else []


@_on("fairness.checked")
def _fairness(p: JSON, c: Campaign) -> Words:
    def line(item: JSON) -> str:
        values = ", ".join(f"{side} {json.dumps(value)}" for side, value in item.get("values", {}).items())
        verdict = "noted" if item.get("verdict") == "noted" else "equal" if item["match"] else "DIFFERENT"
        return f"{item['condition']}: {values} - {verdict}"

    differing = [item["condition"] for item in p["items"] if not item["match"]]
    changed = f"equal values of: {', '.join(differing)}" if differing else "any of these differing"
    return [line(item) for item in p["items"]], [changed]


# --- search ----------------------------------------------------------------------------------------------


@_on("winner.selected")
def _winner(p: JSON, c: Campaign) -> Words:
    sla = c.spec["sla"]
    rows = evidence.search_rows(c, p["framework"], p["scenario"])
    ranked = sorted(rows, key=lambda row: ranking_key(row, sla), reverse=True)
    reasons = [p["reason"], "order: ran, SLA passed, request rate, token rate, TTFT, TPOT, GPUs"]
    reasons += [f"{place}. {_ranked(row, sla)}" for place, row in enumerate(ranked, 1)]
    if p.get("candidate") is None:
        return reasons, ["any row that passes the SLA"]
    others = [row for row in ranked if row["candidate"] != p["candidate"]]
    return reasons, [f"a better row of {others[0]['candidate']}, the runner-up"] if others else []


def _ranked(row: JSON, sla: JSON) -> str:
    said = "SLA passed" if passes(row, sla) else f"SLA missed ({row['status']})"
    names = ("request_throughput", "output_token_throughput", "p50_ttft_ms", "p50_tpot_ms")
    metrics = ", ".join(f"{name} {number(row['metrics'].get(name))}" for name in names)
    return f"{row['candidate']} run {row['run']}: {said}, {metrics}"


@_on("goodput.found")
def _goodput(p: JSON, c: Campaign) -> Words:
    bounds = ", ".join(f"{key} {number(value)}" for key, value in (goodput.search(c) or {}).items())
    tests = [f"{number(t['rate'])} requests/s: SLA {'passed' if t['passed'] else 'missed'}" for t in p["tests"]]
    return [p["reason"], f"search: {bounds}", *tests], ["another rate meeting or missing the SLA"]


@_on("candidate.skipped")
def _skipped(p: JSON, c: Campaign) -> Words:
    planned = evidence.candidates(c, p["framework"])
    tried = (c.launches.get(evidence.search_launch(p["framework"], entry["id"])) for entry in planned)
    seen = [f"{launch.candidate}: {launch.status}: {launch.reason}" for launch in tried if launch and launch.reason]
    return [p["reason"], *seen], ["one of these becoming a healthy server"]


@_on("candidate.curtailed")
def _curtailed(p: JSON, c: Campaign) -> Words:
    beside = ", ".join(f"{name} {number(p[name])}" for name in ("observed", "wanted", "behind_pct", "se_pct"))
    share = f"the chance that this is wrong is {number(p['chance'])}, its share of search.early_stop.wrong_stop "
    seen = [f"{p['candidate']} on {p['scenario']}: {p['reason']}", beside, f"{share}is {number(p['bound'])}"]
    return seen, [f"a chance of {number(p['bound'])} or more: noisier runs, or runs closer to {p['against']}"]


@_on("benchmark.disturbed")
def _disturbed(p: JSON, c: Campaign) -> Words:
    which = f"launch {p['launch']}, scenario {p['scenario']}, run {p['run']}: thrown out, and measured again"
    return [which, *p["reasons"]], ["a sample that nothing disturbed"]


@_on("sla.failed")
def _sla(p: JSON, c: Campaign) -> Words:
    bound = "at least" if p["key"].startswith("min_") else "at most"
    seen = p.get("observed")
    said = "was not measured" if seen is None else f"was {number(seen)}"
    limit = f"{p['key']}: {bound} {number(p['limit'])} is asked, it {said}"
    return [f"launch {p['launch']}, scenario {p['scenario']}", limit], [f"{bound} {number(p['limit'])}"]


@_on("candidate.failed")
def _failed(p: JSON, c: Campaign) -> Words:
    launch = c.launches.get(p["launch"])
    command = [f"command: {' '.join(launch.command)}"] if launch else []
    return [*payload_lines(p), *command], ["the server becoming ready and staying up until it was measured"]


@_on("baseline.frozen")
def _baseline(p: JSON, c: Campaign) -> Words:
    rows = [f"{pair}: {won.get('candidate')} ({won.get('reason')})" for pair, won in p["winners"].items()]
    return [*rows, f"digest {p['digest']}"], ["any other winner; from here on these commands are fixed"]


# --- patch -----------------------------------------------------------------------------------------------


@_on("gate.evaluated")
def _gate(p: JSON, c: Campaign) -> Words:
    said = "passed" if p["passed"] else "failed"
    changed = [p["satisfy"]] if p.get("satisfy") else []
    return [f"gate {p['gate']} {said} for {p['attempt_id']}", p["detail"]], changed


# --- halting and ending -------------------------------------------------------------------------------------


@_on("campaign.blocked")
def _blocked(p: JSON, c: Campaign) -> Words:
    return [f"blocked on {p['kind']}: {p['reason']}", f"halted in {c.phase}"], [p["next"]]


@_on("budget.exhausted")
def _budget(p: JSON, c: Campaign) -> Words:
    over = p["used"] - p["limit"]
    reasons = [f"{p['kind']}: {number(p['used'])} of {number(p['limit'])} used"]
    if p["kind"] in ("tokens", "money") and c.spent.get("unknown"):
        unknown, calls = number(c.spent["unknown"]), number(c.spent.get("calls", 0))
        reasons.append(f"{unknown} of {calls} agent calls reported nothing: what they used comes on top")
    return reasons, [f"a limit larger by {number(over)}: budget in the campaign file"]


@_on("stop.proposed")
def _stop(p: JSON, c: Campaign) -> Words:
    rejected = [f"row {row} was rejected: {reason}" for row, reason in c.rejected_rows.items()]
    return [*_conclusion(p["condition"], p), *rejected], ["one cited row that nobody has tried or rejected"]


@_on("campaign.closed")
def _closed(p: JSON, c: Campaign) -> Words:
    return _conclusion(p["terminal"], p), [
        f"another conclusion of event {seq}: sotactl why {seq}" for seq in p["evidence"]
    ]


def _conclusion(condition: str, p: JSON) -> list[str]:
    evidence_ = ", ".join(str(seq) for seq in p["evidence"])
    return [f"condition: {condition}", p["reason"], f"evidence: events {evidence_}"]
