"""What a person sees while a campaign runs: one plain line for each event that matters."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

JSON = dict[str, Any]


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


SENTENCES: dict[str, Callable[[JSON], str]] = {
    "campaign.created": lambda p: f"campaign created from {p['source']}",
    "framework.probed": lambda p: f"probed {p['framework']}: {p['version']} at {(p.get('commit') or '')[:12]}",
    "framework.unsupported": lambda p: f"{p['framework']} is unsupported: {p['reason']}",
    "preflight.passed": lambda p: f"preflight passed on {p['host'].get('cpu', 'this host')}",
    "preflight.failed": lambda p: f"preflight failed: {p['check']}: {p['reason']}",
    "workload.frozen": lambda p: f"workload frozen as {p['digest'][:12]}: {', '.join(p['scenarios'])}",
    "benchmark.finished": _bench,
    "candidate.failed": lambda p: f"  {p['launch']} {p['status'].upper()}: {p['reason'][:110]}",
    "candidate.lost": lambda p: f"  {p['launch']} lost: {p['reason'][:110]}",
    "sla.failed": lambda p: f"  {p['launch']} misses the SLA: {p['key']} {p['limit']:g}, observed {p['observed']:.0f}",
    "winner.selected": lambda p: f"winner of {p['framework']}: {p.get('candidate')} ({p['reason']})",
    "baseline.frozen": lambda p: f"baseline frozen as {p['digest'][:12]}",
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
    "patch.proposed": lambda p: (
        f"patch {p['attempt_id']} proposed: {p['hypothesis']} (cites {', '.join(p['citations'])})"
    ),
    "gate.evaluated": lambda p: f"  gate {p['gate']}: {'passed' if p['passed'] else 'REFUSED'} ({p['detail'][:100]})",
    "patch.applied": lambda p: f"patch {p['attempt_id']} committed as {p['commit'][:12]}: {', '.join(p['files'])}",
    "patch.accepted": lambda p: f"patch {p['attempt_id']} ACCEPTED",
    "patch.reverted": lambda p: f"patch {p['attempt_id']} REVERTED by gate {p['gate']}: {p['reason']}",
    "verdict.recorded": lambda p: f"review: {p['mainline']}, {len(p['findings'])} findings: {p['summary']}",
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
        if sentence is not None:
            self.say(f"#{event['seq']:<4} {sentence(event['payload'])}")
