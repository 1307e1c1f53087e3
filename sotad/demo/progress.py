"""What a person sees while a campaign runs: one plain line for each event that matters."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

from sotad.cli.output import clean

JSON = dict[str, Any]
LONGEST = 110
"""Characters of a reason, and of what an agent says; the ledger has all of it."""


def _cut(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def _gap(p: JSON) -> str:
    parts = [
        f"{name}: target behind by {found['g_pct']:.1f}% [{_bound(found['lo_pct'])}, {_bound(found['hi_pct'])}] "
        f"after {found['n']} blocks"
        for name, found in p["decisions"].items()
    ]
    return f"gap of round {p['round']} against {p['leader']}: {p['verdict'].upper()}; {'; '.join(parts)}"


def _bound(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def _bench(p: JSON) -> str:
    metrics = p["row"]["metrics"] or {}
    rate = metrics.get("request_throughput")
    shown = "no result" if rate is None else f"{rate:.2f} requests/s, TTFT p50 {metrics['p50_ttft_ms']:.0f} ms"
    return f"  {p['launch']} {p['scenario']} run {p['run']}: {shown}"


def _timed_or_refused(p: JSON) -> str:
    """Of gates, those that refuse, and the one that looks at the timed answers themselves."""
    if not p["passed"]:
        return f"  gate {p['gate']} REFUSED: {_cut(p['detail'])}"
    return f"  timed outputs: {_cut(p['detail'])}" if p["gate"] == "timed_outputs" else ""


def _proposed(p: JSON) -> str:
    contract = p.get("contract") or {}
    chosen = f"; contract: {contract['objective']} [{', '.join(contract['criteria'])}]" if contract else ""
    return f"patch {p['attempt_id']} proposed: {p['hypothesis']} (cites {', '.join(p['citations'])}){chosen}"


def _said(p: JSON) -> str:
    """The implementer's own words, marked as such."""
    lines = p["text"].split("\n")
    first = next((line.strip() for line in lines if line.strip()), "nothing")
    return f"  {p['attempt_id']}: the implementer says: {_cut(first)}"


def _heldout(p: JSON) -> str:
    parts = [f"{name} {-found['g_pct']:+.1f}%" for name, found in p["decisions"].items()]
    how = "passed" if p["passed"] else "FAILED"
    return f"held-out workload {how}: the patches against the first commit: {', '.join(parts)}"


def _verdict(p: JSON) -> str:
    found = f"{len(p['findings'])} findings" + (f", resolves {', '.join(p['resolved'])}" if p.get("resolved") else "")
    return f"review ({p.get('kind', 'summary')}): {p['mainline']}, {p['control']}, {found}: {p['summary']}"


def _agent(p: JSON) -> str:
    usage = p.get("usage") or {}
    tokens = sum(usage.get(key) or 0 for key in ("input_tokens", "output_tokens"))
    used = f"{tokens:,} tokens" if tokens else "tokens unknown"
    money = "" if usage.get("cost_usd") is None else f", {usage['cost_usd']:.2f} USD"
    return f"  {p['role']} ({p['driver']}) {p['outcome']} after {p['wall_s']:.1f} s, {used}{money}"


SENTENCES: dict[str, Callable[[JSON], str]] = {
    "campaign.created": lambda p: f"campaign created from {p['source']}",
    "framework.probed": lambda p: f"probed {p['framework']}: {p['version']} at {(p.get('commit') or '')[:12]}",
    "framework.unsupported": lambda p: f"{p['framework']} is unsupported: {p['reason']}",
    "preflight.passed": lambda p: f"preflight passed on {p['host'].get('cpu', 'this host')}",
    "preflight.failed": lambda p: f"preflight failed: {p['check']}: {p['reason']}",
    "workload.frozen": lambda p: f"workload frozen as {p['digest'][:12]}: {', '.join(p['scenarios'])}",
    "benchmark.finished": _bench,
    "candidate.failed": lambda p: f"  {p['launch']} {p['status'].upper()}: {_cut(p['reason'])}",
    "candidate.lost": lambda p: f"  {p['launch']} lost: {_cut(p['reason'])}",
    "sla.failed": lambda p: f"  {p['launch']} misses the SLA: {p['key']} {p['limit']:g}, observed {p['observed']:.0f}",
    "winner.selected": lambda p: f"winner of {p['framework']}: {p.get('candidate')} ({p['reason']})",
    "baseline.frozen": lambda p: f"baseline frozen as {p['digest'][:12]}",
    "plan.recorded": lambda p: (
        f"plan version {p['version']} ({p['source']}): {len(p['plan']['criteria'])} criteria: {p['plan']['goal']}"
    ),
    "plan.amendment_proposed": lambda p: f"an amendment of the plan waits for a person: {p['reason']}",
    "plan.amended": lambda p: f"plan version {p['version']} is in force",
    "loop.started": lambda p: f"loop started at {p['base_commit'][:12]} on {p['branch']}",
    "fairness.checked": lambda p: (
        f"fairness: {len(p['items'])} conditions, {'all match' if p['passed'] else 'VIOLATED'}"
    ),
    "aa.checked": lambda p: f"A/A check {'passed' if p['passed'] else 'FAILED'}",
    "gap.decided": _gap,
    "profile.captured": lambda p: f"profile of the {p['side']} ({p['framework']}) captured",
    "profile.rejected": lambda p: f"profile of the {p['side']} rejected: {p['reason']}",
    "rootcause.written": lambda p: f"root cause: {p['statement']}",
    "idea.rejected": lambda p: f"{len(p['rows'])} rows have no patch: {p['reason']}",
    "idea.recorded": lambda p: f"{len(p['ideas'])} new ideas on record",
    "patch.proposed": _proposed,
    "finalize.opened": lambda p: f"finalize: {p['attempt_id']} may simplify what was gained, once",
    "finalize.unchanged": lambda p: f"finalize: {p['attempt_id']} leaves the patches as they are",
    "summary.recorded": _said,
    "gate.evaluated": _timed_or_refused,
    "agent.finished": _agent,
    "patch.applied": lambda p: f"patch {p['attempt_id']} committed as {p['commit'][:12]}: {', '.join(p['files'])}",
    "patch.accepted": lambda p: f"patch {p['attempt_id']} ACCEPTED",
    "patch.quarantined": lambda p: (
        f"patch {p['attempt_id']} QUARANTINED: gains {p['gain_pct']:.1f}%, more than {p['ceiling_pct']:g}% ({p['why']})"
    ),
    "patch.reverted": lambda p: f"patch {p['attempt_id']} REVERTED by gate {p['gate']}: {p['reason']}",
    "heldout.checked": _heldout,
    "verdict.recorded": _verdict,
    "review.findings": lambda p: (
        f"{len(p['items'])} findings: {'; '.join(_cut(item['text'], 80) for item in p['items'])}"
    ),
    "review.stalled": lambda p: f"the round counts as {p['mainline']}",
    "review.stopped": lambda p: f"the reviewer stops the loop: {p['reason']}",
    "human.question": lambda p: f"a person is asked ({p['subject']}): {p['text']}",
    "human.answered": lambda p: f"a person answered {p['subject']}: {p['answer']}",
    "human.approved": lambda p: f"a person said {'yes' if p['approved'] else 'no'} to {p['subject']}",
    "review.failed": lambda p: f"review failed: {p['reason']}",
    "stop.proposed": lambda p: f"stop: {p['condition']}: {p['reason']}",
    "campaign.blocked": lambda p: f"BLOCKED ({p['kind']}): {p['reason']}; next: {p['next']}",
    "budget.exhausted": lambda p: f"{p['kind']} budget is used up",
    "job.lost": lambda p: f"  {p['job']} lost: {p['reason']}",
    "job.timed_out": lambda p: f"  {p['job']} ran out of time",
    "campaign.closed": lambda p: f"closed: {p['terminal']}: {p['reason']}",
}


class Progress:
    """Writes lines with the time since the first one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Write one line."""
        elapsed = time.monotonic() - self._began
        self._out.write(f"{int(elapsed // 60):>2}:{elapsed % 60:04.1f}  {text}\n")
        self._out.flush()

    def show(self, event: JSON) -> None:
        """Write an event's sentence, when it has one; the number is its seq in the ledger."""
        sentence = SENTENCES.get(event["type"])
        text = clean(sentence(event["payload"])).replace("\n", " ") if sentence else ""
        if text:
            self.say(f"#{event['seq']:<4} {text}")
